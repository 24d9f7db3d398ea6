# SPDX-License-Identifier: Apache-2.0
"""Tables of times, measured and as files, what they say of nets, and plans of boards."""

from __future__ import annotations

import itertools
import json
import math

import pytest

import edgelearn as el
from edgelearn import graph
from edgelearn.cli import main
from edgelearn.costs import boards, calibration, latency
from edgelearn.layers import GRU, LSTM, MultiHeadAttention, SimpleRNN
from edgelearn.net import choice


@pytest.fixture(scope="module")
def table():
    return calibration.measure(rounds=3)


@pytest.fixture
def own_table(tmp_path, monkeypatch):
    """A place of its own for the table of this machine."""
    path = tmp_path / "calibration.json"
    monkeypatch.setenv("EDGELEARN_CALIBRATION", str(path))
    return path


def nested(name, shape):
    return el.Net(el.load(name).layers, input_shape=shape, nested=True)


SEQUENCE = (GRU(64), LSTM(32), SimpleRNN(64), MultiHeadAttention(4))


def test_a_measured_table_knows_every_operation_and_more_work_takes_longer(table):
    """How near it comes is for a quiet machine to say: bench.latency."""
    for name, shape in (("cnn-small", (28, 28)), ("vgg8", (32, 32, 3))):
        net = nested(name, shape)
        narrow, whole = (table.seconds(net.submodel(width).graph) for width in (0.125, 1.0))
        assert 0 < narrow < whole
    for layer in SEQUENCE:
        short, long = (table.seconds(graph.build([layer], (steps, 64), softmax=False)) for steps in (4, 400))
        assert 0 < short < long


def test_a_table_adds_up_what_it_holds():
    """Where an operation takes a nanosecond for each product of its sizes, so does their sum."""
    sizes = {"dense": 2, "conv": 3, "pointwise": 3, "depthwise": 2, "pool": 2, "batchnorm": 2, "layernorm": 2}
    sizes |= {"attention": 2, "gru": 2, "lstm": 2, "simple_rnn": 2, "relu": 1, "softmax": 1}
    corners = {count: list(itertools.product((1, 1000), repeat=count)) for count in (1, 2, 3)}
    kinds = {
        kind: latency.Axes(((1, 1000),) * count, tuple(1e-9 * math.prod(at) for at in corners[count]))
        for kind, count in sizes.items()
    }
    known = latency.Table("a board", "scalar", 1e-5, 1e-8, kinds)
    nets = [nested("vgg8", (32, 32, 3)).submodel(width).graph for width in (0.25, 1.0)]
    for built in [*nets, *(graph.build([layer], (40, 64), softmax=False) for layer in SEQUENCE)]:
        works = sum(work.count * math.prod(work.size) for work in latency.works(built))
        assert known.seconds(built) == pytest.approx(1e-5 + 1e-8 * built.features + 1e-9 * works)


def test_a_table_is_kept_and_read_again(table, own_table):
    calibration.save(table, own_table)
    again = calibration.saved()
    small = nested("vgg8", (32, 32, 3)).submodel(0.5).graph
    assert again.seconds(small) == pytest.approx(table.seconds(small))
    assert calibration.latency_on(None) == again


def test_a_damaged_table_is_refused(own_table):
    assert calibration.saved() is None
    own_table.write_text('{"board": "x"}')
    with pytest.raises(el.ModelError, match="is not a table of bench calibrate .*: run it again"):
        calibration.saved()


def test_the_table_counts_for_this_machine_only(table, own_table):
    calibration.save(table, own_table)
    assert isinstance(calibration.latency_on("raspberry-pi-5"), latency.Roofline)
    here = boards.detect()
    assert isinstance(calibration.latency_on(here.name), latency.Table)


def test_bench_infer_times_models_beside_their_plans(table, own_table, capsys):
    line = ["bench", "infer", "mlp", "--width", "0.25", "--json"]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["models"][0]
    assert found["predicted_ms"] is None
    assert found["ms"] > 0
    calibration.save(table, own_table)
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["models"][0]
    assert found["widths"] == [0.25, 0.25, 1.0]
    assert found["predicted_ms"] > 0


