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
