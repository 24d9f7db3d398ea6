# SPDX-License-Identifier: Apache-2.0
"""The C core as an Engine: the only importer of the extension, and the only place where a status becomes an
exception. All memory is numpy's; the core allocates nothing."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn._ffi import ffi as ffi
from edgelearn._ffi import lib as lib
from edgelearn.engines import ALL_GROUPS, ENTRY, Config, Entry, Run, Sizes, Stats
from edgelearn.engines.padding import padded_steps
from edgelearn.engines.settings import check_config, check_entry
from edgelearn.engines.tokens import check_tokens
from edgelearn.errors import DataError, EdgelearnError, LearningError, ModelError, UsageError
from edgelearn.nested import Levels
from edgelearn.optim import Schedule
from edgelearn.rules import Rule

_ALIGN = 64

SAMPLE_TYPES = {
    np.dtype(np.float32): lib.EL_FLOAT32,
    np.dtype(np.uint8): lib.EL_UINT8,
    np.dtype(np.float16): lib.EL_FLOAT16,
}
_LABELS, _TARGETS = np.dtype(np.int32), np.dtype(np.float32)
_NO_STATS = {"loss": 0.0, "samples": 0, "correct": 0}


def _isa() -> int:
    """EDGELEARN_ISA=scalar|avx2|avx512|neon overrides the choice."""
    name = os.environ.get("EDGELEARN_ISA", "auto")
    for isa in range(lib.EL_ISA_NEON + 1):
        if ffi.string(lib.el_isa_name(isa)).decode() == name and lib.el_isa_available(isa):
            return isa
    raise UsageError(f"EDGELEARN_ISA={name} is not an instruction set of this machine: unset it")


def _c_rule(rule: Rule, config: Config) -> Any:
    return {
        "objective": int(rule.objective),
        "codes": int(rule.codes),
        "loss": int(config.loss),
        "group": config.group,
        "targets": config.targets,
        "scale": rule.scale,
        "temperature": rule.temperature,
        "huber": rule.huber,
        "grid": rule.grid,
        "frozen": int(rule.frozen),
        "similarity": rule.similarity,
        "clip": config.clip,
        "timing": int(rule.timing),
        "window": config.window,
        "traces": int(rule.traces),
        "seed": config.seed & 0xFFFFFFFFFFFFFFFF,
    }


def _c_config(config: Config) -> tuple[Any, list[Any]]:
    """The C struct, and the arrays that it points at."""
    arrays = [
        ffi.new("float[]", list(values)) if values else ffi.NULL for values in (config.rates, config.class_weights)
    ]
    nest = _c_nest(config.nest)
    fields = {
        "rule": _c_rule(config.rule, config),
        "optimizer": asdict(config.optimizer),
        "batch": config.batch,
        "train": int(config.train),
        "streams": int(config.streams),
        "keep": int(config.keep),
        "threads": config.threads,
        "isa": _isa(),
        "micro": config.micro,
        "first_group": config.first_group,
        "n_groups": 0 if config.last_group >= ALL_GROUPS else config.last_group - config.first_group + 1,
        "n_rates": len(config.rates or ()),
        "rates": arrays[0],
        "weights": arrays[1],
        "nest": nest,
    }
    return ffi.new("el_config *", fields), [*arrays, nest]


def _c_nest(nest: Levels | None) -> dict[str, Any]:
    if nest is None:
        return {"n_levels": 0}
    return {
        "n_levels": len(nest.units),
        "sampling": nest.sampling,
        "statistics": nest.statistics,
        "units": ffi.new("uint32_t[]", [units for level in nest.units for units in level]),
        "chances": ffi.new("float[]", list(nest.chances)),
    }


def _c_records(records: NDArray[np.void]) -> Any:
    return ffi.from_buffer("el_record[]", np.ascontiguousarray(records))


def schedule_rate(schedule: Schedule, step: int) -> float:
    """Learning rate of a step, as the core computes it."""
    return float(lib.el_schedule_rate(ffi.new("el_schedule *", asdict(schedule)), step))


def codes(rule: Rule, seed: int, block: int, target: int, units: int, targets: int) -> NDArray[np.float32]:
    """The code of one class for the first `units` units of a block: shape (units,)."""
    out = np.empty(units, np.float32)
    c_rule = ffi.new("el_rule *", _c_rule(rule, Config(rule=rule, seed=seed, targets=targets)))
    lib.el_codes(c_rule, block, target, units, ffi.from_buffer("float[]", out, require_writable=True))
    return out


def shuffle(seed: int, epoch: int, n: int, position: int) -> int:
    """Where sample `position` of an epoch stands in the data."""
    return int(lib.el_shuffle(seed & 0xFFFFFFFFFFFFFFFF, epoch, n, position))


def peak_flops() -> float:
    """Floating-point operations per second of one core's multiply-adds, timed for about 10 ms."""
    best, rounds = 0.0, 200_000
    for _ in range(5):
        start = time.perf_counter()
        done = lib.el_peak(_isa(), rounds)
        best = max(best, done / (time.perf_counter() - start))
    return best


