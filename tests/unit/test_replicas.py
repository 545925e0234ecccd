"""Replicas: all of them, or in rounds in which what loses gets no more seeds; kills change no decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledger_runner import Runner, Table, die_again_and_again, kill_before_every_commit, table
from ledger_runner import undisturbed as undisturbed_by
from small_experiment import experiment
from sweep_fixture import write_sweep

from analysis.arms import chosen_replicas
from analysis.records import read_trial_records
from analysis.sweep import Sweep, load_sweep
from hrm.errors import SpecError
from hrm.records import Progress, Report, TrialResult
from orchestrator.changes import check_changes
from orchestrator.experiment import Experiment
from orchestrator.jobs import Job
from orchestrator.ledger import Ledger
from orchestrator.replicas import lost_arms, lost_configurations
from orchestrator.schedulers.wilcoxon import WilcoxonSpec
from orchestrator.store import SweepStore

OPTIMIZER = {"kind": "adamw", "learning_rate": 0.01}
FIRST = 1000
ARMS = {"good": 0.5, "close": 0.51, "bad": 0.9}


class NoisyRunner(Runner):
    """Each arm (by its `optimizer.beta2`) has a mean loss, each seed and arm a noise of its own, shared noise apart."""

    def training(self, ledger: Ledger, job: Job) -> Iterator[Any]:
        spec = job.spec
        seed, base, rate = spec["seed"], spec["optimizer"]["beta2"], spec["optimizer"]["learning_rate"]
        own = np.random.default_rng([seed, int(1e6 * base), int(1e6 * rate)]).normal()
        loss = float(base + 10 * rate + 0.3 * (seed % 5) + 0.02 * own)
        checkpoint = f"attempts/{job.attempt}/step-00000001"
        (ledger.store.trial_directory(job.key) / checkpoint).mkdir(parents=True, exist_ok=True)
        if job.known_reports == 0:
            yield Report(1, Progress(1), 0.0, {"loss": loss}, checkpoint=checkpoint)
        yield TrialResult(Progress(1), 1, checkpoint, {"loss": loss}, {"loss": loss} if job.test else None)


def arm(beta2: float) -> dict[str, Any]:
    return {"patch": {"optimizer": {**OPTIMIZER, "beta2": beta2}}}


def race(folder: Path, replicas: dict[str, Any], arms: dict[str, float], **changes: Any) -> Experiment:
    """Arms by their mean losses."""
    return experiment(
        folder,
        arms={name: arm(mean) for name, mean in arms.items()},
        space={"optimizer.learning_rate": {"low": 1e-4, "high": 1e-3}},
        search={"trials": 2, "pruner": {"kind": "none"}},
        base__num_reports=1,
        replicas=replicas,
        **changes,
    )


def run(asked: Experiment, storage: Path, seed: int = 0) -> Table:
    return undisturbed_by(asked, storage, seed, kind=NoisyRunner)


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """What an undisturbed race of three arms over six seeds found."""
    folder = tmp_path_factory.mktemp("adaptive")
    return run(race(folder, {"seeds": 6, "adaptive": True}, ARMS), folder)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table]:
    """The same of three configurations, and the sweep's directory."""
    folder = tmp_path_factory.mktemp("pruned")
    asked = configurations(folder)
    return folder / "sweeps" / asked.name, run(asked, folder)


def seeds_of(rows: Table) -> dict[str, list[int]]:
    """By source of the replicas, their seeds from 0."""
    found: dict[str, list[int]] = {}
    for row in rows.values():
        if row["source"]:
            found.setdefault(row["source"].split("-search")[0], []).append(row["spec"]["seed"] - FIRST)
    return {name: sorted(seeds) for name, seeds in found.items()}


def reasons(rows: Table) -> dict[str, str]:
    return {key: row["no_more_seeds"] for key, row in rows.items() if row["no_more_seeds"]}


# --- arms ------------------------------------------------------------------------------------------------------------


