# SPDX-License-Identifier: Apache-2.0
"""A net placed by the core in memory of numpy's; see `Session`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import ENTRY, Config, Entry, Run, Sizes, Stats
from edgelearn.engines.native.core import check, ffi, lib
from edgelearn.engines.native.structs import SAMPLE_TYPES, c_config_of, c_records_of
from edgelearn.engines.padding import padded_steps
from edgelearn.engines.settings import check_config, check_entry
from edgelearn.engines.tokens import check_tokens
from edgelearn.errors import DataError, ModelError, UsageError

_ALIGN = 64
_LABELS, _TARGETS = np.dtype(np.int32), np.dtype(np.float32)
_NO_STATS = {"loss": 0.0, "samples": 0, "correct": 0}


def sizes_of(records: NDArray[np.void], config: Config) -> Sizes:
    """The memory of a session in bytes, by the core's own dry walk.

    Raises:
        UsageError, ModelError: settings or records that no session takes.
    """
    check_config(records, config)
    sizes = ffi.new("el_sizes *")
    c_config, _arrays = c_config_of(config)
    check(lib.el_net_size(c_records_of(records), len(records), c_config, sizes))
    return Sizes(sizes.arena, sizes.handle, sizes.activations, sizes.state, sizes.scratch)


class NativeSession:
    """A net placed in one numpy buffer; see `Session`."""

    def __init__(self, records: NDArray[np.void], params: NDArray[np.float32], config: Config) -> None:
        if params.dtype != np.float32 or not params.flags.c_contiguous or not params.flags.writeable:
            raise ModelError("parameters must be one writable contiguous float32 vector")
        self.config = config
        self.sizes = sizes_of(records, config)
        self._arena = np.empty(self.sizes.arena + _ALIGN, np.uint8)
        start = -self._arena.ctypes.data % _ALIGN
        self._memory = self._arena[start : start + self.sizes.arena]
        self._params, self._records = params, records
        c_config, arrays = c_config_of(config)
        self._keep = [c_config, c_records_of(records), ffi.from_buffer("float[]", params), *arrays]
        self._classifies = int(config.loss) == lib.EL_CROSS_ENTROPY
        self._c_samples, self._c_stats = ffi.new("el_samples *"), ffi.new("el_stats *")
        self._net = self._open(len(records))
        self.groups = int(lib.el_net_groups(self._net))
        self._features = [int(lib.el_net_features(self._net, i)) for i in range(self.groups + 1)]
        self._close = weakref.finalize(self, lib.el_net_close, self._net)

    def _open(self, n_records: int) -> Any:
        c_config, c_records, c_params = self._keep[:3]
        out = ffi.new("el_net **")
        memory = ffi.from_buffer(self._memory, require_writable=True)
        self._keep.append(memory)
        status = lib.el_net_init(
            out, memory, self.sizes.arena, c_records, n_records, c_params, self._params.size, c_config
        )
        check(status)
        return out[0]

    def forward(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs (n, outputs) of any number of samples."""
        return self.outputs(x, self.groups - 1)

    def outputs(self, x: NDArray[Any], last: int, entry: Entry = ENTRY) -> NDArray[np.float32]:
        """What the group after `last` reads, (n, features), of samples that enter at `entry`."""
        out = np.empty((len(x), lib.el_net_features(self._net, last + 1)), np.float32)
        _keep = self._point(x, None, entry)
        c_out = ffi.from_buffer("float[]", out, require_writable=True)
        status = lib.el_net_outputs(self._net, self._c_samples, last, c_out)
        self._check_read(status, x)
        check(status, lambda: first_bad(x))
        return out

    def step(self, x: NDArray[Any], y: NDArray[Any], lr: float) -> Stats:
        """One update on at most `batch` samples."""
        if len(x) > self.config.batch or not len(x):
            raise DataError(f"a step takes 1 to {self.config.batch} samples, not {len(x)}")
        _keep = self._point(x, y)
        self._c_stats[0] = _NO_STATS
        self._learned(lib.el_net_step(self._net, self._c_samples, lr, self._c_stats), x, y)
        return Stats(self._c_stats.loss, self._c_stats.samples, self._c_stats.correct)

    def fit(self, x: NDArray[Any], y: NDArray[Any], run: Run, stats: Stats, entry: Entry = ENTRY) -> None:
        """`run.steps` updates over shuffled mini-batches; `stats` is added to."""
        _keep = self._point(x, y, entry)
        c_run = ffi.new(
            "el_run *",
            {
                "seed": run.seed & 0xFFFFFFFFFFFFFFFF,
                "first": run.first,
                "steps": run.steps,
                "batch": run.batch,
                "shuffle": int(run.shuffle),
                "first_group": run.first_group,
                "last_group": min(run.last_group, self.groups - 1),
                "schedule": asdict(run.schedule),
            },
        )
        self._c_stats[0] = _NO_STATS
        self._learned(lib.el_net_fit(self._net, self._c_samples, c_run, self._c_stats), x, y)
        stats.loss += self._c_stats.loss
        stats.samples += self._c_stats.samples
        stats.correct += self._c_stats.correct

    def resize(self, levels: Sequence[int] | None) -> None:
        """Answer as the submodel with those levels, one per block; None: as opened."""
        nest = self.config.nest
        blocks = int(self._records["block"].max()) + 1 if nest else 0
        if levels is not None and len(levels) != blocks:
            raise UsageError(f"{len(levels)} levels for {blocks} nested blocks: give one for each")
        check(lib.el_net_resize(self._net, ffi.NULL if levels is None else ffi.new("uint32_t[]", list(levels))))

    def keep(self) -> None:
        """Copy the parameters aside."""
        check(lib.el_net_keep(self._net))

    def revert(self) -> None:
        """Bring the kept parameters back."""
        check(lib.el_net_revert(self._net))

    @property
    def state(self) -> NDArray[np.uint8]:
        """Read-outs, moments and counts, writable."""
        size = ffi.new("uint64_t *")
        address = lib.el_net_state(self._net, size)
        start = int(ffi.cast("uintptr_t", address)) - self._memory.ctypes.data if size[0] else 0
        return self._memory[start : start + size[0]]

    def close(self) -> None:
        """End threads and let go of the memory."""
        self._close()

    def _point(self, x: NDArray[Any], y: NDArray[Any] | None, entry: Entry = ENTRY) -> list[Any]:
        """Point the C samples at x and y, checked for type and shape; the result must live as long as the call."""
        if not 0 <= entry.group < self.groups:
            raise UsageError(f"samples enter at group {entry.group}: choose one of 0 to {self.groups - 1}")
        features = self._features[entry.group]
        check_entry(entry, features)
        if x.ndim != 2 or x.shape[1] != features:
            raise DataError(f"samples of shape {x.shape[1:]} given, the net takes ({features},)")
        if x.dtype not in SAMPLE_TYPES or not x.flags.c_contiguous:
            raise DataError(f"samples must be contiguous float32, float16 or uint8, not {x.dtype}")
        samples, keep = self._c_samples, [ffi.from_buffer(x)]
        samples.x, samples.x_type, samples.n = keep[0], SAMPLE_TYPES[x.dtype], x.shape[0]
        samples.group, samples.pairs = entry.group, 0
        if entry.scale is not None and entry.shift is not None:
            samples.pairs = len(entry.scale)
            keep += [ffi.from_buffer("float[]", entry.scale), ffi.from_buffer("float[]", entry.shift)]
            samples.scale, samples.shift = keep[1:]
        if y is not None:
            keep += self._point_answers(len(x), y)
        return keep

    def _point_answers(self, n: int, y: NDArray[Any]) -> list[Any]:
        if y.shape != ((n,) if self._classifies else (n, self.config.targets)):
            raise DataError(f"answers of shape {y.shape} do not fit {n} samples and {self.config.targets} targets")
        dtype = _LABELS if self._classifies else _TARGETS
        if y.dtype != dtype or not y.flags.c_contiguous:
            y = np.ascontiguousarray(y, dtype)
        if self._classifies:
            self._c_samples.labels = pointer = ffi.from_buffer("int32_t[]", y)
        else:
            self._c_samples.targets = pointer = ffi.from_buffer("float[]", y)
        return [y, pointer]

    def _check_read(self, status: int, x: NDArray[Any]) -> None:
        """Say which token or sequence it was that the core refused."""
        if status == lib.EL_ETOKEN:
            check_tokens(self._records, self._params, x)
        if status == lib.EL_ESTEPS:
            padded_steps(self._records, x)

    def _learned(self, status: int, x: NDArray[Any], y: NDArray[Any]) -> None:
        self._check_read(status, x)
        if status == lib.EL_ELABEL:
            bad = int(np.flatnonzero((y < 0) | (y >= self.config.targets))[0])
            raise DataError(
                f"label {y[bad]} of sample {bad} is outside 0 .. {self.config.targets - 1}: "
                "correct it or give the last layer more units"
            )
        check(status, lambda: first_bad(x) or first_bad(y), "training diverged: lower the learning rate")


def first_bad(x: NDArray[Any], what: str = "sample") -> str | None:
    """Says which of x (n, ...) is the first that holds NaN or infinity; None where none does."""
    if x.dtype.kind != "f":
        return None
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    return f"{what} {bad[0]} holds NaN or infinity: remove or repair it" if len(bad) else None
