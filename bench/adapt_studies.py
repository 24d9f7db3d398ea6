# SPDX-License-Identifier: Apache-2.0
"""What `bench.adapt` measures: each study is a function from a seed, or a held-out person or speaker, to numbers."""

from __future__ import annotations

import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgelearn as el
from bench.results import FOLDER
from bench.shifts import shifted
from bench.tasks import data_file
from edgelearn import adaptation, heads
from edgelearn.adaptation import readouts, ways
from edgelearn.adapters import lowrank
from edgelearn.adapters.local import softmax
from edgelearn.backbone.own import OwnBackbone

Arrays = dict[str, NDArray[Any]]

SAMPLES = 50
HEAD_ONLY = ("head",)


@cache
def arrays(name: str) -> Arrays:
    """A data set of the machine."""
    with np.load(data_file(name), allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key != "README"}


def trained(
    name: str, model: str, x: NDArray[Any], y: NDArray[Any], extra: Arrays | None = None, **settings: Any
) -> el.Net:
    """A net of models/ on samples; trained once, then read from bench/results."""
    path = FOLDER / f"adapt-{name}.safetensors"
    if path.is_file():
        return el.load(path)
    net = el.load(model, seed=0)
    if extra:
        from edgelearn.inputs.data import Dataset

        net.adopt(Dataset(x, y.astype(np.int32), x[:1], y[:1].astype(np.int32), arrays=extra))
    net.fit(x, y.astype(np.int32), seed=0, **settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    net.save(path)
    return net


def adapted(
    net: el.Net, source: readouts.Readouts, x: Any, y: Any, x_test: Any, y_test: Any, **settings: Any
) -> dict[str, Any]:
    """Accuracy as it is, by a tuned head, and by the way that the samples themselves chose; bytes of its file."""
    backbone = OwnBackbone(net, "bench")
    y, y_test = y.astype(np.int32), y_test.astype(np.int32)
    chosen = adaptation.adapt(backbone, x, y, readouts=source, **settings)
    head = adaptation.adapt(backbone, x, y, ways=HEAD_ONLY)
    path = FOLDER / "adapt-size.safetensors"
    size = chosen.save(path)
    path.unlink()
    return {
        "none": el.Adapted(backbone).score(x_test, y_test),
        "head": head.score(x_test, y_test),
        "chosen": chosen.score(x_test, y_test),
        "way": chosen.about["way"],
        "bytes": size,
        "seconds": chosen.about["seconds"],
    }


def source_of(net: el.Net, x: Any, y: Any, classes: int) -> readouts.Readouts:
    """Read-outs of the domain that a net was trained on."""
    return readouts.fit(OwnBackbone(net, "bench"), x, y.astype(np.int32), classes)


@cache
def digits() -> tuple[el.Net, readouts.Readouts]:
    """cnn-small on the first 12,000 images of MNIST, three epochs."""
    d = arrays("mnist")
    x, y = d["x_train"][:12000], d["y_train"][:12000]
    net = trained("mnist", "cnn-small", x, y, epochs=3, augment={})
    return net, source_of(net, x, y, 10)


def shift(name: str, draw: int) -> dict[str, Any]:
    """50 labelled images of another domain, drawn from those the net has not seen; the first 2,000 test images."""
    d, (net, source) = arrays("mnist"), digits()
    chosen = np.random.default_rng(draw).choice(np.arange(12000, 60000), SAMPLES, replace=False)
    x, x_test = shifted(name, d["x_train"][chosen]), shifted(name, d["x_test"][:2000])
    return adapted(net, source, x, d["y_train"][chosen], x_test, d["y_test"][:2000], seed=draw)


@cache
def walkers() -> tuple[el.Net, readouts.Readouts]:
    """har-conv1d without the nine persons of the official test split."""
    d = arrays("har_hapt")
    net = trained("har", "har-conv1d", d["x_train"], d["y_train"], {"scale": d["scale"]}, epochs=6)
    return net, source_of(net, d["x_train"], d["y_train"], 6)


def person(number: int, draw: int, margin: float) -> dict[str, Any]:
    """60 windows of a person's first recording, tested on the person's other recordings."""
    d, (net, source) = arrays("har_hapt"), walkers()
    mine = d["subj_test"] == number
    first = mine & (d["exp_test"] == d["exp_test"][mine].min())
    chosen = np.random.default_rng(draw).choice(np.flatnonzero(first), 60, replace=False)
    rest = mine & ~first
    x, y = d["x_test"], d["y_test"]
    return adapted(net, source, x[chosen], y[chosen], x[rest], y[rest], margin=margin, seed=draw)


def speaker(number: int, draw: int) -> dict[str, Any]:
    """kws-conv1d trained without a speaker; five recordings of each digit from the speaker, tested on the others."""
    d = arrays("fsdd_logmel")
    others = d["spk_train"] != number
    x, y = d["x_train"][others], d["y_train"][others]
    net = trained(f"fsdd-{number}", "kws-conv1d", x, y, epochs=12)
    mine = np.flatnonzero(~others)
    rng = np.random.default_rng(draw)
    chosen = np.concatenate([rng.choice(mine[d["y_train"][mine] == c], 5, replace=False) for c in range(10)])
    rest = np.setdiff1d(mine, chosen)
    source = source_of(net, x, y, 10)
    return adapted(
        net, source, d["x_train"][chosen], d["y_train"][chosen], d["x_train"][rest], d["y_train"][rest], seed=draw
    )


SHAPES = [(784, 256), (256, 256), (256, 10), (256,), (256,), (10,)]


def optimizer(name: str, lr: float, seed: int, epochs: int) -> dict[str, Any]:
    """An MLP 784-256-256-10 on Fashion-MNIST, every hidden layer against fixed random codes (tp-ce), in numpy, so that
    an optimizer sees each layer's gradient."""
    d, rng, rank = arrays("fashion_mnist"), np.random.default_rng(seed), 16
    x, x_test = (d[k].reshape(len(d[k]), -1).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    y, y_test = d["y_train"].astype(np.int64), d["y_test"]
    weights = [(rng.uniform(-1, 1, s) * np.sqrt(6 / s[0])).astype(np.float32) for s in SHAPES[:3]]
    biases = [np.zeros(s, np.float32) for s in SHAPES[3:]]
    codes = [rng.normal(size=(10, 256)).astype(np.float32) for _ in range(2)]
    kind = lowrank.optimizer(name)
    states = [kind.state(a.shape, rank, i) for i, a in enumerate([*weights, *biases])]
    steps, batch = epochs * (len(x) // 64), 64
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            part = order[start : start + batch]
            rate = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
            _step(weights, biases, codes, states, x[part], y[part], rate)
            step += 1
    h = x_test
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = h @ weight + bias
        h = np.maximum(h, 0) if i < 2 else h
    return {"accuracy": float((h.argmax(axis=1) == y_test).mean()), "bytes": kind.bytes_of(SHAPES, rank)}


def _step(weights: Any, biases: Any, codes: Any, states: Any, h: Any, y: Any, rate: float) -> None:
    """Forward and, right away, each layer's own update."""
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        out = h @ weight + bias
        if i < 2:
            out = np.maximum(out, 0)
        scale = np.float32(0.2 * np.sqrt(out.shape[1]))
        error = softmax(out @ codes[i].T / scale if i < 2 else out)
        error[np.arange(len(y)), y] -= 1
        error /= np.float32(len(y))
        back = (error @ codes[i] / scale) * (out > 0) if i < 2 else error
        states[i].step(weight, h.T @ back, rate)
        states[i + 3].step(bias, back.sum(axis=0), rate)
        h = out


@cache
def clothes(seed: int) -> tuple[NDArray[np.float32], ...]:
    """Features of Fashion-MNIST by an MLP that learned six of the classes: of training and of test images."""
    d = arrays("fashion_mnist")
    base = d["y_train"] < 6
    x, y = d["x_train"][base][:12000], d["y_train"][base][:12000]
    net = _mlp(seed, x, y)
    backbone = OwnBackbone(net, "bench")
    from edgelearn.backbone import features

    parts = (d["x_train"][:20000], d["x_test"][:4000])
    return tuple(features(backbone, backbone.prepare(part)) for part in parts)


def _mlp(seed: int, x: Any, y: Any, width: int = 128, classes: int = 6) -> el.Net:
    """784-256-width-classes, learned by read-outs."""
    net = el.Net([el.Dense(256, "relu"), el.Dense(width, "relu"), el.Dense(classes)], input_shape=(28, 28), seed=seed)
    return net.fit(x, y.astype(np.int32), rule="readout", epochs=3, lr=1e-3, batch=64, seed=seed)


def incremental(seed: int) -> dict[str, Any]:
    """Six classes, then two and two more of five samples each: final accuracy over all ten."""
    d, (h, h_test) = arrays("fashion_mnist"), clothes(seed)
    y, y_test = d["y_train"][:20000], d["y_test"][:4000]
    base = np.flatnonzero(y < 6)[:6000]
    rng = np.random.default_rng(seed)
    few = {c: rng.choice(np.flatnonzero(y == c), 5, replace=False) for c in (6, 7, 8, 9)}
    ridge = heads.RidgeHead(h.shape[1], penalty=0.1)
    ridge.partial_fit(h[base], y[base])
    for c, places in few.items():
        ridge.add_class(c, h[places])
    means = np.stack([h[base[y[base] == c]].mean(axis=0) for c in range(6)] + [h[few[c]].mean(axis=0) for c in few])
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    nearest = (h_test @ unit.T).argmax(axis=1)
    weight, bias = _naive(h, y, base, few)
    return {
        "ridge": float(np.mean(np.array(ridge.predict(h_test)) == y_test)),
        "nearest mean": float((nearest == y_test).mean()),
        "naive": float(((h_test @ weight + bias).argmax(axis=1) == y_test).mean()),
    }


def _naive(h: Any, y: Any, base: Any, few: dict[int, Any]) -> tuple[Any, Any]:
    """A linear head tuned on each session's samples alone, one session after the other."""
    from edgelearn.backbone.taps import Head

    head = Head(np.zeros((h.shape[1], 10), np.float32), np.zeros(10, np.float32))
    for classes in ((0, 1, 2, 3, 4, 5), (6, 7), (8, 9)):
        places = base if classes[0] == 0 else np.concatenate([few[c] for c in classes])
        head = adaptation.tuned(head, h[places], y[places].astype(np.int32))
    return head.weight, head.bias


def memory() -> dict[str, Any]:
    """Adapters of rank 8 on cnn-small: planned bytes, and those that numpy was seen to take."""
    d, (net, source) = arrays("mnist"), digits()
    x, y = shifted("inverted", d["x_train"][12000:12050]), d["y_train"][12000:12050].astype(np.int32)
    settings: dict[str, Any] = {"readouts": source, "ways": ("adapters+head",), "rank": 8}
    adaptation.adapt(OwnBackbone(net, "warm"), x, y, **settings)
    backbone = OwnBackbone(net, "bench")
    plan = ways.plan(backbone, len(y), 10, ways.Settings(rank=8))
    tracemalloc.start()
    adaptation.adapt(backbone, x, y, **settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {**plan, "measured_bytes": peak}


def clean() -> None:
    """Forget trained nets."""
    for path in Path(FOLDER).glob("adapt-*.safetensors"):
        path.unlink()
