"""What a search asks for: no configuration twice, given points first, several objectives; kills change nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger_runner import Runner, kill_before_every_commit, report_of, table, undisturbed
from optuna.trial import TrialState
from small_experiment import TRANSFORMER, experiment

from hrm.data.dataset import build_dataset
from hrm.errors import SpecError
from hrm.records import Progress, TrialResult
from orchestrator.experiment import Arm, SearchSpec
from orchestrator.ledger import Ledger
from orchestrator.objectives import Objectives, SearchObjectiveSpec
from orchestrator.proposals import propose
from orchestrator.search.grid import GridSpec
from orchestrator.space import Dimension
from orchestrator.studies import SearchStudy, open_journal

RATE = "optimizer.learning_rate"
NARROW: dict[str, Any] = {"batch_size": {"choices": [2, 4]}, "clip_norm": {"low": 0.5, "high": 1.5, "step": 0.5}}
"""Six configurations."""
ONE: dict[str, Any] = {
    "arms": {"plain": {}},
    "search__generation": 4,
    "base__num_reports": 2,
    "search__pruner": {"kind": "none"},
    "replicas__seeds": 1,
}
TWO = [{"metric": "loss"}, {"metric": "flops"}]


def parameters(ledger: Ledger, phase: str = "search") -> list[dict[str, Any]]:
    return [r.parameters for r in ledger.records.values() if r.phase == phase]


# --- never twice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["random", "grid", "tpe", "qmc", "nsga2"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_space_is_run_through_once_and_the_search_ends_with_it(
    tmp_path: Path, sampler: str, deterministic: bool
) -> None:
    search = {"search__trials": 20, "search__sampler": {"kind": sampler}, "search__deterministic": deterministic}
    runner = Runner(experiment(tmp_path, **ONE, **search, space=NARROW), tmp_path)
    ledger = runner.open()
    assert ledger.planned_trials == 20 + 1
    runner.drive(ledger)
    assert ledger.is_complete()
    assert ledger.plan.exhausted == {"red_team/plain/search"}
    assert ledger.planned_trials == len(ledger.records) == 6 + 1
    assert len({json.dumps(each, sort_keys=True) for each in parameters(ledger)}) == 6
    assert len({r.trial_id for r in ledger.records.values()}) == 7


def test_a_sampler_that_is_sure_is_given_another_configuration(tmp_path: Path) -> None:
    """The best point is a corner, which a Gaussian process proposes again and again."""
    study = SearchStudy(open_journal(tmp_path / "j"), "s", SearchSpec(sampler={"kind": "gp"}), ["minimize"])
    arm = Arm("plain", "", experiment(tmp_path).arms[0].template, {"batch_size": Dimension(low=1, high=64)})
    for _ in range(14):
        number = propose(study, arm, SearchSpec(sampler={"kind": "gp"}), (0, 0))
        assert number is not None
        study.tell(number, TrialState.COMPLETE, [float(study.trial(number).params["batch_size"])])
    sizes = [t.params["batch_size"] for t in study.trials()]
    assert len(set(sizes)) == 14
    assert min(sizes) == 1


def test_kills_do_not_make_a_configuration_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = experiment(tmp_path, **ONE, search__trials=9, search__sampler={"kind": "random"}, space=NARROW)

    def check(ledger: Ledger) -> None:
        assert len({json.dumps(each, sort_keys=True) for each in parameters(ledger)}) == 6

    assert kill_before_every_commit(asked, tmp_path, monkeypatch, first=2, stride=9, check=check) > 10


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["grid", "qmc", "cma_es", "nsga2", "gp"])
def test_no_kill_changes_what_a_sampler_proposes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    space = {RATE: {"low": 0.01, "high": 0.1, "step": 0.01}, "batch_size": {"choices": [2, 4]}}
    asked = experiment(tmp_path, **ONE, search__trials=8, search__sampler={"kind": sampler}, space=space)
    assert kill_before_every_commit(asked, tmp_path, monkeypatch, first=1, stride=7) > 10


def test_equal_trials_of_different_parameters_are_one_configuration(tmp_path: Path) -> None:
    """Two dimensions that the trial does not tell apart: 2 and 2.0 are one number."""
    study = SearchStudy(open_journal(tmp_path / "j"), "s", SearchSpec(sampler=GridSpec()), ["minimize"])
    arm = Arm("plain", "", experiment(tmp_path).arms[0].template, {"clip_norm": Dimension(choices=[2, 2.0, 3])})
    numbers = [propose(study, arm, SearchSpec(sampler=GridSpec()), (0, 0)) for _ in range(3)]
    assert numbers == [0, 1, None]


# --- given points ----------------------------------------------------------------------------------------------------


def test_given_points_come_first_and_what_they_leave_out_is_drawn(tmp_path: Path) -> None:
    shared, own = {"batch_size": 8}, {RATE: 0.02, "batch_size": 4}
    asked = experiment(
        tmp_path, **{**ONE, "arms": {"plain": {"points": [own]}, "control": {"patch": {"model": TRANSFORMER}}}},
        search__points=[shared, shared], search__trials=4,
    )  # fmt: skip
    ledger = Runner(asked, tmp_path).open()
    for _ in range(8):
        ledger.next_job()
    by_arm = {arm: [r.parameters for r in ledger.records.values() if r.arm == arm] for arm in ("plain", "control")}
    assert by_arm["plain"][0] == own
    assert by_arm["plain"][1]["batch_size"] == 8
    assert 1e-4 <= by_arm["plain"][1][RATE] <= 1e-1
    assert by_arm["control"][0]["batch_size"] == 8
    assert [len(found) for found in by_arm.values()] == [4, 4]


def test_points_that_are_given_later_are_tried_next_and_known_ones_are_not(tmp_path: Path) -> None:
    first = {RATE: 0.02, "batch_size": 4}
    asked = experiment(tmp_path, **ONE, search__trials=4, search__points=[first])
    Runner(asked, tmp_path).drive(ledger := Runner(asked, tmp_path).open())
    ledger.store.close()
    then = {RATE: 0.03, "batch_size": 4}
    ledger = Runner(experiment(tmp_path, **ONE, search__trials=8, search__points=[first, then]), tmp_path).open()
    ledger.next_job()
    assert ledger.records["plain-search-0004"].parameters == then
    assert first not in [r.parameters for r in ledger.records.values() if r.number > 4]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search__points": [{"clip_norm": 1.0}]}, "search.points[0].clip_norm: is not searched here. The space has"),
        ({"search__points": [{RATE: 3.0}]}, f"search.points[0].{RATE}: must be between 0.0001 and 0.1, got 3.0"),
        ({"search__points": [{"batch_size": 3}]}, "search.points[0].batch_size: must be one of 2, 4, 8, got 3"),
        ({"arms": {"plain": {"points": [{"batch_size": True}]}}}, "arms.plain.points[0].batch_size: must be one of"),
    ],
)
def test_a_point_outside_the_space_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        experiment(tmp_path, **changes)
    assert said in str(error.value)


def test_a_point_whose_values_do_not_go_together_is_refused(tmp_path: Path) -> None:
    space = {"schedule.warmup_steps": {"choices": [0, 3]}, "schedule.warmup_fraction": {"choices": [0.0, 0.5]}}
    points = [{"schedule.warmup_steps": 3, "schedule.warmup_fraction": 0.5}]
    with pytest.raises(SpecError, match=r"with the point .* must not both be given"):
        experiment(tmp_path, space=space, search__points=points)


# --- several objectives ----------------------------------------------------------------------------------------------


def several(folder: Path, **changes: Any) -> Any:
    search = {"search__objectives": TWO, "search__sampler": {"kind": "nsga2", "population": 4}, "search__trials": 12}
    return experiment(folder, **{**ONE, **search, **changes})


def front_of(ledger: Ledger) -> list[str]:
    """The keys of the front, by the first objective, found by brute force."""
    done = {r.key: r.values for r in ledger.records.values() if r.phase == "search" and r.state == "completed"}
    front = [
        key
        for key, mine in done.items()
        if not any(all(a <= b for a, b in zip(v, mine, strict=True)) and v != mine for v in done.values())
    ]
    return sorted(front, key=lambda key: done[key])


def test_replicas_take_the_first_of_the_pareto_front(tmp_path: Path) -> None:
    runner = Runner(several(tmp_path), tmp_path)
    ledger = runner.open()
    runner.drive(ledger)
    front = front_of(ledger)
    assert len(front) > 1, "the loss and the FLOPs of the runner disagree"
    sources = [r.source for r in ledger.records.values() if r.phase == "replica"]
    assert sources == front[:1]
    assert all(len(r.values) == (2 if r.phase == "search" else 1) for r in ledger.records.values())
    kept = {
        r.key for r in ledger.records.values() if list(ledger.store.trial_directory(r.key).glob("attempts/*/step-*"))
    }
    assert kept == {*front, *(r.key for r in ledger.records.values() if r.phase == "replica")}


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_the_same_seed_gives_the_same_front_whatever_finishes_first(tmp_path: Path, sampler: str) -> None:
    asked = several(tmp_path, search__sampler={"kind": sampler})
    assert undisturbed(asked, tmp_path / "a", 0) == undisturbed(asked, tmp_path / "b", 3)


def test_kills_do_not_change_a_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = several(tmp_path, search__trials=8)
    assert kill_before_every_commit(asked, tmp_path, monkeypatch, first=4, stride=17) > 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search__objectives": TWO}, "search.pruner: must be none with several objectives, got successive_halving"),
        ({"search__objectives": TWO[::-1]}, "search.objectives: must begin with the objective, minimize loss"),
        ({"search__objectives": TWO[:1]}, "search.objectives: must be several different metrics, got loss"),
        ({"search__objectives": [*TWO, {"metric": "speed"}]}, "search.objectives[2].metric: must be one of loss,"),
        ({"search__objectives": TWO, "search__sampler": {"kind": "cma_es"}}, "cma_es takes one objective, got 2"),
        (
            {"search__sampler": {"kind": "grid"}},
            f"search.sampler: in arm plain: a grid has a number of values of {RATE}",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        experiment(tmp_path, **changes)
    assert said in str(error.value)


def test_costs_are_objectives(tmp_path: Path) -> None:
    asked = experiment(tmp_path)
    trial = asked.arms[0].trial({}, 0)
    task = build_dataset(trial.task, tmp_path).task
    spec = trial.model_copy(update={"task": task}).model_dump(mode="json")
    metrics = ["loss", "parameters", "flops_per_token", "flops", "seconds"]
    objectives = Objectives(asked.spec.objective, [SearchObjectiveSpec(metric=m) for m in metrics], tmp_path)
    result = TrialResult(Progress(4, flops=7e9, seconds=3.5), 4, "", {"loss": 0.5}, None)
    loss, size, per_token, flops, seconds = objectives.values(spec, result)
    assert (loss, flops, seconds) == (0.5, 7e9, 3.5)
    assert size > 1000
    assert per_token > size, "a segment's forward and backward pass touch every weight"


# --- values that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"loss": math.nan}, "not_finite: the validation loss is nan"),
        ({"loss": -math.inf}, "not_finite: the validation loss is -inf"),
        ({"accuracy": 1.0}, "no_metric: the trial did not measure loss"),
    ],
)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_value_that_is_none_fails_its_trial_with_the_reason(
    tmp_path: Path, metrics: dict[str, float], reason: str, at_the_end: bool
) -> None:
    runner = Runner(experiment(tmp_path, **ONE, search__trials=4), tmp_path)
    ledger = runner.open()
    job = ledger.next_job()
    assert job is not None
    if at_the_end:
        ledger.on_completed(job.key, TrialResult(Progress(), 1, "", metrics, None))
    else:
        assert ledger.on_report(job.key, replace(report_of(job.spec, 1), validation=metrics)), "it is to leave"
        ledger.on_pruned(job.key)
    assert (ledger.records[job.key].state, ledger.records[job.key].reason) == ("failed", reason)
    runner.drive(ledger)
    assert ledger.is_complete()
    assert ledger.lines[0].search.trial(0).values is None
    assert table(ledger)[job.key]["reports"] == []
