# SPDX-License-Identifier: Apache-2.0
"""Verbs that write a board: write, resume."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelearn.cli.elflash_files import add_manifest
from edgelearn.cli.elflash_output import Bar, Verbs, clock, say, tell, verb
from edgelearn.cli.elflash_session import IMAGES, board
from edgelearn.errors import MismatchError, NothingToDoError, UsageError

if TYPE_CHECKING:
    from edgelearn.cli.elflash_jobs import Job
    from edgelearn.flash.host import Remote, Written


def add(verbs: Verbs) -> None:
    """Declare the verbs."""
    for name, summary in (
        ("write", "bring files into the slots that do not run"),
        ("resume", "go on with a write that was interrupted; exit code 11 if there is none"),
    ):
        _add_write(verb(verbs, name, summary, f"elflash {name} model.elb --activate", write))


def _add_write(parser: Any) -> None:
    parser.add_argument("file", nargs="+", metavar="FILE", help="bundles, or [IMAGE=]FILE with --key or --unsigned")
    parser.add_argument("--image", choices=IMAGES, help="what a bare file is (model)")
    add_manifest(parser)
    parser.add_argument("--activate", action="store_true", help="restart with it on trial, then confirm or roll back")
    parser.add_argument("--wait-healthy", type=float, default=120.0, metavar="S", help="seconds a trial may take (120)")
    parser.add_argument("--force", action="store_true", help="send it though the board has it")
    parser.add_argument("--dry-run", action="store_true", help="check all that can be checked, send nothing")
    parser.add_argument("--no-resume", action="store_true", help="from the first byte on, whatever the board has")
    parser.add_argument(
        "--compress", choices=("zstd", "none"), default="zstd", help="of bare files: zstd where it helps"
    )
    parser.add_argument("--diff-with", metavar="OLD", help="send what differs from this file if the board has it")


def write(arguments: argparse.Namespace) -> int:
    """Send, verify, and try out if that was asked for."""
    from edgelearn.cli.elflash_jobs import check_files, jobs

    check_files(arguments)
    with board(arguments, ours=False) as remote:
        if not remote.info:
            return _plain_write(arguments, remote)
        todo = jobs(arguments)
        for job in todo:
            remote.check(job.content)
        size = sum(len(job.forms[0][1]) for job in todo)
        if arguments.dry_run:
            say(arguments, f"up to {size:,} bytes would be sent to {remote.info['board']}", bytes=size, dry_run=True)
            return 0
        remote.prepare_line(size)
        bits = 10 if remote.client.framing == "cobs" else 14  # of the line for a byte: base64 is a third more
        if (seconds := size * bits / remote.client.link.baud) > 60:
            tell(arguments, f"all of it takes about {clock(seconds)} on this line; USB or TCP is faster")
        done = [_send(arguments, remote, job) for job in todo]
        text = "\n".join(_sentence(written) for written in done)
        if arguments.activate:
            tell(arguments, text)
            text = "\n".join(_tried(remote, written, arguments.wait_healthy) for written in done)
    result = [_result(written) for written in done]
    say(arguments, text, written=result, confirmed=arguments.activate, retries=remote.client.retries)
    return 0


def _tried(remote: Remote, written: Written, seconds: float) -> str:
    """Start with it, and confirm it if it is well."""
    remote.try_out(written.image, written.sha256, seconds)
    return f"{written.image} {written.sha256[:16]} runs and is confirmed"


def _send(arguments: argparse.Namespace, remote: Remote, job: Job) -> Written:
    """One payload, in the first of its forms that the board can use."""
    from edgelearn.flash.host import Payload

    bar = Bar(arguments, job.name, lambda: remote.client.retries)
    for packing, data, old in job.forms:
        last = (packing, data, old) == job.forms[-1]
        try:
            return remote.write(
                job.raw,
                job.signature,
                job.content,
                Payload(job.index, packing, data, old),
                bar,
                force=arguments.force,
                resume=not arguments.no_resume,
                started=arguments.verb == "resume",
            )
        except (NothingToDoError, MismatchError) as error:
            if last:
                raise
            tell(arguments, f"all of {job.name} is sent, not the difference: {error}")
    raise AssertionError(job)


def _result(written: Written) -> dict[str, Any]:
    return {key: getattr(written, key) for key in written.__dataclass_fields__}


def _sentence(written: Written) -> str:
    if written.state == "present":
        return f"{written.image} slot {written.slot} holds {written.sha256[:16]} already"
    went_on = f", went on at {written.resumed_at:,}" if written.resumed_at else ""
    rate = written.bytes_sent / max(written.seconds, 1e-9) / 1024
    return (
        f"{written.image} slot {written.slot} holds {written.sha256[:16]}: {written.bytes_sent:,} bytes in "
        f"{clock(written.seconds)}, {rate:.1f} KiB/s{went_on}, verified"
    )


def _plain_write(arguments: argparse.Namespace, remote: Remote) -> int:
    """A file as it is, to a board that knows nothing of manifests."""
    from edgelearn.flash.plain import Plain

    if len(arguments.file) != 1 or not Path(arguments.file[0]).is_file():
        raise UsageError("a board of plain SMP takes one file at a time: write them one by one")
    plain, path = Plain(remote.client), Path(arguments.file[0])
    number = IMAGES.index(arguments.image) if arguments.image else 0
    bar = Bar(arguments, path.name, lambda: remote.client.retries)
    plain.upload(path.read_bytes(), number, bar)
    if arguments.activate:
        plain.test(plain.newest(number))
        plain.reset()
        tell(arguments, "the board restarts with it on trial: 'elflash confirm' once it is well")
    say(arguments, f"{path.name} is written", written=[{"image": number, "state": "written"}], confirmed=False)
    return 0
