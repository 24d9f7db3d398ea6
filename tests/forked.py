# SPDX-License-Identifier: Apache-2.0
"""Programs of ours in processes that are forked from one that has imported all of them already: processes like any
other, whose start takes none of the third of a second that imports take. For sweeps of hundreds of starts; the start of
each program itself is tested elsewhere."""

import multiprocessing
import os
import subprocess
import sys
import warnings
from importlib import import_module

import striking

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["edgelearn.cli", "edgelearn.daemon.app", "edgelearn.daemon.train"])


class Forked:
    """As subprocess.Popen: a module's `main(arguments)`; a stream that is None stays as it is."""

    def __init__(self, module, arguments=(), stdin=None, stdout=None, stderr=None, env=None):
        streams = [(stdin, os.O_RDONLY), (stdout, os.O_WRONLY), (stderr, os.O_WRONLY | os.O_APPEND)]
        given = module, [str(argument) for argument in arguments], streams, dict(env or os.environ)
        self._process = _SERVER.Process(target=_be, args=given, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("a forked program", timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self._process.terminate()

    def kill(self):
        self._process.kill()


def daemon(arguments, log, surroundings):
    """As daemons.started."""
    return Forked(striking.DAEMON, arguments, stderr=log, env=surroundings)


def trainer(task, folder, surroundings):
    """Lines that a training process says until it ends; its standard input stays open, as a daemon holds it."""
    folder.mkdir(exist_ok=True)
    given, said = folder / "given", folder / "said"
    given.unlink(missing_ok=True)
    os.mkfifo(given)
    said.write_bytes(b"")
    line = os.open(given, os.O_RDWR)
    try:
        os.write(line, f"{task}\n".encode())
        Forked(striking.TRAINER, stdin=given, stdout=said, env=surroundings).wait(120)
    finally:
        os.close(line)
    return said.read_text().splitlines()


def _be(module, arguments, streams, surroundings):
    """The program, with its streams at files, in its surroundings, struck if it is the one."""
    for number, (path, flags) in enumerate(streams):
        if path is not None:
            os.dup2(os.open(path, flags), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (multiprocessing has closed the one before)
    os.environ.clear()
    os.environ.update(surroundings)
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    sys.argv = [module, *arguments]
    warnings.simplefilter("error")
    if "EDGELEARN_TRAP" in os.environ:
        striking.take()
    main = import_module(module).main
    sys.exit(main(arguments) if arguments else main())
