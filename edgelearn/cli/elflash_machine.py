# SPDX-License-Identifier: Apache-2.0
"""Verbs about this machine: ports, doctor, completion."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edgelearn.cli.elflash_output import Verbs, say, verb
from edgelearn.errors import FlashError

PACKAGES = {"serial": "pyserial", "cryptography": "cryptography", "zstandard": "zstandard"}
LATENCY = Path("/sys/bus/usb-serial/devices")
SHELLS = ("bash", "zsh", "fish")


def add(verbs: Verbs) -> None:
    """Declare the verbs."""
    verb(verbs, "ports", "list serial ports, and why one cannot be used", "elflash ports", ports)
    verb(verbs, "doctor", "look for what keeps a board from being found or written", "elflash doctor", doctor)
    parser = verb(verbs, "completion", "print completion for a shell", 'eval "$(elflash completion bash)"', completion)
    parser.add_argument("shell", choices=SHELLS)


def ports(arguments: argparse.Namespace) -> int:
    """The list; exit 3 if it is empty."""
    from edgelearn.flash import ports as known

    wanted = known.filters(arguments.port_filter)
    found = [port for port in known.listed() if port.matches(wanted)]
    lines = []
    for port in found:
        numbers = "" if port.vid is None or port.pid is None else f" {port.vid:04x}:{port.pid:04x}"
        lines.append(f"{port.path}{numbers} {port.name} {port.serial}".rstrip())
        lines += [f"  {port.refused}"] if port.refused else []
    say(arguments, "\n".join(lines) or "no serial port is there", ports=[_port(port) for port in found])
    return 0 if found else 3


def _port(port: Any) -> dict[str, Any]:
    return {key: getattr(port, key) for key in ("path", "vid", "pid", "serial", "name", "refused")}


def doctor(arguments: argparse.Namespace) -> int:
    """What is wrong here; exit 3 if no port can be used."""
    from importlib.util import find_spec

    from edgelearn.flash import ports as known

    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    found = [f"{name} is not installed: pip install 'edgelearn[serial]'" for name in missing]
    listed = [] if "pyserial" in missing else known.listed()
    found += [port.refused for port in listed if port.refused]
    found += [
        f"the kernel logs to {port.path}: use --framing console" for port in listed if known.console_on(port.path)
    ]
    found += [f"{name} runs: {advice}" for name, advice in known.grabbers()]
    found += _slow_timers()
    usable = [port.path for port in listed if not port.refused]
    found += [] if usable or arguments.port != "auto" else ["no serial port can be used: plug the board in"]
    found += _board_notes(arguments) if usable or arguments.port != "auto" else []
    say(arguments, "\n".join(found) or "nothing is wrong", problems=found, ports=usable)
    return 0 if usable or arguments.port != "auto" else 3


def _slow_timers() -> list[str]:
    """USB adapters that hold bytes back for 16 ms."""
    slow = [p for p in LATENCY.glob("*/latency_timer") if p.read_text().strip() not in ("0", "1")]
    return [f"{p.parent.name} holds bytes back for {p.read_text().strip()} ms: echo 1 | sudo tee {p}" for p in slow]


def _board_notes(arguments: argparse.Namespace) -> list[str]:
    """What the board itself warns of."""
    from edgelearn.cli.elflash_session import board

    try:
        with board(arguments, ours=False) as remote:
            return [f"on the board: {warning}" for warning in remote.info.get("warnings", [])]
    except FlashError as error:
        return [str(error)]


def completion(arguments: argparse.Namespace) -> int:
    """Words of the command line, for a shell."""
    from edgelearn.cli.elflash import parser

    top = parser()
    verbs = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices
    tables = {name: _flags(sub) for name, sub in verbs.items()}
    values = {flag: words for part in (top, *verbs.values()) for flag, words in _values(part).items()}
    sys.stdout.write({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](_flags(top), tables, values))
    return 0


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    """Long flags, and the words that may stand without one."""
    flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    return flags + [
        str(w) for a in parser._actions if not a.option_strings and a.nargs is None for w in a.choices or ()
    ]


def _values(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """The words that may stand behind a flag, where they are few."""
    return {a.option_strings[-1]: list(a.choices) for a in parser._actions if a.option_strings and a.choices}


Tables = dict[str, list[str]]


def _bash(top: list[str], tables: Tables, values: Tables) -> str:
    behind = "\n".join(f"    {flag}) words='{' '.join(words)}';;" for flag, words in values.items())
    cases = "\n".join(f"    {name}) words='{' '.join(flags)}';;" for name, flags in tables.items())
    return f"""_elflash() {{
  local word verb= words='{" ".join([*top, *tables])}'
  for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
    case " {" ".join(tables)} " in *" $word "*) verb=$word; break;; esac
  done
  case "$verb" in
{cases}
  esac
  case "${{COMP_WORDS[$((COMP_CWORD - 1))]}}" in
{behind}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _elflash elflash
"""


def _zsh(top: list[str], tables: Tables, values: Tables) -> str:
    start = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
    return start + _bash(top, tables, values)


def _fish(top: list[str], tables: Tables, values: Tables) -> str:
    none = f"'not __fish_seen_subcommand_from {' '.join(tables)}'"
    lines = [f"complete -c elflash -n {none} {_word(word)}" for word in [*top, *tables]]
    lines += [f"complete -c elflash -l {flag[2:]} -x -a '{' '.join(words)}'" for flag, words in values.items()]
    for name, words in tables.items():
        lines += [f"complete -c elflash -n '__fish_seen_subcommand_from {name}' {_word(word)}" for word in words]
    return "\n".join(lines) + "\n"


def _word(word: str) -> str:
    return f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
