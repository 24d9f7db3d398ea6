# SPDX-License-Identifier: Apache-2.0
"""Verbs that change what runs: activate, confirm, rollback."""

from __future__ import annotations

import argparse

from edgelearn.cli.elflash_output import Verbs, say, verb
from edgelearn.cli.elflash_session import add_image, board, entry, running
from edgelearn.errors import NothingToDoError, RestartError


def add(verbs: Verbs) -> None:
    """Declare the verbs."""
    parser = verb(
        verbs, "activate", "run what a slot holds, on trial, then confirm it", "elflash activate 3f2a", activate
    )
    parser.add_argument("hash", metavar="HASH", help="the beginning of its hash, as 'elflash slots' says it")
    add_image(parser)
    parser.add_argument("--wait-healthy", type=float, default=120.0, metavar="S", help="seconds a trial may take (120)")
    parser.add_argument("--no-restart", action="store_true", help="only mark it: exit code 12, restart the board later")
    parser = verb(verbs, "confirm", "keep what is on trial", "elflash confirm", confirm)
    add_image(parser)
    parser = verb(verbs, "rollback", "end a trial, or go back to what ran before", "elflash rollback", rollback)
    add_image(parser)
    parser.add_argument("--to", metavar="HASH", help="only if that is what it goes back to")
    parser.add_argument("--reason", default="asked for", help="why, for the board's events")
    parser.add_argument("--no-restart", action="store_true", help="only mark it: exit code 12, restart the board later")


def activate(arguments: argparse.Namespace) -> int:
    """Trial and confirmation."""
    image = arguments.image
    with board(arguments) as remote:
        sha256 = entry(remote.state(image), arguments.hash)["sha256"].hex()
        if arguments.no_restart:
            if remote.activate(image, sha256):
                raise RestartError(
                    f"{image} {sha256[:16]} is tried at the next start: 'elflash reset' starts the board"
                )
        else:
            remote.try_out(image, sha256, arguments.wait_healthy)
    say(arguments, f"{image} {sha256[:16]} runs and is confirmed", image=image, sha256=sha256, confirmed=True)
    return 0


def confirm(arguments: argparse.Namespace) -> int:
    """Keep it."""
    image = arguments.image
    with board(arguments, ours=False) as remote:
        if not remote.info:
            from edgelearn.flash.plain import Plain

            Plain(remote.client).confirm()
            say(arguments, "what runs is confirmed", confirmed=True)
            return 0
        state = remote.state(image)
        if state["trial"] is None:
            raise NothingToDoError(f"no {image} is on trial: 'elflash activate' begins one")
        if state["trial"]["phase"] == "pending":
            raise NothingToDoError(f"the {image} on trial has not started: 'elflash reset' starts the board with it")
        slot = running(state)
        remote.confirm(image, slot["sha256"].hex())
    sha256 = slot["sha256"].hex()
    say(arguments, f"{image} {sha256[:16]} is confirmed", image=image, sha256=sha256, confirmed=True)
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Back."""
    image = arguments.image
    with board(arguments) as remote:
        state = remote.state(image)
        trial = state["trial"]
        now = state["slots"][trial["slot"]] if trial else running(state)
        if arguments.to:
            target = entry(state, arguments.to)
            if target["sha256"] == now["sha256"]:
                raise NothingToDoError(f"{image} {arguments.to} is what runs: there is nothing to go back from")
        if remote.rollback(image, now["sha256"].hex(), arguments.reason):
            if arguments.no_restart:
                raise RestartError("it goes back at the next start: 'elflash reset' starts the board")
            remote.reset()
        back = remote.state(image)
    runs = back["slots"][back["running"]]["sha256"].hex() if back["running"] is not None else ""
    say(arguments, f"{image} {runs[:16] or 'nothing'} runs", image=image, sha256=runs)
    return 0
