# SPDX-License-Identifier: Apache-2.0
"""Verbs that look at a board: info, slots, verify, reset, erase, read-log."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelearn.cli.elflash_output import Verbs, say, verb
from edgelearn.cli.elflash_session import IMAGES, add_image, board
from edgelearn.errors import NothingToDoError, OutputError

if TYPE_CHECKING:
    from edgelearn.flash.host import Remote


def add(verbs: Verbs) -> None:
    """Declare the verbs."""
    verb(verbs, "info", "say what the board is and how it does", "elflash info", info)
    verb(verbs, "slots", "list what the board holds, runs and tries", "elflash slots", slots)
    parser = verb(verbs, "verify", "have the board read its slots again", "elflash verify model.elb", verify)
    parser.add_argument("file", nargs="?", metavar="FILE", help="what must be there; without it, all that is there")
    parser.add_argument("--image", choices=IMAGES, help="what a bare file is (model); without FILE, only this image")
    verb(verbs, "reset", "restart the board and wait until it is back", "elflash reset", reset)
    parser = verb(verbs, "erase", "empty the slot that does not run; transfers begin anew", "elflash erase", erase)
    add_image(parser)
    parser = verb(verbs, "read-log", "fetch a log or report", "elflash read-log logs/board.log -o board.log", read_log)
    parser.add_argument("name", metavar="NAME", help="a path below logs or reports on the board")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to (stdout)")


def info(arguments: argparse.Namespace) -> int:
    """What the board says of itself."""
    with board(arguments, ours=False) as remote:
        if not remote.info:
            return _plain_info(arguments, remote)
        said = {**remote.info, "port": remote.client.link.name, "boot_id": remote.info["boot_id"].hex()}
    trusted = f"trusts {', '.join(said['trusted']) or 'no key'}{', takes unsigned' if said['unsigned'] else ''}"
    lines = [
        f"{said['board']} on {said['port']}: {said['arch']}, ABI {said['abi']}, edgelearn {said['edgelearn']}",
        f"{said['free'] >> 20:,} MB free, up to {said['capacity'] >> 20:,} MB a slot; {trusted}",
        f"up to {said['baud_max']:,} baud, {' and '.join(said['framings'])}",
        *([f"cannot be written now: {said['busy']}"] if said["busy"] else []),
        *(f"note: {warning}" for warning in said["warnings"]),
    ]
    say(arguments, "\n".join(lines), **said)
    return 0


def _plain_info(arguments: argparse.Namespace, remote: Remote) -> int:
    from edgelearn.flash.plain import Plain

    said, port = Plain(remote.client).info(), remote.client.link.name
    lines = [f"plain SMP on {port}: {said.get('output', 'it does not say what it is')}"]
    lines += [f"started by {said['bootloader']}"] if "bootloader" in said else []
    lines += [f"messages of up to {said['buf_size']:,} bytes"] if "buf_size" in said else []
    say(arguments, "\n".join(lines), port=port, **said)
    return 0


def slots(arguments: argparse.Namespace) -> int:
    """The table of slots."""
    with board(arguments, ours=False) as remote:
        if not remote.info:
            return _plain_slots(arguments, remote)
        states = [remote.state(image) for image in IMAGES]
    rows = [_row(state, number) for state in states for number, slot in enumerate(state["slots"]) if slot]
    lines = [
        f"{r['image']:<8} {r['slot']} {r['state']:<16} version {r['version']} {r['sha256'][:16]} {r['size']:>11,} bytes"
        f" {r['name']}"
        for r in rows
    ]
    wrong = [f"{state['image']} is not well: {state['wrong']}" for state in states if state["wrong"]]
    say(arguments, "\n".join([*lines, *wrong]) or "all slots are empty", slots=rows)
    return 0


def _row(state: dict[str, Any], number: int) -> dict[str, Any]:
    slot, trial = state["slots"][number], state["trial"]
    said = "confirmed" if slot["confirmed"] else "written"
    if trial and trial["slot"] == number:
        said = f"on trial, {trial['left']} left" if trial["phase"] == "running" else "to be tried"
    runs = state["running"] == number
    return {
        "image": state["image"],
        "slot": number,
        "state": f"{said}{', runs' if runs and said == 'confirmed' else ''}",
        "running": runs,
        "confirmed": slot["confirmed"],
        "sha256": slot["sha256"].hex(),
        **{key: slot[key] for key in ("size", "version", "name", "key")},
    }


def _plain_slots(arguments: argparse.Namespace, remote: Remote) -> int:
    from edgelearn.flash.plain import Plain

    rows = [{**row, "hash": row.get("hash", b"").hex()} for row in Plain(remote.client).slots()]
    flags = ("active", "confirmed", "pending", "permanent", "bootable")
    lines = [
        f"image {row.get('image', 0)} slot {row['slot']} version {row['version']} {row['hash'][:16]} "
        f"{' '.join(flag for flag in flags if row.get(flag))}"
        for row in rows
    ]
    say(arguments, "\n".join(lines) or "all slots are empty", slots=rows)
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Hash again, on the board."""
    from edgelearn.flash import bundle as bundles

    with board(arguments) as remote:
        if arguments.file:
            wanted = [
                (i.image, i.sha256.hex()) for i in bundles.items(Path(arguments.file), arguments.image or "model")
            ]
        else:
            states = [remote.state(image) for image in IMAGES if arguments.image in (None, image)]
            wanted = [(s["image"], slot["sha256"].hex()) for s in states for slot in s["slots"] if slot]
        if not wanted:
            raise NothingToDoError("the slots are empty: write something first")
        found = [{"image": image, "sha256": sha, "slot": remote.verify(image, sha)} for image, sha in wanted]
    text = "\n".join(f"{row['image']} slot {row['slot']} holds {str(row['sha256'])[:16]}, undamaged" for row in found)
    say(arguments, text, verified=found)
    return 0


def reset(arguments: argparse.Namespace) -> int:
    """Off and on."""
    with board(arguments, ours=False) as remote:
        if not remote.info:
            from edgelearn.flash.plain import Plain

            Plain(remote.client).reset()
            say(arguments, "the board restarts", reset=True)
            return 0
        remote.reset()
    say(arguments, "the board is back", reset=True)
    return 0


def erase(arguments: argparse.Namespace) -> int:
    """Empty the other slot."""
    from edgelearn.flash.plain import Plain

    with board(arguments, ours=False) as remote:
        if not remote.info:
            Plain(remote.client).erase()
            say(arguments, "the slot that does not run is empty", slot=None)
            return 0
        state = remote.state(arguments.image)
        slot = 1 if state["running"] is None else 1 - state["running"]
        number = 2 * IMAGES.index(arguments.image) + slot
        Plain(remote.client).erase(number)
    say(arguments, f"{arguments.image} slot {slot} is empty", image=arguments.image, slot=slot)
    return 0


def read_log(arguments: argparse.Namespace) -> int:
    """Fetch a file."""
    with board(arguments) as remote:
        data = remote.file(arguments.name)
    if not arguments.output:
        say(arguments, data.decode(errors="replace"), name=arguments.name, text=data.decode(errors="replace"))
        return 0
    try:
        Path(arguments.output).write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write {arguments.output} ({error.strerror}): choose another with -o") from error
    say(arguments, f"{arguments.output}: {len(data):,} bytes", name=arguments.name, output=arguments.output)
    return 0
