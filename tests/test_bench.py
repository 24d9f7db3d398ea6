# SPDX-License-Identifier: Apache-2.0
"""What of the benchmarks decides without training: tasks, winners, what is missing, verdicts, the page."""

from dataclasses import replace

import pytest

from bench import memory, process, promises, report, results
from bench.runs import Bench, Run
from bench.tasks import GROUPS, LOCAL, PAIRS, REFERENCE, ROWS, TARGET, TASKS, Task
from bench.workers import Workers, duration
from edgelearn import definition
from edgelearn.training.recipe import recipe

SCORES = {
    "torch": 90.0,
    "backprop": 90.5,
    "tp-ce": 89.0,
    "tp-l2": 70.0,
    "readout": 89.6,
    "readout+sim": 89.4,
    "readout/2": 90.2,
    "readout+sim/2": 89.9,
    "untrained": 60.0,
}
TASK = Task("fashion_mnist", "cnn-small", 100, tuple(SCORES), promises={TARGET: 1.0, LOCAL: 0.5, PAIRS: None})


class Untrained(Bench):
    """A table whose runs take no time: a row's accuracy falls by a tenth of a point from seed to seed."""

    def measure(self, run):
        if run.row == "tp-l2":
            raise process.MeasurementError("killed")
        return {"accuracy": SCORES[run.row] - run.seed / 10, "seconds": 60.0, "parameters": 7}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return Untrained(results.Ledger("accuracy"), code={True: "a", False: "b"})


def record(bench, task, row, *scores):
    for seed, score in enumerate(scores):
        bench.ledger.add(bench.key(Run(task, row, seed)), {"accuracy": score, "seconds": 1.0, "parameters": 7})


def run_all(bench, task=TASK, rows=tuple(SCORES)):
    workers = Workers(bench, lambda: bench.wanted([task], rows), lambda: 0.0, jobs=2)
    workers.work()
    return workers


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_a_task_share_one_recipe_that_edgelearn_takes(name):
    task = TASKS[name]
    shared = task.recipe()
    assert {"optimizer", "lr", "lr_schedule", "epochs", "batch"} <= set(shared)
    train = definition.read(task.definition).train
    assert set(task.promises) <= {*GROUPS, *task.rows}
    for row in (ROWS[row] for row in task.rows if ROWS[row].rule):
        told = task.settings_of(row)
        run = recipe(train, **told | {"block": told["block"] or 1000})
        assert run.rule == row.rule
        kept = set(shared) - ({"lr"} if row.block else set())
        assert {key: told[key] for key in kept} == {key: shared[key] for key in kept}


def test_the_reference_is_trained_by_every_task_and_every_promise_is_about_its_rows():
    for task in TASKS.values():
        assert REFERENCE in TASKS.get(task.beside, task).rows
        assert set(task.rows) <= set(ROWS)
        for promise in task.promises:
            assert promise in task.rows or any(promise in ROWS[row].groups for row in task.rows)


def test_winners_are_known_when_their_group_is_and_only_then_run_again(bench):
    assert bench.winner(TASK, TARGET) is None
    record(bench, TASK, "tp-ce", 80.0)
    assert bench.winner(TASK, TARGET) is None
    record(bench, TASK, "tp-l2", 81.0)
    assert bench.winner(TASK, TARGET) == "tp-l2"
    wanted = {(run.row, run.seed) for run in bench.wanted([TASK], list(SCORES))}
    assert {("tp-l2", 2), (REFERENCE, 2), ("backprop", 0), ("readout", 0)} <= wanted
    assert not {("tp-ce", 1), ("readout", 1), ("untrained", 1), ("backprop", 1)} & wanted
    assert bench.undecided(TASK, list(SCORES)) == 4


def test_quick_tasks_compare_all_rows_by_several_seeds(bench):
    task = replace(TASK, screened=3)
    record(bench, task, "tp-ce", 80.0, 70.0, 70.0)
    record(bench, task, "tp-l2", 75.0, 75.0)
    assert bench.winner(task, TARGET) is None
    record(bench, task, "tp-l2", 75.0, 75.0, 75.0)
    assert bench.winner(task, TARGET) == "tp-l2"
    assert len(list(bench.wanted([task], list(SCORES)))) == 3 * len(SCORES)
    assert bench.undecided(task, list(SCORES)) == 0


def test_a_failed_run_is_named_and_the_others_are_finished(bench, capsys):
    workers = run_all(bench)
    assert [str(run) for run in workers.failed] == ["fashion_mnist/cnn-small tp-l2 seed 0"]
    assert "killed" in capsys.readouterr().err
    assert workers.missing() == list(workers.failed)
    assert bench.winner(TASK, PAIRS) == "readout/2"
    assert bench.winner(TASK, TARGET) is None


