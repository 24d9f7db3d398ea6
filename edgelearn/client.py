# SPDX-License-Identifier: Apache-2.0
"""The daemon's verbs from Python: those of a learner, over a unix socket or TCP. Needs no packages but numpy, and that
only for samples."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from edgelearn.errors import DaemonError, LearningError, UsageError
from edgelearn.line import Line, usual_address
from edgelearn.store.versions import Version
from edgelearn.wire import decoded, encoded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from edgelearn.learning.prediction import Prediction

_LOOK_SECONDS = 0.2

_OCTETS = "application/octet-stream"


class Client:
    """A daemon, by its address: `unix:PATH`, or `HOST:PORT` with its token. Without an address it is that in
    EDGELEARN_DAEMON, or that of the systemd unit, one's own first; without a token, that in EDGELEARN_TOKEN.

    Not for several threads at once: give each its own. `timeout` is in seconds, for one request.

    Raises:
        UsageError: an address that cannot be meant.
    """

    def __init__(self, address: str | None = None, token: str | None = None, *, timeout: float = 60.0) -> None:
        named = address or os.environ.get("EDGELEARN_DAEMON") or usual_address()
        self._line = Line(named, token or os.environ.get("EDGELEARN_TOKEN"), timeout)
        self._name: str | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    @property
    def address(self) -> str:
        """Where the daemon listens."""
        return self._line.address

    # Samples

    def learn_one(self, x: ArrayLike, y: Any) -> int:
        """Give one sample (*shape) with its label; its id, once it is on the daemon's disk.

        Raises:
            DataError: a sample or label that cannot be learned.
            OutputError: the disk takes no more.
        """
        import numpy as np

        return self.partial_fit(np.asarray(x)[None], [y])[0]

    def partial_fit(self, x: ArrayLike, y: ArrayLike | None = None) -> list[int]:
        """Give samples (n, *shape) with labels (n,): names, or numbers of classes; or without, to be labelled by a
        person. Their ids, once they are on the daemon's disk. They are learned by the next `train`.

        Raises:
            DataError: samples or labels that cannot be learned.
            OutputError: the disk takes no more.
        """
        import numpy as np

        tensors = {"x": np.asarray(x), **({} if y is None else {"y": np.asarray(y)})}
        head, parts = encoded(tensors)
        content = head + b"".join(parts)
        headers = {"Content-Type": _OCTETS, "Inference-Header-Content-Length": str(len(head))}
        return list(self.request("POST", "/v1/samples", content, headers)["ids"])

    def samples(self, limit: int = 50, label: str | None = None) -> dict[str, Any]:
        """The latest samples, newest first, and `counts` of each label."""
        query = {"limit": limit, **({} if label is None else {"label": label})}
        return self.ask("GET", f"/v1/samples?{urlencode(query)}")

    def label(self, sample: int, label: str | None) -> dict[str, Any]:
        """Say what a sample is."""
        return self.ask("PATCH", f"/v1/samples/{sample}", {"label": label})

    # Predictions

    def predict(self, x: ArrayLike) -> Prediction:
        """The answer for one sample (*shape), and the version that gave it.

        Raises:
            DataError: a sample of another shape, or with NaN.
            UsageError: the model predicts values, not classes.
        """
        import numpy as np

        from edgelearn.learning.prediction import Prediction

        outputs, version = self._infer(np.asarray(x)[None], None)
        if "label" not in outputs:
            raise UsageError("the model predicts values, not classes: use predict_proba, which gives them")
        return Prediction(str(outputs["label"][0]), float(outputs["probabilities"][0].max()), version)

    def predict_proba(self, x: ArrayLike, version: str | None = None) -> NDArray[np.float32]:
        """Outputs (n, classes) for samples (n, *shape), of the live version or another.

        Raises:
            DataError: samples of another shape, or with NaN.
        """
        import numpy as np

        outputs, _ = self._infer(np.asarray(x), version)
        found: NDArray[np.float32] = outputs["probabilities" if "probabilities" in outputs else "values"]
        return found

    def _infer(self, x: NDArray[Any], version: str | None) -> tuple[dict[str, Any], str]:
        if self._name is None:
            self._name = str(self.status()["model"])
        head, parts = encoded({"x": x}, {"parameters": {"binary_data_output": True}})
        place = f"/v2/models/{quote(self._name)}" + (f"/versions/{quote(version)}" if version else "")
        headers = {"Content-Type": _OCTETS, "Inference-Header-Content-Length": str(len(head))}
        content, given = self._line.exchange("POST", f"{place}/infer", b"".join([head, *parts]), headers)
        length = int(given.get("Inference-Header-Content-Length") or len(content))
        about = json.loads(content[:length])
        return decoded(about["outputs"], content[length:]), str(about["model_version"])

    # Versions

    def push(self, path: str | Path, note: str = "") -> Version:
        """Send a model file; the first one becomes live, others wait for `promote`.

        Raises:
            ModelError, VerificationError: it does not answer there.
        """
        place = f"/v1/versions?{urlencode({'note': note})}"
        with Path(path).open("rb") as stream:
            length = {"Content-Length": str(os.fstat(stream.fileno()).st_size)}
            return _version(self.request("POST", place, stream, {"Content-Type": _OCTETS, **length}))

    def history(self, limit: int = 100) -> list[Version]:
        """Versions, oldest first, as a store has them."""
        return [_version(item) for item in self.versions(limit)[::-1]]

    def versions(self, limit: int = 100) -> list[dict[str, Any]]:
        """Versions, newest first, each with its `state` and, where it was refused, the `reason`."""
        return list(self.ask("GET", f"/v1/versions?limit={limit}")["versions"])

    def promote(self, version: str) -> Version:
        """Make a version live."""
        return _version(self.ask("POST", f"/v1/versions/{quote(version)}/promote", {}))

    def rollback(self, version: str | None = None) -> Version:
        """Make live what was live before, or a version by its id."""
        return _version(self.ask("POST", "/v1/rollback", {} if version is None else {"to": version}))

    def diff(self, first: str, second: str) -> dict[str, Any]:
        """What a version does otherwise than another: `metrics` and how far each of `layers` moved."""
        return self.ask("GET", f"/v1/versions/{quote(first)}/diff/{quote(second)}")

    # State

    def add_class(self, name: str) -> list[str]:
        """Let samples be of a class that the model does not know; the next training adds it. All classes."""
        return list(self.ask("POST", "/v1/classes", {"name": name})["classes"])

    def train(self, note: str = "", policy: str | None = None) -> dict[str, Any]:
        """Start a job that learns all that is labelled by now; `job` tells how it goes.

        Raises:
            UsageError: one is under way, or there is nothing new.
        """
        return self.ask("POST", "/v1/jobs", {"note": note, **({} if policy is None else {"policy": policy})})

    def job(self, job: int) -> dict[str, Any]:
        """How a job goes: its `state`, `reason`, `done` and `version`, and whether it is still `active`."""
        return self.ask("GET", f"/v1/jobs/{job}")

    def cancel(self, job: int | None = None) -> dict[str, Any]:
        """End a job, that under way where none is named; one that has ended stays as it is. The job.

        Raises:
            UsageError: no such job, or none under way.
        """
        if job is None:
            current = self.status()["job"]
            if current is None or not current["active"]:
                raise UsageError("no job is under way: nothing is left to cancel")
            job = int(current["id"])
        return self.ask("DELETE", f"/v1/jobs/{job}")

    def commit(self, note: str = "", policy: str | None = None, seconds: float = 3600.0) -> Version:
        """Train, and wait until it is decided; the version that came of it.

        Raises:
            LearningError: it failed, was cancelled, or learned nothing.
            DaemonError: it takes longer than `seconds`.
        """
        job, deadline = self.train(note, policy), time.monotonic() + seconds
        while job["active"]:
            if time.monotonic() > deadline:
                raise DaemonError(f"job {job['id']} is still {job['state']} after {seconds:g} s: watch it with status")
            time.sleep(_LOOK_SECONDS)
            job = self.job(job["id"])
        if job["version"] is None:
            raise LearningError(f"job {job['id']} {job['state']}: {job['reason']}")
        return _version(self.ask("GET", f"/v1/versions/{job['version']}"))

    def status(self) -> dict[str, Any]:
        """What goes on, and why."""
        return self.ask("GET", "/v1/status")

    def watch(self, last: int = 0) -> Iterator[dict[str, Any]]:
        """Events as they come, those after the id `last` that are still known first; ends when the daemon does.

        Raises:
            DaemonError: it does not answer.
        """
        with closing(self._line.lines(f"/v1/events?last={last}")) as lines:
            for line in lines:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    # Requests

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A request with a JSON body.

        Raises:
            EdgelearnError: what the daemon refused it with.
            DaemonError: it does not answer, or failed.
        """
        content = None if body is None else json.dumps(body).encode()
        return self.request(method, path, content, {} if body is None else {"Content-Type": "application/json"})

    def request(self, method: str, path: str, content: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        """A request with a body of bytes or a file; the JSON of its answer.

        Raises:
            EdgelearnError, DaemonError: as `ask`.
        """
        return dict(json.loads(self._line.exchange(method, path, content, headers)[0]))


def _version(item: Mapping[str, Any]) -> Version:
    """A version as a store has it."""
    return Version(**{name: item[name] for name in Version.__dataclass_fields__})
