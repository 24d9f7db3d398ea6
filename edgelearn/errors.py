# SPDX-License-Identifier: Apache-2.0
"""The exceptions of edgelearn. Each message is one sentence that ends with what to do next.

* EdgelearnError
  x UsageError         an argument that cannot be meant           exit 2
  x BudgetError        the run does not fit the budget            exit 3
  x DataError          samples or labels that cannot be learned   exit 4
    x BrokenFileError  a sample's file that cannot be read        exit 4
  x ModelError         a model, layer or rule that is not known   exit 5
  x VerificationError  an exported file that does not agree       exit 6
  x LearningError      training diverged or changed nothing       exit 7
  x OutputError        a file or folder that cannot be written    exit 8
  x DaemonError        a daemon that does not answer, or fails    exit 1
  x FlashError         a board over a line; exit codes of `elflash`
    x NoBoardError     no port, or nobody answers                 exit 3
    x PortError        a port that is busy or not allowed         exit 4
    x LinkError        the line was lost; the same command resumes  exit 5
    x IncompatibleError  for another board, architecture or ABI   exit 6
    x TrustError       signature, key or a downgrade              exit 7
    x MismatchError    other bytes arrived than were sent         exit 8
    x RefusedError     no space, too hot, busy                    exit 9
    x UnhealthyError   failed its trial, rolled back              exit 10
    x NothingToDoError nothing there to confirm or roll back      exit 11
    x RestartError     takes effect when the board restarts       exit 12
"""

from __future__ import annotations


class EdgelearnError(Exception):
    """Base of all errors that edgelearn raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(EdgelearnError, ValueError):
    """An argument that cannot be meant: a rate below zero, a batch of none."""

    exit_code = 2


class BudgetError(EdgelearnError):
    """The run does not fit; the message names the nearest plan that does."""

    exit_code = 3


class DataError(EdgelearnError, ValueError):
    """NaN or infinity in samples, labels out of range, wrong shapes, no samples, one class only."""

    exit_code = 4


class BrokenFileError(DataError):
    """A sample's file that is cut short, damaged or of another kind than its name says; may be skipped on request."""


class ModelError(EdgelearnError, ValueError):
    """An unknown layer or rule, shapes that do not join, a damaged model file."""

    exit_code = 5


class VerificationError(EdgelearnError):
    """An exported file gave other answers than the core; it was not kept."""

    exit_code = 6


class LearningError(EdgelearnError):
    """Training diverged or changed no weight; the weights are those of the last good epoch."""

    exit_code = 7


class OutputError(EdgelearnError, OSError):
    """A file or folder could not be written; nothing half-written is left."""

    exit_code = 8


class DaemonError(EdgelearnError):
    """No daemon answers at the address, it does not let this user in, or it failed."""


class FlashError(EdgelearnError):
    """Something between `elflash` and a board. Each kind has an exit code of its own, as part of the interface."""


class NoBoardError(FlashError):
    """There is no port, or nobody on it speaks SMP."""

    exit_code = 3


class PortError(FlashError):
    """A port that another program holds, or that this user may not open."""

    exit_code = 4


class LinkError(FlashError):
    """The line was lost. What the board has stays there, and the same command goes on behind it."""

    exit_code = 5


class IncompatibleError(FlashError):
    """A bundle for another board, architecture or ABI; no byte of it was sent."""

    exit_code = 6


class TrustError(FlashError):
    """A wrong signature, an unknown key, no signature, or a version below the board's floor."""

    exit_code = 7


class MismatchError(FlashError):
    """What the board read back is not what was sent, or a bundle is damaged; nothing was activated."""

    exit_code = 8


class RefusedError(FlashError):
    """The board cannot take it now: no space, too hot, busy with a trial."""

    exit_code = 9


class UnhealthyError(FlashError):
    """What was activated did not pass its trial, and the board went back to what it had."""

    exit_code = 10


class NothingToDoError(FlashError):
    """There is no trial to confirm, nothing to roll back to, or no transfer to resume."""

    exit_code = 11


class RestartError(FlashError):
    """Written and marked, but running only after a restart that did not happen."""

    exit_code = 12
