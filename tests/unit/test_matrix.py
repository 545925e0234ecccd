"""Arms across tasks: ranks of known values, and intervals of the mean rank that cover the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sweep_fixture import replica, write_sweep, write_trial

from analysis.arms import REPLICAS, ArmResult, Metric
from analysis.intervals import mean_interval
from analysis.matrix import matrix
from analysis.report import build_report
from analysis.sections.matrix import sections
from analysis.sweep import load_sweep


def result(arm: str, task: str, values: list[float]) -> ArmResult:
    mean = mean_interval(values)
    seeds = {str(seed): value for seed, value in enumerate(values)}
    return ArmResult(
        arm, task, "hrm", Metric("loss", "test", mean.mean, mean.low, mean.high, mean.n, REPLICAS, "", seeds)
    )


def test_ranks_are_by_the_mean_and_equals_share_theirs() -> None:
    arms = [result("a", "x", [0.1, 0.2]), result("b", "x", [0.3, 0.4]), result("c", "x", [0.4, 0.3])]
    arms += [result("a", "y", [0.9, 0.8]), result("b", "y", [0.1, 0.2]), result("c", "y", [0.5, 0.6])]
    ranks = {
        row.arm: ([place.rank for place in row.places.values()], row.mean_rank)
        for row in matrix(arms, ["x", "y"], "minimize")
    }
    assert ranks == {"a": ([1.0, 3.0], 2.0), "b": ([2.5, 1.0], 1.75), "c": ([2.5, 2.0], 2.25)}
    assert [row.arm for row in matrix(arms, ["x", "y"], "maximize")] == ["c", "a", "b"]


def test_an_arm_that_one_task_lacks_keeps_its_values_and_gets_no_rank() -> None:
    arms = [result(arm, task, [0.1 + level, 0.2 + level]) for task in "xy" for level, arm in enumerate("ab")]
    rows = matrix([*arms, result("c", "x", [0.0, 0.01])], ["x", "y"], "minimize")
    assert [(row.arm, row.mean_rank) for row in rows] == [("a", 1.0), ("b", 2.0), ("c", None)]
    assert rows[2].places["x"].value.mean == pytest.approx(0.005)
    assert rows[2].places["x"].rank is None


def test_one_seed_and_equal_seeds_give_ranks_without_intervals() -> None:
    for values in ([0.1], [0.1, 0.1]):
        arms = [
            result(arm, task, [value + level for value in values]) for task in "xy" for level, arm in enumerate("ab")
        ]
        row = matrix(arms, ["x", "y"], "minimize")[0]
        assert (row.arm, row.mean_rank, row.low, row.best_chance) == ("a", 1.0, None, None)


@pytest.mark.parametrize("seeds", [3, 5, 10, 30])
def test_the_interval_of_a_mean_rank_covers_the_rank_of_the_true_means(
    seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.matrix.DRAWS", 1000)
    random, hits, repetitions = np.random.default_rng(seeds), [], 40
    for _ in range(repetitions):
        truth = random.normal(size=(3, 4))  # tasks, arms
        values = truth[..., None] + random.normal(size=(3, 4, seeds))
        arms = [result(f"a{a}", f"t{t}", list(values[t, a])) for t in range(3) for a in range(4)]
        true_ranks = (truth.argsort(axis=1).argsort(axis=1) + 1).mean(axis=0)
        for row in matrix(arms, ["t0", "t1", "t2"], "minimize"):
            assert row.low is not None
            assert row.high is not None
            hits.append(row.low <= true_ranks[int(row.arm[1:])] <= row.high)
    assert np.mean(hits) > 0.92


def test_a_sweep_over_tasks_has_the_matrix_and_one_over_one_task_has_none(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", search={}, tasks=("text", "maze"))
    for seed in range(3):
        write_trial(directory, replica("maze", "hrm", seed, 0.01 + 0.001 * seed))
    sweep = load_sweep(directory)
    report = build_report(sweep)
    assert [row.arm for row in report.matrix] == ["transformer", "hrm", "lstm"]
    assert report.matrix[0].mean_rank == 1.5
    assert sections(report, sweep)[0].title == "Across tasks"
    assert build_report(load_sweep(write_sweep(tmp_path / "one", search={}))).matrix == []