def test_an_arm_that_has_lost_with_certainty_gets_no_more_seeds_and_the_reason_is_kept(adaptive: Table) -> None:
    rows, seeds = adaptive, seeds_of(adaptive)
    assert seeds["good"] == seeds["close"] == [0, 1, 2, 3, 4, 5]
    assert len(seeds["bad"]) in (3, 4)
    assert seeds["bad"] == list(range(len(seeds["bad"])))
    [(key, reason)] = reasons(rows).items()
    assert key.startswith("bad-replica")
    assert rows[key]["spec"]["seed"] == FIRST + len(seeds["bad"]) - 1
    assert reason.startswith(f"no more seeds after {len(seeds['bad'])}: worse than ")
    assert "Holm-corrected p" in reason


def test_equal_budgets_are_the_default(tmp_path: Path) -> None:
    rows = run(race(tmp_path, {"seeds": 6}, ARMS), tmp_path)
    assert all(seeds == [0, 1, 2, 3, 4, 5] for seeds in seeds_of(rows).values())
    assert not reasons(rows)


def test_maximising_stops_the_arm_with_the_lowest_values(tmp_path: Path) -> None:
    objective = {"metric": "loss", "direction": "maximize"}
    rows = run(race(tmp_path, {"seeds": 5, "adaptive": True}, ARMS, objective=objective), tmp_path)
    assert len(seeds_of(rows)["bad"]) == 5
    assert max(len(seeds_of(rows)[name]) for name in ("good", "close")) < 5


def test_of_equal_arms_one_is_stopped_in_less_than_five_of_a_hundred_races() -> None:
    random = np.random.default_rng(0)
    stopped = 0
    for _ in range(400):
        values = random.normal(size=(3, 7))
        looks = [
            lost_arms({name: dict(enumerate(row[:n])) for name, row in zip("abc", values, strict=True)}, "minimize",
                      "loss", n - 2, 4)
            for n in range(3, 7)
        ]  # fmt: skip
        stopped += any(looks)
    assert 0 < stopped < 0.05 * 400


def test_the_wilcoxon_rule_needs_enough_seeds_and_spares_the_best() -> None:
    spec = WilcoxonSpec(p_threshold=0.1)
    best, worse = {seed: 1.0 + 0.1 * seed for seed in range(6)}, {seed: 1.2 + 0.1 * seed for seed in range(6)}
    for n in range(2, 7):
        values = {name: {s: v for s, v in by.items() if s < n} for name, by in (("best", best), ("worse", worse))}
        lost = lost_configurations(values, "minimize", spec)
        assert set(lost) == ({"worse"} if n >= spec.fewest_seeds else set())
        assert set(lost_configurations(values, "maximize", spec)) == ({"best"} if n >= spec.fewest_seeds else set())
    assert spec.fewest_seeds == 4


def test_the_order_of_finishing_stops_no_other_arm(tmp_path: Path, adaptive: Table) -> None:
    other = run(race(tmp_path, {"seeds": 6, "adaptive": True}, ARMS), tmp_path, seed=1)
    assert seeds_of(other) == seeds_of(adaptive)
    assert sorted(reasons(other).values()) == sorted(reasons(adaptive).values())


