# SPDX-License-Identifier: Apache-2.0
"""`edgelearn service install|status|logs|uninstall`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from edgelearn.cli import options
from edgelearn.errors import ModelError, OutputError

EXAMPLE = "sudo edgelearn service install --model model.safetensors --listen 0.0.0.0:8080"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "service", "run the daemon as a service of systemd", EXAMPLE)
    parser.add_argument("action", choices=("install", "status", "logs", "uninstall"))
    parser.add_argument("--user", action="store_true", help="a service of yours, not of the system; needs no root")
    install = parser.add_argument_group("install")
    install.add_argument("--data-dir", metavar="DIR", help="default /var/lib/edgelearn, or ~/.local/share/edgelearn")
    install.add_argument(
        "--listen", action="append", default=[], metavar="ADDRESS", help="more than the socket in /run"
    )
    install.add_argument("--model", metavar="FILE", help="to begin with")
    install.add_argument("--memory", type=int, default=400, metavar="MB", help="for all its processes (default 400)")
    install.add_argument("--dry-run", action="store_true", help="print the unit and change nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say what is next."""
    return {"install": _install, "status": _status, "logs": _logs, "uninstall": _uninstall}[arguments.action](arguments)


def _install(arguments: argparse.Namespace) -> int:
    from edgelearn.daemon.service import NAME, USER, Service, systemctl

    data, model = (Path(p) if p else None for p in (arguments.data_dir, arguments.model))
    if model is not None and not model.is_file():
        raise ModelError(f"cannot read {model}: give the path of a model.safetensors")
    service = Service(arguments.user, data, arguments.listen, model, arguments.memory)
    if arguments.dry_run:
        print(service.text(), end="")
        return 0
    if not arguments.user:
        _make_user(USER, service.folder)
    service.install()
    for step in (("daemon-reload",), ("enable", "--now", NAME)):
        done = systemctl(arguments.user, *step)
        if done.returncode:
            raise OutputError(
                f"systemctl {' '.join(step)} failed ({done.stderr.strip()[:300]}): see edgelearn service logs"
            )
    text = f"wrote {service.path} and started it; see: edgelearn service status"
    options.say(arguments, text, {"unit": str(service.path), "data": str(service.folder)})
    return 0


def _make_user(name: str, folder: Path) -> None:
    """A system user without a shell, who owns the data."""
    if os.getuid():
        raise OutputError("a service of the system needs root: use sudo, or --user for one of yours")
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OutputError(f"cannot add user {name} ({done.stderr.strip()}): add it by hand") from None
    folder.mkdir(parents=True, exist_ok=True)
    shutil.chown(folder, name, name)


def _status(arguments: argparse.Namespace) -> int:
    from edgelearn.daemon.service import NAME, systemctl

    done = systemctl(arguments.user, "status", "--no-pager", NAME)
    options.say(arguments, (done.stdout or done.stderr).rstrip(), {"active": done.returncode == 0})
    return 0 if done.returncode == 0 else 1


def _logs(arguments: argparse.Namespace) -> int:
    from edgelearn.daemon.service import NAME

    scope = "--user-unit" if arguments.user else "--unit"
    if shutil.which("journalctl") is None:
        raise OutputError("journalctl is not here: look where your system keeps its logs")
    return subprocess.run(["journalctl", scope, NAME, "--no-pager", "--lines", "200"], check=False).returncode


def _uninstall(arguments: argparse.Namespace) -> int:
    from edgelearn.daemon.service import NAME, Service, systemctl

    service = Service(arguments.user)
    if not service.path.exists():
        raise OutputError(
            f"{service.path} is not there: nothing is installed{'' if arguments.user else ', try --user'}"
        )
    systemctl(arguments.user, "disable", "--now", NAME)
    try:
        service.path.unlink()
    except OSError as error:
        raise OutputError(f"cannot remove {service.path} ({error.strerror}): use sudo") from error
    systemctl(arguments.user, "daemon-reload")
    text = f"removed {service.path}; data stays in its folder"
    options.say(arguments, text, {"unit": str(service.path)})
    return 0
