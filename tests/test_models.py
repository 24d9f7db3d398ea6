# SPDX-License-Identifier: Apache-2.0
"""The shipped models: each has a data card, whose figures are those of the net, and fits the data it is for."""

from pathlib import Path

import numpy as np
import pytest

import edgelearn as el
from edgelearn import definition, graph, records
from edgelearn.inputs import data

MODELS = Path(__file__).parent.parent / "models"

SHAPES = [
    ("cnn-small", (28, 28)),
    ("cnn-small", (32, 32, 3)),
    ("vgg8", (32, 32, 3)),
    ("har-conv1d", (128, 9)),
    ("kws-conv1d", (49, 40)),
    ("har-gru", (128, 9)),
    ("kws-gru", (49, 40)),
    ("vit-tiny", (28, 28)),
    ("text-tiny", (64,)),
]
"""Models with cards, and the samples that their figures are for, as the net sees them."""

FITTING = [
    ("fashion_mnist.npz", "cnn-small"),
    ("cifar10_16k.npz", "vgg8"),
    ("har_hapt.npz", "har-conv1d"),
    ("fsdd_logmel.npz", "kws-conv1d"),
    ("har_hapt.npz", "har-gru"),
    ("fsdd_logmel.npz", "kws-gru"),
    ("fashion_mnist.npz", "vit-tiny"),
]


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_a_card_states_the_figures_of_the_net(name, shape):
    net = graph.build(definition.read(name).layers, shape)
    card = (MODELS / f"{name}.md").read_text()
    weights = sum(p.size for p in net.parameters if p.trainable)
    assert f"{weights:,}" in card
    assert f"{net.macs:,}" in card


@pytest.mark.parametrize("name", sorted({name for name, _ in SHAPES}))
def test_a_card_says_how_it_was_measured_what_of_and_where_it_ends(name):
    card = (MODELS / f"{name}.md").read_text()
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [f"# {name}", "## How it was measured", "## Data", "## Limits"]
    assert f"python -m bench.accuracy --task {name}" in card


@pytest.mark.parametrize(("file", "name"), FITTING)
def test_a_model_learns_a_little_of_its_data_within_its_plan(real_data, file, name):
    whole = data.load(real_data(file))
    net = el.load(name, seed=0)
    net.adopt(whole)
    some = np.arange(0, len(whole.x_train), len(whole.x_train) // 512)[:512]
    before = net.score(whole.x_test[:300], whole.y_test[:300])
    pace = {"epochs": 2} if np.isin(net.graph.records["op"], [records.Op.CONV]).any() else {"epochs": 4, "batch": 16}
    net.fit(whole.x_train[some], whole.y_train[some], rule="readout", **pace)
    assert net.score(whole.x_test[:300], whole.y_test[:300]) > before + 0.05
    assert net.plan(batch=16).peak_bytes < net.plan(batch=32).peak_bytes


def test_text_tiny_learns_some_queries_by_heart(real_data):
    with np.load(real_data("banking77.npz")) as file:
        texts, y = file["x_train"][:256].tolist(), file["y_train"][:256]
    x = el.byte_tokens(texts, 64)
    net = el.load("text-tiny", seed=0).fit(x, y, rule="readout", epochs=12, batch=32)
    assert net.score(x, y) > 0.3