def test_arms_are_stopped_task_by_task(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("{kind: red_team, num_train: 16, num_validation: 4, num_test: 4, seed: 1}")
    tasks = [experiment(tmp_path).spec.tasks[0], str(tmp_path / "other.yaml")]
    two = {"good": 0.5, "bad": 0.9}
    rows = run(race(tmp_path, {"seeds": 4, "adaptive": True}, two, tasks=tasks), tmp_path)
    assert {key.split("-bad")[0] for key in reasons(rows)} == {"red_team", "other"}


# --- configurations --------------------------------------------------------------------------------------------------


WILCOXON = {"kind": "wilcoxon", "p_threshold": 0.1}


def configurations(folder: Path, **replicas: Any) -> Experiment:
    return experiment(
        folder,
        arms={"plain": arm(0.5), "control": arm(0.6)},
        space={"optimizer.learning_rate": {"choices": [0.001, 0.002, 0.1]}},
        search={"trials": 3, "pruner": {"kind": "none"}},
        base__num_reports=1,
        replicas={"seeds": 6, "configurations": 3, "pruner": WILCOXON, **replicas},
    )


def test_a_configuration_that_loses_against_another_of_its_arm_gets_no_more_seeds(pruned: tuple[Path, Table]) -> None:
    _, rows = pruned
    by_rate: dict[float, list[int]] = {}
    for row in rows.values():
        if row["source"].startswith("plain"):
            by_rate.setdefault(row["parameters"]["optimizer.learning_rate"], []).append(row["spec"]["seed"] - FIRST)
    assert sorted(by_rate[0.1]) == [0, 1, 2, 3], "four pairs are the fewest that can give p < 0.1"
    assert max(len(seeds) for seeds in by_rate.values()) == 6
    lost = [reason for reason in reasons(rows).values() if "after 4" in reason]
    assert lost
    assert all("Wilcoxon signed-rank" in reason and "worse than" in reason for reason in lost)


def test_the_report_counts_the_configuration_that_won(tmp_path: Path, pruned: tuple[Path, Table]) -> None:
    directory, _ = pruned
    like = load_sweep(write_sweep(tmp_path / "like")).record
    chosen = chosen_replicas(Sweep(directory, like, read_trial_records(directory)), "red_team", "plain")
    assert len(chosen) == 6
    assert {trial.parameters["optimizer.learning_rate"] for trial in chosen} <= {0.001, 0.002}


# --- kills and refusals ----------------------------------------------------------------------------------------------


def test_a_driver_that_dies_between_two_commits_stops_no_other_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = race(tmp_path, {"seeds": 5, "adaptive": True}, {"good": 0.5, "bad": 0.9})

    def same_stops(ledger: Ledger) -> None:
        assert [r.key for r in ledger.records.values() if r.no_more_seeds] == ["bad-replica-0002"]

    assert kill_before_every_commit(asked, tmp_path, monkeypatch, 100, 37, same_stops, NoisyRunner) > 1


def test_a_driver_that_dies_again_and_again_ends_the_race(tmp_path: Path, adaptive: Table) -> None:
    asked = race(tmp_path, {"seeds": 6, "adaptive": True}, ARMS)
    ledger = die_again_and_again(NoisyRunner(asked, tmp_path, seed=3), lambda life: 17 + life % 7)
    assert seeds_of(table(ledger)) == seeds_of(adaptive)
    assert reasons(table(ledger)) == reasons(adaptive)
    assert ledger.is_complete()
    assert len(ledger.records) == ledger.planned_trials


@pytest.mark.parametrize(
    ("replicas", "problem"),
    [
        ({"seeds": 3, "adaptive": True}, "seeds must be > 3 where adaptive is true, got 3"),
        ({"seeds": 6, "pruner": WILCOXON}, "configurations must be > 1 for a pruner of them, got 1"),
        (
            {"seeds": 4, "configurations": 2, "pruner": WILCOXON},
            "seeds must be > 4, or the pruner ends nothing in time",
        ),
        ({"seeds": 4, "configurations": 2, "pruner": {"kind": "median"}}, "kind"),
    ],
)
def test_rules_that_can_end_nothing_are_refused(tmp_path: Path, replicas: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError) as refused:
        race(tmp_path, replicas, ARMS)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("replicas", "search", "change", "refusal"),
    [
        ({"seeds": 5, "adaptive": True}, {"trials": 2}, {"replicas__seeds": 6}, "replicas.seeds: was 5"),
        ({"seeds": 5, "adaptive": True}, {"trials": 2}, {"search__trials": 3}, "search.trials: was 2"),
        ({"seeds": 2}, {"trials": 2, "population": {}}, {"search__trials": 3}, "search.trials: was 2"),
        ({"seeds": 2}, {"trials": 2, "population": {}}, {"replicas__seeds": 3}, ""),
    ],
)
def test_a_sweep_whose_decisions_hang_on_its_plan_does_not_grow(
    tmp_path: Path, replicas: dict[str, Any], search: dict[str, Any], change: dict[str, Any], refusal: str
) -> None:
    space = {"optimizer.learning_rate": {"low": 1e-4, "high": 1e-3}}
    began = experiment(tmp_path, replicas=replicas, search=search, space=space)
    grown = experiment(tmp_path, **{"replicas": replicas, "search": search, "space": space, **change})
    store = SweepStore(tmp_path, began.name)
    store.directory.mkdir(parents=True)
    like = load_sweep(write_sweep(tmp_path / "like")).record
    store.write_sweep(replace(like, experiment=began.spec.model_dump(mode="json"), datasets={}))
    if refusal:
        with pytest.raises(SpecError, match=refusal):
            check_changes(grown.spec, store, {})
    else:
        assert check_changes(grown.spec, store, {})
