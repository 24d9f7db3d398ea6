# SPDX-License-Identifier: Apache-2.0
"""The fit loop: what is kept, what is refused, what is shown."""

import io

import numpy as np
import pytest

import edgelearn as el
from edgelearn import optim
from edgelearn.engines import native
from edgelearn.training.progress import Progress, Reading


def small():
    return el.Net([el.Dense(16, "relu"), el.Dense(4)], input_shape=(6,))


def test_history_holds_one_moment_per_epoch_and_the_loss_falls(blobs):
    net = small().fit(*blobs, epochs=5, batch=20, lr=0.01)
    epochs = net.history.epochs
    assert [m.epoch for m in epochs] == [0, 1, 2, 3, 4]
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].accuracy > epochs[0].accuracy
    assert epochs[-1].done == 1
    assert net.history.samples == 5 * 200


def test_sequential_trains_block_by_block(blobs):
    net, seen = small(), []
    start = net.flat.copy()

    def watch(moment):
        if moment.finished:
            seen.append((moment.stage, np.flatnonzero(net.flat != start).tolist()))

    net.fit(*blobs, epochs=2, schedule="sequential", callbacks=[watch])
    hidden = 2 + 6 * 16 + 16
    assert [stage for stage, _ in seen] == [0, 0, 1, 1]
    assert max(seen[1][1]) < hidden, "the output moved while the hidden block was trained"
    after_hidden = [i for i in seen[1][1] if i < hidden]
    assert [i for i in seen[3][1] if i < hidden] == after_hidden


def test_ctrl_c_keeps_the_last_finished_epoch(blobs):
    net, kept = small(), []

    def interrupt(moment):
        if moment.finished:
            kept.append(net.flat.copy())
        if moment.epoch == 2 and not moment.finished:
            raise KeyboardInterrupt

    net.fit(*blobs, epochs=5, batch=2, callbacks=[interrupt])
    assert net.history.interrupted
    assert len(net.history.epochs) == 2
    assert np.array_equal(net.flat, kept[1])


def test_a_callback_that_returns_true_ends_the_run_at_an_epoch(blobs):
    net = small().fit(*blobs, epochs=50, callbacks=[lambda moment: moment.epoch == 2])
    assert len(net.history.epochs) == 3


def test_an_error_in_a_callback_leaves_the_last_finished_epoch(blobs):
    net = small()
    start = net.flat.copy()

    def fail(moment):
        raise RuntimeError("display broke")

    with pytest.raises(RuntimeError, match="display broke"):
        net.fit(*blobs, epochs=5, callbacks=[fail])
    assert np.array_equal(net.flat, start)


def test_divergence_to_nan_raises_and_brings_the_weights_back(blobs):
    net = small()
    start = net.flat.copy()
    with pytest.raises(el.LearningError, match="lower the learning rate"):
        net.fit(*blobs, rule="tp-l2", optimizer="sgd", lr=1e30, lr_schedule="constant")
    assert np.array_equal(net.flat, start)


def test_divergence_without_nan_raises_and_brings_the_weights_back(blobs):
    net, (x, y) = small(), blobs
    start = net.flat.copy()
    with pytest.raises(el.LearningError, match="a constant guess has 1.39"):
        net.fit(x, np.random.default_rng(1).permutation(y), epochs=3, batch=2, lr=1e4)
    assert np.array_equal(net.flat, start)


def test_a_run_that_changes_no_weight_is_an_error(blobs):
    with pytest.raises(el.LearningError, match="changed no weight"):
        small().fit(*blobs, epochs=1, lr=1e-12)


def test_a_run_that_learns_nothing_is_an_error(blobs):
    x, y = blobs
    with pytest.raises(el.LearningError, match="learned nothing"):
        small().fit(np.zeros_like(x), y, epochs=20, batch=20, lr=1e-5)


def test_progress_writes_a_line_per_epoch_to_a_file_and_a_bar_to_a_terminal(blobs):
    plain, terminal = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    small().fit(*blobs, epochs=3, progress=Progress(plain), callbacks=[Progress(terminal)])
    lines = plain.getvalue().splitlines()
    assert len(lines) == 3
    assert all(word in lines[0] for word in ("epoch 1/3", "loss", "accuracy", "samples/s"))
    assert terminal.getvalue().count("\r") >= 3
    assert "ETA" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize(("is_terminal", "pause", "end"), [(True, 0.3, "\033[K\r"), (False, 11, "\n")])
def test_reading_says_now_and_then_how_far_it_is(is_terminal, pause, end):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    reading = Reading(stream)
    reading("read", 1, 2000)
    assert stream.getvalue() == ""
    reading.last -= pause
    reading("read", 1500, 2000)
    reading("read", 1501, 2000)
    assert stream.getvalue() == "read 1,500 of 2,000 files" + end


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
@pytest.mark.parametrize("warmup", [0, 5])
def test_the_core_and_python_agree_on_learning_rates(name, warmup):
    schedule = optim.schedule(name, 0.1, warmup).spanning(50)
    for step in range(60):
        assert native.schedule_rate(schedule, step) == pytest.approx(schedule.rate(step), rel=1e-6)
    assert schedule.rate(warmup) == pytest.approx(0.1)
    assert warmup == 0 or schedule.rate(0) == pytest.approx(0.02)
    assert name == "constant" or schedule.rate(49) < 0.02


def test_backpropagation_is_the_same_code_with_one_group(blobs):
    net = small().fit(*blobs, rule="tp-l2", block=2, epochs=20, batch=20, lr=0.01)
    assert net.score(*blobs) > 0.95
