# SPDX-License-Identifier: Apache-2.0
"""The studies of `bench.adapt` that need two nets or another tool."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import edgelearn as el
from bench.adapt_studies import arrays
from bench.shifts import shifted
from edgelearn import adaptation
from edgelearn.adaptation import adapted, compatible
from edgelearn.backbone import features
from edgelearn.backbone.own import OwnBackbone

CODES = 7
"""Seed of the codes of nets that are to be comparable."""


@cache
def _net(rule: str, seed: int, shared: bool, images: int, epochs: int) -> OwnBackbone:
    """784-256-64-10 from a seed of its weights, on the first images of Fashion-MNIST."""
    d = arrays("fashion_mnist")
    net = el.Net([el.Dense(256, "relu"), el.Dense(64, "tanh"), el.Dense(10)], input_shape=(28, 28), seed=seed)
    how: dict[str, Any] = {"rule": rule, "epochs": epochs, "lr": 1e-3, "lr_schedule": "cosine", "batch": 64}
    net.fit(d["x_train"][:images], d["y_train"][:images].astype(np.int32), seed=CODES if shared else seed, **how)
    return OwnBackbone(net, rule)


def retrieval(rule: str, draw: int, update: bool) -> dict[str, Any]:
    """Nearest neighbours of an old and a new net, which with `update` has seen ten times as many images."""
    shared = rule.startswith("tp")
    old = _net(rule, 100 + draw, shared, *((6000, 10) if update else (60000, 6)))
    new = _net(rule, 200 + draw, shared, 60000, 6)
    d = arrays("fashion_mnist")
    images, labels = d["x_test"][:5500], d["y_test"][:5500]
    a, b = (features(each, each.prepare(images)) for each in (new, old))
    _, found = compatible.compare(a, b, labels, support=500)
    trained = compatible.basis_transformation(a[:500], b[:500], labels[:500])
    rest = labels[500:]
    parts = {"bt2": (trained.apply(a[500:]), trained.pad(b[500:])), "new": (a[500:], a[500:])}
    if rule == "tp-ce":
        shares = [compatible.code_shares(each[500:], rule, CODES, 1, 10) for each in (a, b)]
        parts |= {"shares": (shares[0], shares[1]), "old_shares": (shares[1], shares[1])}
    judged = {name: float(compatible.matched(*pair, rest, rest).mean()) for name, pair in parts.items()}
    return {"old": found.old, "raw": found.raw, "aligned": found.aligned, **judged}


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


def exchanged(folder: Path, peer: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Largest differences to PEFT: of a file of ours loaded by it, and of one that it saved loaded by us."""
    d = arrays("fashion_mnist")
    net = el.Net([el.Dense(64, "tanh"), el.Dense(32, "tanh"), el.Dense(10)], input_shape=(784,), seed=0)
    x = d["x_train"].reshape(60000, -1).astype(np.float32) / 255
    net.fit(x[:6000], d["y_train"][:6000].astype(np.int32), rule="readout", epochs=2, lr=1e-3, seed=0)
    frozen = OwnBackbone(net, "bench")
    taps = [tap.name for tap in frozen.taps]
    layers = {f"{tap}.{part}": net.weights[f"{tap}.{part}"] for tap in taps for part in ("weight", "bias")}
    np.savez(folder / "layers.npz", x=x[-200:], **layers)
    made = adaptation.adapt(
        frozen, 1 - x[6000:6050], d["y_train"][6000:6050].astype(np.int32), ways=("adapters+head",), rank=8
    )
    (folder / "ours").mkdir()
    size = made.save(folder / "ours" / "adapter_model.safetensors")
    job = {"layers": str(folder / "layers.npz"), "taps": taps, "ours": str(folder / "ours")}
    said = peer("peft_adapter", {**job, "theirs": str(folder / "theirs")}, "peft")
    read = adapted.load(folder / "theirs" / "adapter_model.safetensors", frozen)
    changed = np.abs(made.features(x[-200:]) - el.Adapted(frozen).features(x[-200:])).max()
    return {
        "ours": float(np.abs(made.features(x[-200:]) - np.array(said["ours"])).max()),
        "theirs": float(np.abs(read.features(x[-200:]) - np.array(said["theirs"])).max()),
        "changed": float(changed),
        "bytes": size,
    }