def plan(*line, capsys):
    code = main(["plan", *line, "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_plan_for_a_board_picks_a_width_and_says_bytes_and_time(capsys):
    line = ("vgg8", "--board", "raspberry-pi-zero-2w", "--budget")
    code, found = plan(*line, "ram=32MB,latency=50ms", capsys=capsys)
    assert code == 0
    assert set(found) >= {
        "fits",
        "peak_bytes",
        "weight_bytes",
        "arena_bytes",
        "macs",
        "predicted_ms",
        "widths",
        "batch",
    }
    assert found["fits"]
    assert found["peak_bytes"] <= 32 << 20
    assert found["predicted_ms"] <= 50
    assert found["widths"][-1] == 1.0
    assert set(found["widths"][:-1]) < {0.125, 0.25, 0.5}
    code, wide = plan(*line, "ram=1GB,latency=10s", capsys=capsys)
    assert wide["widths"] == [1.0] * 8
    assert wide["predicted_ms"] > found["predicted_ms"]


def test_inference_is_planned_shorter_than_training_and_faster_boards_shorter_still(capsys):
    times = {}
    for purpose in ("train", "infer"):
        for board in ("raspberry-pi-zero-2w", "jetson-agx-orin"):
            times[purpose, board] = plan("vgg8", "--for", purpose, "--board", board, capsys=capsys)[1]["predicted_ms"]
    assert times["infer", "raspberry-pi-zero-2w"] < times["train", "raspberry-pi-zero-2w"]
    assert times["infer", "jetson-agx-orin"] < times["infer", "raspberry-pi-zero-2w"]


def test_a_budget_that_no_width_meets_names_what_the_smallest_needs(capsys):
    assert main(["plan", "vgg8", "--board", "raspberry-pi-zero-2w", "--budget", "latency=1us", "--json"]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["fits"] is False
    assert "no width fits (latency" in said.err
    assert "the smallest, 0.125, needs" in said.err
    assert main(["plan", "vgg8", "--board", "pdp-11"]) == 2


def test_a_board_that_is_too_hot_gets_no_plan(monkeypatch):
    net = el.load("vgg8")
    monkeypatch.setattr("edgelearn.costs.boards._degrees", lambda zone: 71.0)
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter([self]))
    assert boards.temperature() == 71.0
    with pytest.raises(el.BudgetError, match="temperature 71.0 C over 70.0 C"):
        net.plan(el.Budget(temperature="70C"), batch=8)
    assert net.plan(el.Budget(temperature="75C"), batch=8).fits
    chooser = choice.Chooser({(1.0,): 0.5}, lambda widths: net.plan(batch=8), boards.temperature)
    with pytest.raises(el.BudgetError, match="no submodel fits .temperature 71.0 C over 70.0 C.: let the board cool"):
        chooser.best(el.Budget(temperature="70C"))


def test_a_limit_of_heat_that_cannot_be_held_is_said(monkeypatch):
    net, limit = el.load("vgg8"), el.Budget(temperature="70C")
    with pytest.warns(UserWarning, match="temperature cannot be read here, so that its limit is not held"):
        assert net.plan(limit, board="jetson-nano").fits
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter([]))
    with pytest.warns(UserWarning, match="limit is not held"):
        assert net.plan(limit).fits


def test_sizes_that_a_budget_cannot_mean_are_refused():
    with pytest.raises(el.UsageError, match="budget temperature=hot cannot be read"):
        el.Budget(temperature="hot")
    with pytest.raises(el.UsageError, match="budget ram=1e400 cannot be read"):
        el.Budget(ram="1e400")
    with pytest.raises(el.UsageError, match="budget has ram twice: leave one of them out"):
        el.Budget.parse("ram=1MB,ram=2MB")


def test_every_operation_of_a_net_has_a_time(table):
    layers = [el.Embedding(50, 16), el.PositionEmbedding(), el.MultiHeadAttention(2), el.FeedForward(32)]
    layers = [*layers, GRU(8), el.Dense(4)]
    graph = el.Net(layers, (8,)).graph
    roofline = latency.Roofline(boards.load("raspberry-pi-4b")).seconds(graph)
    assert 0 < table.seconds(graph) < 0.01
    assert 0 < roofline < 0.01
