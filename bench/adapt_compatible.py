# SPDX-License-Identifier: Apache-2.0
"""The studies of `bench.adapt` that need two nets or another tool."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgelearn as el
from bench.adapt_studies import arrays
from bench.shifts import shifted
from edgelearn.adaptation import compatible
from edgelearn.backbone import features
from edgelearn.backbone.own import OwnBackbone


def _net(rule: str, weights: int, codes: int, x: Any, y: Any) -> OwnBackbone:
    """784-256-64-10 from one seed of its weights and another of its codes."""
    net = el.Net([el.Dense(256, "relu"), el.Dense(64, "tanh"), el.Dense(10)], input_shape=(28, 28), seed=weights)
    net.fit(x, y, rule=rule, epochs=2, lr=1e-3, batch=64, seed=codes)
    return OwnBackbone(net, rule)


def retrieval(rule: str, draw: int) -> dict[str, Any]:
    """Nearest neighbours of an old and a new net; both see the same images."""
    d = arrays("fashion_mnist")
    x, y = d["x_train"][:6000], d["y_train"][:6000].astype(np.int32)
    shared = rule.startswith("tp")
    old = _net(rule, 100 + draw, 7, x, y)
    new = _net(rule, 200 + draw, 7 if shared else 8, x, y)
    images, labels = d["x_test"][:2500], d["y_test"][:2500]
    a, b = (features(each, each.prepare(images)) for each in (new, old))
    _, found = compatible.compare(a, b, labels, support=500)
    trained = compatible.basis_transformation(a[:500], b[:500], labels[:500])
    rest = labels[500:]
    bt2 = compatible.matched(trained.apply(a[500:]), trained.pad(b[500:]), rest, rest).mean()
    own = compatible.matched(a[500:], a[500:], rest, rest).mean()
    return {"old": found.old, "raw": found.raw, "aligned": found.aligned, "bt2": float(bt2), "new": float(own)}


def outside(folder: Path, peer: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A net of PyTorch, exported by it, adapted through the command line."""
    d = arrays("mnist")
    x, y = d["x_train"][:6000, None].astype(np.float32) / 255, d["y_train"][:6000].astype(np.int64)
    np.savez(folder / "train.npz", x=x, y=y)
    peer("torch_backbone", {"data": str(folder / "train.npz"), "path": str(folder / "backbone.onnx")}, "torch_onnx")
    chosen = np.random.default_rng(0).choice(np.arange(12000, 60000), 50, replace=False)
    splits = {"train": (d["x_train"][chosen], d["y_train"][chosen]), "test": (d["x_test"][:1000], d["y_test"][:1000])}
    user = {f"x_{k}": shifted("inverted", v[0])[:, None].astype(np.float32) / 255 for k, v in splits.items()}
    np.savez(folder / "user.npz", **user, **{f"y_{k}": v[1] for k, v in splits.items()})
    np.savez(folder / "source.npz", x_train=x[:3000], y_train=y[:3000], x_test=x[:10], y_test=y[:10])
    said = _edgelearn(folder, "adapt", "backbone.onnx", "user.npz", "--source", "source.npz", "-o", "adapted.onnx")
    listed = _edgelearn(folder, "doctor", "backbone.onnx")
    return {
        "before": said["accuracy_before"],
        "accuracy": said["accuracy"],
        "way": said["way"],
        "max_abs_diff": said["max_abs_diff"],
        "peak_process_bytes": said["peak_process_bytes"],
        "taps": listed["default"],
    }


def _edgelearn(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgelearn.cli", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
