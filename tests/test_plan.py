# SPDX-License-Identifier: Apache-2.0
"""Plans are exact, and budgets are held to the byte."""

import tracemalloc

import numpy as np
import pytest

import edgelearn as el
from edgelearn import engines
from edgelearn.inputs.data import Dataset
from edgelearn.net import fitting, planning
from edgelearn.optim import Schedule
from edgelearn.training import recipe


def net():
    return el.Net([el.Dense(64, "relu"), el.BatchNormalization(), el.Dense(10)], input_shape=(30,))


@pytest.mark.parametrize("rule", ["tp-l2", "tp-ce", "readout", "untrained"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("threads", [1, 2])
def test_planned_bytes_are_what_the_core_takes(rule, optimizer, threads):
    some = net()
    plan = some.plan(batch=7, rule=rule, optimizer=optimizer, threads=threads)
    other = planning.planner(some, recipe.recipe({}))  # a planner of another recipe must not disturb this one
    assert other.at(1).arena_bytes != plan.arena_bytes
    run = recipe.recipe({}, rule=rule, optimizer=optimizer, threads=threads)
    session = engines.load().open(
        some.graph.records,
        some.flat,
        engines.Config(
            rule=run.local_rule(),
            optimizer=run.optimizer_record(),
            batch=7,
            targets=10,
            keep=True,
            threads=threads,
        ),
    )
    assert plan.arena_bytes == session.sizes.arena
    assert plan.peak_bytes == plan.weight_bytes + plan.arena_bytes
    assert plan.weight_bytes == some.flat.nbytes
    session.close()


def test_a_budget_of_exactly_the_plan_fits_and_one_byte_less_names_the_largest_batch():
    some, batch = net(), 40
    plan = some.plan(batch=batch)
    assert some.plan(el.Budget(ram=plan.peak_bytes), batch=batch).fits
    with pytest.raises(el.BudgetError, match="largest batch that fits is (\\d+)") as refusal:
        some.plan(el.Budget(ram=plan.peak_bytes - 1), batch=batch)
    named = int(str(refusal.value).split("fits is ")[1].split(",")[0])
    assert named < batch
    assert some.plan(batch=named).peak_bytes < plan.peak_bytes
    assert some.plan(batch=named + 1).peak_bytes >= plan.peak_bytes


def test_without_a_batch_the_largest_that_fits_is_chosen():
    some = net()
    least, most = some.plan(batch=2).peak_bytes, some.plan(batch=64).peak_bytes
    chosen = some.plan(el.Budget(ram=(least + most) // 2))
    assert 2 <= chosen.batch < 64
    assert chosen.peak_bytes <= (least + most) // 2
    assert some.plan(el.Budget(ram=most)).batch == 64


def test_a_budget_that_nothing_meets_says_what_the_least_needs():
    with pytest.raises(el.BudgetError, match=r"no batch fits .* batch 2 needs [\d,]+ bytes"):
        net().plan(el.Budget(ram="1KB"))


def test_fit_refuses_a_run_over_budget_before_the_first_step():
    some = net()
    x, y = np.ones((100, 30), np.float32), np.arange(100) % 10
    some.fit(x + np.eye(100, 30, dtype=np.float32), y, epochs=1)
    before = some.flat.copy()
    with pytest.raises(el.BudgetError, match="largest batch"):
        some.fit(x, y, budget=el.Budget(ram=some.plan(batch=64).peak_bytes - 1))
    assert np.array_equal(before, some.flat)


def test_inference_takes_less_than_training_and_macs_are_counted():
    train, infer = net().plan(batch=1), net().plan(purpose="infer")
    assert infer.arena_bytes < train.arena_bytes
    assert infer.macs == 30 * 64 + 64 * 10
    assert infer.predicted_ms > 0
    with pytest.raises(el.BudgetError, match="latency"):
        net().plan(el.Budget(latency="0.000001ms"), purpose="infer")


@pytest.mark.parametrize(
    ("value", "expected"), [("16MB", 16 << 20), ("1.5KB", 1536), (2048, 2048), ("3MiB", 3 << 20), ("7", 7)]
)
def test_memory_is_read_in_powers_of_two(value, expected):
    assert el.Budget(ram=value).ram == expected


@pytest.mark.parametrize("text", ["ram", "ram=", "ram=-1MB", "ram=0", "ram=5XB", "heat=3", "ram=1MB;flash=1"])
def test_budgets_that_cannot_be_read_are_refused(text):
    with pytest.raises(el.UsageError, match="budget"):
        el.Budget.parse(text)


def test_a_budget_line_holds_several_limits():
    budget = el.Budget.parse("ram=16MB,latency=50ms,macs=2M,flash=1GB")
    assert (budget.ram, budget.latency, budget.macs, budget.flash) == (16 << 20, 0.05, 2e6, 1 << 30)


@pytest.mark.parametrize("settings", [{"augment": {"shift": 3, "mix": 0.2, "noise": 0.1}}, {"validation": 0.25}])
def test_batches_outside_the_arena_are_planned_and_stay_within(settings):
    x, y = np.random.default_rng(0).normal(size=(128, 16, 16, 3)).astype(np.float32), np.arange(128) % 10
    some = el.Net([el.Dense(16, "relu"), el.Dense(10)], input_shape=(16, 16, 3))
    plan, plain = some.plan(batch=32, **settings), some.plan(batch=32)
    assert plan.arena_bytes == plain.arena_bytes
    assert plan.peak_bytes == plain.peak_bytes + plan.feed_bytes
    assert plain.feed_bytes == some.plan(batch=32, purpose="infer", **settings).feed_bytes == 0
    assert str(plan.feed_bytes) in str(plan).replace(",", "")
    data = Dataset(x, y.astype(np.int32), x[:0], y[:0])
    some.adopt(data)
    fitted = fitting.fitting(some, some.recipe(batch=32, **settings), data)
    session = engines.load().open(some.graph.records, some.flat, engines.Config(batch=32, targets=10))
    run = engines.Run(Schedule(), 32, 3)
    fitted.feed.fit(session, run, engines.Stats())  # whatever is made once, at first use
    tracemalloc.start()
    fitted.feed.fit(session, run, engines.Stats())
    if fitted.validation:
        fitted.validation.measure(session)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    session.close()
    assert plan.feed_bytes / 4 < peak <= plan.feed_bytes