def test_what_was_measured_is_not_measured_again(bench):
    run_all(bench)
    again = Untrained(results.Ledger("accuracy"), code=bench.code)
    assert len(Workers(again, lambda: again.wanted([TASK], list(SCORES)), lambda: 0.0, 1).missing()) == 1
    other = Untrained(results.Ledger("accuracy"), code={True: "changed", False: "b"})
    missing = {run.row for run in Workers(other, lambda: other.wanted([TASK], list(SCORES)), lambda: 0.0, 1).missing()}
    assert missing == set(SCORES) - {REFERENCE}


def test_a_recipe_and_a_setting_belong_to_the_result(bench):
    run = Run(TASK, "tp-ce", 0)
    other = replace(run, task=replace(TASK, train={"epochs": 3}))
    tuned = replace(run, task=replace(TASK, settings={"tp-ce": {"temperature": 0.7}}))
    keys = {str(bench.key(r)) for r in (run, other, tuned)}
    assert len(keys) == 3
    assert bench.key(replace(run, row="readout", task=tuned.task)) == bench.key(replace(run, row="readout"))


def test_verdicts_hold_medians_of_winners_against_the_reference(bench):
    record(bench, TASK, "tp-l2", 89.3, 86.0, 89.1)
    run_all(bench)
    found = {verdict.promise: verdict for verdict in promises.verdicts(bench, [TASK])}
    assert (found[TARGET].row, found[TARGET].gap, str(found[TARGET])) == ("tp-l2", 0.8, "pass")
    assert (found[LOCAL].row, found[LOCAL].gap, str(found[LOCAL])) == ("readout", 0.4, "pass")
    assert (found[PAIRS].row, str(found[PAIRS])) == ("readout/2", "")
    strict = replace(TASK, promises={LOCAL: 0.3})
    assert [str(verdict) for verdict in promises.verdicts(bench, [strict])] == ["miss"]


def test_a_promise_without_all_its_seeds_has_no_verdict(bench):
    record(bench, TASK, REFERENCE, 90.0, 90.0)
    record(bench, TASK, "tp-ce", 89.0)
    record(bench, TASK, "tp-l2", 80.0)
    assert {str(verdict) for verdict in promises.verdicts(bench, [TASK])} == {promises.NOT_RUN}
    text = promises.section(bench, [TASK], [Run(TASK, "readout", 0)])
    assert "**1 runs of this table are still missing" in text
    assert f"| readout | {promises.NOT_RUN} |" in text
    assert "| tp-ce | 89.00 | 1.00 | 89.00 | 0.0 |" in text


def test_a_net_of_another_size_is_noticed(bench):
    record(bench, TASK, REFERENCE, 90.0)
    record(bench, TASK, "readout", 90.0)
    assert bench.differs(TASK) is None
    bench.ledger.add(bench.key(Run(TASK, "untrained", 0)), {"accuracy": 50.0, "seconds": 1.0, "parameters": 8})
    assert bench.differs(TASK) == "untrained"


def test_the_time_left_follows_what_was_measured(bench):
    assert bench.estimate(Run(TASK, "readout", 0)) == TASK.seconds
    record(bench, TASK, REFERENCE, 90.0)
    assert bench.estimate(Run(TASK, "readout", 0)) == 1.0
    assert [duration(s) for s in (40, 89, 600, 7500)] == ["40 s", "89 s", "10 min", "2 h 05 min"]


def test_a_half_written_line_costs_one_result(bench, tmp_path):
    record(bench, TASK, "tp-ce", 80.0, 81.0)
    path = tmp_path / "accuracy.jsonl"
    path.write_text(path.read_text()[:-20])
    bench.ledger.__init__("accuracy")
    assert bench.result(Run(TASK, "tp-ce", 0))["accuracy"] == 80.0
    assert bench.result(Run(TASK, "tp-ce", 1)) is None


def test_comments_and_docstrings_are_not_code(tmp_path):
    path = tmp_path / "a.py"

    def digest(text):
        path.write_text(text)
        return results.digest_code([path])

    assert digest('"""One."""\nx = 1  # so\n') == digest('"""Two."""\nx = 1\n')
    assert digest("x = 1\n") != digest("x = 2\n")
    assert digest('def f():\n    """One."""\n    return 1\n') != digest('def f():\n    """One."""\n    return 2\n')


def test_a_section_is_replaced_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    report.write_section("bench.one", "first")
    report.write_section("bench.two", "second")
    report.write_section("bench.one", "third")
    text = (tmp_path / "page.md").read_text()
    assert "first" not in text
    assert text.index("third") < text.index("second")


def test_the_matching_micro_batch_is_the_largest_that_stays_within_the_limit():
    tried = []

    def growth(micro):
        tried.append(micro)
        return 10 * micro + 3

    assert memory.largest_micro(60, growth) == (5, 53)
    assert memory.largest_micro(5, growth) is None
    assert memory.largest_micro(10**6, growth) == (memory.BATCH - 1, 313)
    assert len(tried) < 20
