# SPDX-License-Identifier: Apache-2.0
"""Models that answer: the live one, at most one beside it in shadow, and one that was asked for by its version.

A swap is one assignment: requests that began with the older model end with it, and then its memory goes.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn import engines, modelfile
from edgelearn.daemon.metrics import Histogram
from edgelearn.engines import Config
from edgelearn.errors import DataError, ModelError
from edgelearn.inputs.frontend import Input
from edgelearn.inputs.labels import check_finite
from edgelearn.store.versions import Version

_BATCH = 16
"""Samples that go through a net at once: the memory that answering takes grows with it, the speed hardly."""


class Model:
    """A version with a net in memory, loaded without anything that training needs.

    Raises:
        ModelError: the file is no model, or one that cannot answer yet.
    """

    def __init__(self, version: Version, path: Path) -> None:
        file = modelfile.read(path)
        self.version = version
        self.input = Input.from_config(file.input)
        if not self.input.is_resolved:
            raise ModelError("the model does not know its input yet: train it before it is served")
        self.classes, self.loss, self.graph = file.classes, file.loss, file.graph
        config = Config(batch=_BATCH, targets=self.graph.outputs, train=False)
        self._session = engines.load().open(self.graph.records, file.params, config)
        self._trials = file.samples

    @property
    def names(self) -> list[str]:
        """A name for each output; numbers where the model has none."""
        return self.classes or [str(number) for number in range(self.graph.outputs)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample as the data holds it."""
        return self.input.shape or ()

    def answer(self, x: ArrayLike) -> NDArray[np.float32]:
        """Raw outputs (n, outputs) of samples (n, *shape).

        Raises:
            DataError: samples of another shape, or with NaN or infinity.
            ModelError: outputs that are not finite.
        """
        outputs = self._session.forward(self.input.prepare(x))
        if not np.isfinite(outputs).all():
            raise ModelError("the model's outputs are not finite, so its weights are damaged: roll back to another")
        return outputs

    def warm(self) -> None:
        """Answer zeros and the samples that came with the model, so that its memory is there and it works.

        Raises:
            ModelError: it gives no finite answers.
        """
        self.answer(np.zeros((1, *self.shape), np.uint8))
        if self._trials is not None:
            self.answer(self._trials)

    def rows(self, x: ArrayLike) -> NDArray[Any]:
        """Samples as they are stored: (n, values) in the order of the data, uint8 or float32.

        Raises:
            DataError: another shape, or values that are not finite numbers.
        """
        values = np.asarray(x)
        self.input.prepare(values[:1])
        check_finite("the samples", values)
        kind = np.uint8 if values.dtype == np.uint8 else np.float32
        rows: NDArray[Any] = np.ascontiguousarray(values.reshape(len(values), -1), kind)
        return rows

    def close(self) -> None:
        """Let go of its memory."""
        self._session.close()


@dataclass
class Shadow:
    """A model that answers beside the live one without anyone seeing it."""

    model: Model
    since: float
    seen: int = 0
    agreed: int = 0
    failed: int = 0

    def to_json(self) -> dict[str, Any]:
        """How it does."""
        return {
            "version": self.model.version.id,
            "seconds": time.monotonic() - self.since,
            "seen": self.seen,
            "agreed": self.agreed,
            "failed": self.failed,
        }


class Serving:
    """What answers. Nets work in one thread, one request after the other; the loop stays free for all else."""

    def __init__(self) -> None:
        self.live: Model | None = None
        self.shadow: Shadow | None = None
        self.times = Histogram()
        self.answers = 0
        self._sure, self._asked_of = 0.0, 0
        self._asked: Model | None = None
        self._worker = ThreadPoolExecutor(1, "answers")
        self._shadowing: asyncio.Future[None] | None = None

    def ready(self) -> Model:
        """The live model.

        Raises:
            ModelError: there is none yet.
        """
        if self.live is None:
            raise ModelError("no model is live: push one with 'edgelearn push FILE', or promote one that is there")
        return self.live

    async def answer(self, x: ArrayLike, model: Model | None = None) -> tuple[Model, NDArray[np.float32]]:
        """The model that answered, the live one if none is given, and its outputs.

        Raises:
            DataError, ModelError: as `Model.answer`.
        """
        asked = model or self.ready()
        start = time.perf_counter()
        outputs = await asyncio.get_running_loop().run_in_executor(self._worker, asked.answer, x)
        self.times.add(time.perf_counter() - start)
        self.answers += len(outputs)
        if asked.loss == "cross_entropy":
            self._sure += float(outputs.max(axis=1).sum())
            self._asked_of += len(outputs)
        if asked is self.live:
            self._follow(x, outputs)
        return asked, outputs

    def answer_now(self, x: NDArray[Any], model: Model) -> NDArray[np.float32]:
        """Outputs of many samples for another thread that waits; others' requests go between their parts.

        Raises:
            ModelError: as `Model.answer`.
        """
        parts = (x[start : start + _BATCH] for start in range(0, len(x), _BATCH))
        return np.concatenate([self._worker.submit(model.answer, part).result() for part in parts])

    def _follow(self, x: ArrayLike, outputs: NDArray[np.float32]) -> None:
        """Have the shadow answer the same, unless it is still busy with the one before."""
        if self.shadow is None or (self._shadowing is not None and not self._shadowing.done()):
            return
        loop = asyncio.get_running_loop()
        self._shadowing = loop.run_in_executor(self._worker, _compare, self.shadow, x, outputs)

    def confidence(self) -> float | None:
        """Mean probability of the labels that were answered since this was last asked."""
        mean = self._sure / self._asked_of if self._asked_of else None
        self._sure, self._asked_of = 0.0, 0
        return mean

    async def probe(self) -> None:
        """Return when the thread that answers is free, which a stuck one never is."""
        await asyncio.get_running_loop().run_in_executor(self._worker, bool)

    async def load(self, version: Version, path: Path) -> Model:
        """A model in memory and warm, beside those that answer.

        Raises:
            ModelError: it cannot be loaded, or gives no finite answers.
        """
        return await asyncio.to_thread(_warm, version, path)

    async def of(self, version: Version, path: Path) -> Model:
        """The model of a version; of those that are not live the last one asked for stays in memory."""
        known = [model for model in (self.live, self._asked) if model is not None]
        for model in known:
            if model.version.id == version.id:
                return model
        self._asked = await self.load(version, path)
        return self._asked

    def swap(self, model: Model) -> None:
        """From now on this one answers."""
        self.live, self._asked = model, None
        if self.shadow is not None and self.shadow.model.version.id == model.version.id:
            self.shadow = None

    def close(self) -> None:
        """End the thread after what it is doing."""
        self._worker.shutdown()


def _warm(version: Version, path: Path) -> Model:
    model = Model(version, path)
    model.warm()
    return model


def _compare(shadow: Shadow, x: ArrayLike, outputs: NDArray[np.float32]) -> None:
    try:
        answers = shadow.model.answer(x)
        same = answers.argmax(axis=1) == outputs.argmax(axis=1)
        shadow.seen += len(same)
        shadow.agreed += int(same.sum())
    except (DataError, ModelError, ValueError):
        shadow.failed += 1