class NativeSession:
    """A net placed in one numpy buffer; see `Session`."""

    def __init__(self, records: NDArray[np.void], params: NDArray[np.float32], config: Config) -> None:
        if params.dtype != np.float32 or not params.flags.c_contiguous or not params.flags.writeable:
            raise ModelError("parameters must be one writable contiguous float32 vector")
        self.config = config
        self.sizes = ENGINE.sizes(records, config)
        self._arena = np.empty(self.sizes.arena + _ALIGN, np.uint8)
        start = -self._arena.ctypes.data % _ALIGN
        self._memory = self._arena[start : start + self.sizes.arena]
        self._params, self._records = params, records
        c_config, arrays = _c_config(config)
        self._keep = [c_config, _c_records(records), ffi.from_buffer("float[]", params), *arrays]
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
        check(status, lambda: _bad_sample(x))
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
        check(status, lambda: _bad_sample(x) or _bad_sample(y), "training diverged: lower the learning rate")


def _bad_sample(x: NDArray[Any]) -> str | None:
    """Names the first sample that holds NaN or infinity."""
    if x.dtype.kind != "f":
        return None
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    return f"sample {bad[0]} holds NaN or infinity: remove or repair it" if len(bad) else None


def check(status: int, blame: Any = None, diverged: str = "the outputs are not finite: load other weights") -> None:
    """The one place where a status of the core becomes an exception."""
    if status == lib.EL_OK:
        return
    reason = ffi.string(lib.el_status_text(status)).decode()
    if status == lib.EL_ENONFINITE:
        named = blame() if blame else None
        raise DataError(named) if named else LearningError(diverged)
    if status == lib.EL_EBATCH:
        raise DataError(f"{reason}: use a batch of at least 2")
    if status == lib.EL_EINVAL:
        raise ModelError(f"the core refused: {reason}; check the layers, the rule and the batch")
    raise EdgelearnError(f"the core failed: {reason}")


class NativeEngine:
    """The C core; see `Engine`."""

    name = "native"

    @property
    def isa(self) -> str:
        """The instruction set that sessions run on."""
        isa = _isa() or lib.el_isa_best()
        return str(ffi.string(lib.el_isa_name(isa)).decode())

    def sizes(self, records: NDArray[np.void], config: Config) -> Sizes:
        """The memory of a session, by the core's own dry walk."""
        check_config(records, config)
        sizes = ffi.new("el_sizes *")
        c_config, _arrays = _c_config(config)
        check(lib.el_net_size(_c_records(records), len(records), c_config, sizes))
        return Sizes(sizes.arena, sizes.handle, sizes.activations, sizes.state, sizes.scratch)

    def order(self, seed: int, epoch: int, n: int, first: int, count: int) -> NDArray[np.int64]:
        """Places in the data of `count` positions of an epoch, from position `first` on; a third of a microsecond
        each, which for a batch is less than the same permutation in vectors of numpy."""
        word = seed & 0xFFFFFFFFFFFFFFFF
        places = (lib.el_shuffle(word, epoch, n, position) for position in range(first, first + count))
        return np.fromiter(places, np.int64, count)

    def open(self, records: NDArray[np.void], params: NDArray[np.float32], config: Config) -> NativeSession:
        """A session that reads and writes `params` in place."""
        return NativeSession(records, params, config)


ENGINE = NativeEngine()
