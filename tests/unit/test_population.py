"""Population based training, with a runner that trains nothing but keeps states: kills change no decision."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_runner import Life, Runner, Table, kill_after_calls, kill_before_every_commit
from ledger_runner import undisturbed as undisturbed_by
from small_experiment import experiment

from hrm.checkpoint import checkpoint_path, checkpoints_of
from hrm.context import LocalContext
from hrm.errors import SpecError
from hrm.legs import Leg
from hrm.records import Progress, Report, TrialResult
from hrm.spec import parse_spec
from hrm.train import LegEnded, train
from hrm.trial import TrialSpec
from orchestrator.experiment import Experiment
from orchestrator.failures import Failure
from orchestrator.jobs import Job
from orchestrator.ledger import Ledger
from orchestrator.population import FACTORS, explore
from orchestrator.space import Dimension
from orchestrator.store import SweepStore
from orchestrator.validation import with_data

RATE = "optimizer.learning_rate"
CHANGES: dict[str, Any] = {
    "arms": {"plain": {}},
    "space": {RATE: {"low": 1e-4, "high": 1e-1, "log": True}, "clip_norm": {"choices": [0.5, 1.0, 2.0]}},
    "search": {"trials": 5, "population": {"quantile_fraction": 0.4}},
    "base__num_reports": 4,
    "replicas__seeds": 1,
}
ARRIVED = "arrived"
LOST = Failure("infrastructure", "worker_lost: the trial's process died")
Event = Report | TrialResult | str


def population(folder: Path, **changes: Any) -> Experiment:
    return experiment(folder, **{**CHANGES, **changes})


class PopulationRunner(Runner):
    """Trains nothing, but a training's state is a file in its checkpoint, and a leg begins where the ledger says."""

    def _advance(self, ledger: Ledger, running: dict[str, Iterator[Any]], life: Life) -> None:
        key = self.random.choice(sorted(running))
        event = next(running[key])
        life.commit()
        if isinstance(event, Report):
            assert not ledger.on_report(key, event), "a member is never pruned"
            return
        del running[key]
        if isinstance(event, TrialResult):
            ledger.on_completed(key, event)
            self.completed.add(key)
        elif event == ARRIVED:
            ledger.on_arrived(key)

    def training(self, ledger: Ledger, job: Job) -> Iterator[Any]:
        """As hrm.train does with its state: `losses` of all reports of these weights, `rates` that they were made at,
        and the best of this trial's own."""
        leg, spec = Leg(**job.leg), parse_spec(TrialSpec, job.spec, job.key)
        directory = ledger.store.trial_directory(job.key)
        state = self._begin(directory, leg, job.attempt)
        for index in range(len(state["losses"]), spec.num_reports + 1):
            if index:
                if index > job.known_reports:
                    yield Report(index, Progress(index), 0.0, {"loss": state["losses"][-1]}, checkpoint=state["newest"])
                if index == leg.until_report:
                    yield ARRIVED
                    return
            if index < spec.num_reports:
                state = self._step(directory, state, spec, job.attempt)
        best = state["best"]
        test = {"loss": best["loss"] + 0.5} if job.test else None
        yield TrialResult(Progress(spec.num_reports), 0, best["checkpoint"], {"loss": best["loss"]}, test)

    def _begin(self, directory: Path, leg: Leg, attempt: int) -> dict[str, Any]:
        own = checkpoints_of(directory, attempt, leg.first_attempt)
        if own or not leg.source:
            fresh = {"losses": [], "rates": [], "best": None, "newest": ""}
            return json.loads((own[-1] / "state.json").read_text()) if own else fresh
        source = checkpoints_of(directory.parent / leg.source, leg.source_attempts[1], leg.source_attempts[0])[-1]
        state = json.loads((source / "state.json").read_text())
        assert len(state["losses"]) == leg.after_report, "another state than the one that was chosen"
        return self._written(directory, state, attempt, best=state["losses"][-1])

    def _step(self, directory: Path, state: dict[str, Any], spec: TrialSpec, attempt: int) -> dict[str, Any]:
        rate = spec.at(len(state["losses"])).optimizer.learning_rate
        loss = (state["losses"] or [10.0])[-1] * (0.6 + min(0.6, 0.2 * (math.log10(rate) + 2.5) ** 2))
        loss += 0.001 * (spec.seed % 7)
        state = {**state, "losses": [*state["losses"], loss], "rates": [*state["rates"], rate]}
        best = state["best"]
        return self._written(directory, state, attempt, best=loss if not best or loss < best["loss"] else None)

    def _written(self, directory: Path, state: dict[str, Any], attempt: int, best: float | None) -> dict[str, Any]:
        path = checkpoint_path(directory, attempt, len(state["losses"]))
        name = str(path.relative_to(directory))
        state = {**state, "newest": name}
        if best is not None:
            state["best"] = {"loss": best, "checkpoint": name}
        path.mkdir(parents=True, exist_ok=True)
        (path / "state.json").write_text(json.dumps(state))
        return state


def undisturbed(asked: Experiment, storage: Path, seed: int = 0) -> Table:
    return undisturbed_by(asked, storage, seed, kind=PopulationRunner)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """What an undisturbed population found."""
    folder = tmp_path_factory.mktemp("population")
    return undisturbed(population(folder), folder)


# --- what a population does ------------------------------------------------------------------------------------------


def test_the_worst_take_over_states_of_the_best_with_other_parameters(rows: Table) -> None:
    members = {key: row for key, row in rows.items() if "search" in key}
    assert len(members) == 5
    assert all([index for index, _ in row["reports"]] == [1, 2, 3, 4] for row in members.values())
    for report in (1, 2, 3):
        order = sorted(members, key=lambda key: members[key]["reports"][report - 1][1]["loss"])
        taken = {k: e for k, row in members.items() for e in row["lineage"] if e["report"] == report}
        assert set(taken) == set(order[-2:]), "the worst two of five, at every decision"
        assert {entry["from"] for entry in taken.values()} <= set(order[:2])
        for key, entry in taken.items():
            assert entry["value"] == dict(members[entry["from"]]["reports"])[report]["loss"]
            changes = {c["report"]: c["parameters"] for c in members[key]["spec"]["changes"] if c["report"] == report}
            assert changes.get(report, {}) == entry["parameters"] or any(
                later["report"] > report for later in members[key]["lineage"]
            )


def test_a_member_goes_on_from_the_state_that_it_took_over(rows: Table) -> None:
    """Its next loss follows from the source's, at its own new rate."""
    checked = 0
    for row in rows.values():
        losses = {index: validation["loss"] for index, validation in row["reports"]}
        for entry in row["lineage"]:
            later = [e for e in row["lineage"] if e["report"] > entry["report"]]
            if later:
                continue
            rate = parse_spec(TrialSpec, row["spec"], "x").at(entry["report"]).optimizer.learning_rate
            expected = entry["value"] * (0.6 + min(0.6, 0.2 * (math.log10(rate) + 2.5) ** 2))
            assert losses[entry["report"] + 1] == pytest.approx(expected, abs=0.01)
            checked += 1
    assert checked >= 2


def test_the_objective_of_a_member_is_that_of_its_own_weights(rows: Table) -> None:
    for row in rows.values():
        assert row["objective"] == row["result"]["best_validation"]["loss"]


def test_a_replica_repeats_the_schedule_of_parameters_of_the_winner(rows: Table) -> None:
    members = {key: row for key, row in rows.items() if "search" in key}
    best = min(members, key=lambda key: members[key]["objective"])
    replica = rows["plain-replica-0000"]
    assert replica["source"] == best
    assert members[best]["lineage"], "the best of this population has taken over a state"
    assert replica["spec"]["changes"] == members[best]["spec"]["changes"]
    assert {**replica["spec"], "seed": 0} == members[best]["spec"]
    assert replica["parameters"][RATE] == replica["spec"]["optimizer"]["learning_rate"]
    assert replica["lineage"] == []
    assert replica["objective"] == pytest.approx(members[best]["objective"], abs=0.05)


def test_decisions_are_made_every_so_many_reports(tmp_path: Path) -> None:
    search = {"trials": 4, "population": {"every": 2}}
    rows = undisturbed(population(tmp_path, search=search), tmp_path)
    assert {e["report"] for row in rows.values() for e in row["lineage"]} == {2}


def test_another_seed_decides_otherwise(tmp_path: Path, rows: Table) -> None:
    other = undisturbed(population(tmp_path, search={**CHANGES["search"], "seed": 1}, base__num_reports=2), tmp_path)
    first = [(key, row["lineage"][:1]) for key, row in sorted(rows.items()) if row["lineage"]]
    assert first != [(key, row["lineage"][:1]) for key, row in sorted(other.items()) if row["lineage"]]
    assert rows["plain-search-0000"]["parameters"] != other["plain-search-0000"]["parameters"]


# --- whatever happens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_gives_the_same_population_whatever_finishes_first(
    tmp_path: Path, rows: Table, seed: int
) -> None:
    assert undisturbed(population(tmp_path), tmp_path, seed) == rows


def test_a_driver_that_dies_after_any_call_changes_no_decision(tmp_path: Path) -> None:
    asked = population(tmp_path, base__num_reports=3, search={"trials": 4, "population": {}})
    assert kill_after_calls(asked, tmp_path, 17, PopulationRunner) > 40


def kill_before_commits(folder: Path, monkeypatch: pytest.MonkeyPatch, stride: int) -> int:
    asked = population(folder, base__num_reports=3, search={"trials": 4, "population": {}})
    return kill_before_every_commit(
        asked, folder, monkeypatch, first=3, stride=stride, check=only_the_best_has_checkpoints, kind=PopulationRunner
    )


def only_the_best_has_checkpoints(ledger: Ledger) -> None:
    best = min((r for r in ledger.records.values() if r.phase == "search"), key=lambda r: r.objective)
    for record in ledger.records.values():
        kept = checkpoints_of(ledger.store.trial_directory(record.key), 99)
        assert len(kept) == (record.phase == "replica" or record.key == best.key), record.key


def test_a_driver_that_dies_between_two_commits_changes_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kill_before_commits(tmp_path, monkeypatch, stride=71) > 2


@pytest.mark.slow
def test_a_driver_that_dies_before_any_commit_changes_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kill_before_commits(tmp_path, monkeypatch, stride=1) > 100


def test_a_member_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    runner = PopulationRunner(population(tmp_path), tmp_path)
    ledger = runner.open()
    jobs = [ledger.next_job() for _ in range(5)]
    for job in jobs[:4]:
        ledger.on_report(job.key, next(runner.training(ledger, job)))
        ledger.on_arrived(job.key)
    assert ledger.next_job() is None, "four wait for the fifth"
    assert not ledger.is_finished()
    ledger.on_failed(jobs[4].key, Failure("trial", "not_finite: the loss is nan"))
    runner.drive(ledger)
    assert ledger.records[jobs[4].key].state == "failed"
    assert all(ledger.records[job.key].state == "completed" for job in jobs[:4])
    assert any(ledger.records[job.key].lineage for job in jobs[:4])


def test_a_lost_worker_begins_its_leg_again_from_the_same_state(tmp_path: Path) -> None:
    runner = PopulationRunner(population(tmp_path), tmp_path)
    ledger = runner.open()
    jobs = [ledger.next_job() for _ in range(5)]
    for job in jobs:
        ledger.on_report(job.key, next(runner.training(ledger, job)))
        ledger.on_arrived(job.key)
    second = {job.key: job for job in iter(ledger.next_job, None)}
    taker = next(job for job in second.values() if job.leg["source"])
    ledger.on_failed(taker.key, LOST)
    again = ledger.next_job()
    assert again.key == taker.key
    assert (again.leg, again.attempt) == (taker.leg, taker.attempt + 1)
    assert second[taker.leg["source"]].leg["kept_attempt"] == 1


# --- the rule --------------------------------------------------------------------------------------------------------


SPACE = {
    RATE: Dimension(low=1e-4, high=1e-1, log=True),
    "schedule.warmup_steps": Dimension(low=0, high=100),
    "model.dropout": Dimension(low=0.0, high=0.5, step=0.1),
    "clip_norm": Dimension(choices=[0.5, 1.0, 2.0]),
}
PRESENT = {RATE: 0.01, "schedule.warmup_steps": 50, "model.dropout": 0.3, "clip_norm": 0.5}


def test_parameters_are_perturbed_as_ray_tune_does(tmp_path: Path) -> None:
    explored = [explore(PRESENT, SPACE, 0.0, seed) for seed in range(40)]
    assert {e[RATE] for e in explored} == {0.01 * factor for factor in FACTORS}
    assert {e["schedule.warmup_steps"] for e in explored} == {40, 60}
    assert {e["clip_norm"] for e in explored} == {0.5, 1.0}
    assert {round(e["model.dropout"], 9) for e in explored} == {0.2, 0.4}


def test_a_resampled_parameter_is_drawn_from_its_whole_range() -> None:
    explored = [explore(PRESENT, SPACE, 1.0, seed) for seed in range(200)]
    rates = sorted(e[RATE] for e in explored)
    assert 1e-4 <= rates[0] < 3e-4 < 3e-2 < rates[-1] <= 1e-1
    assert 0.3 < sum(rate < 10**-2.5 for rate in rates) / 200 < 0.7, "log-uniform"
    assert {e["clip_norm"] for e in explored} == {0.5, 1.0, 2.0}
    assert all(isinstance(e["schedule.warmup_steps"], int) for e in explored)


def test_what_is_perturbed_stays_in_its_range_and_nothing_else_is_drawn() -> None:
    at_the_ends = [explore({**PRESENT, RATE: 0.1, "model.dropout": 0.5}, SPACE, 0.0, seed) for seed in range(20)]
    assert max(e[RATE] for e in at_the_ends) == 0.1
    assert max(e["model.dropout"] for e in at_the_ends) == 0.5
    random.seed(7)
    expected = random.random()
    random.seed(7)
    assert explore(PRESENT, SPACE, 0.5, 3) == explore(PRESENT, SPACE, 0.5, 3)
    assert random.random() == expected


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"space": {"batch_size": {"choices": [2, 4]}}}, "space.batch_size: cannot change in mid-training: the rows"),
        ({"space": {"model.hidden_size": {"choices": [16, 32]}}}, "the weights' shapes, or what they mean, hang on it"),
        ({"arms": {"plain": {"space": {"ema": {"choices": [0.9]}}}}}, "arms.plain.space.ema: cannot change"),
        ({"search": {"trials": 1, "population": {}}}, "search.trials: must be >= 2 for a population, got 1"),
        ({"search": {"population": {"every": 4}}}, "search.population.every: must be < num_reports, which is 4"),
        ({"search": {"population": {}, "pruner": {"kind": "median"}}}, "search.pruner: must be left out"),
        ({"space": {}}, "has an empty space"),
        ({"base__changes": [{"report": 1, "parameters": {"clip_norm": 1.0}}]}, "where a population finds them"),
    ],
)
def test_a_search_that_cannot_be_a_populations_is_refused(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SpecError) as refused:
        population(tmp_path, **changes)
    assert problem in str(refused.value)


# --- real trainings, in this process ---------------------------------------------------------------------------------


def really_train(asked: Experiment, storage: Path) -> Ledger:
    """Every job of the ledger by hrm.train, one after another; no Ray."""
    store = SweepStore(storage, asked.name)
    store.open()
    ledger = Ledger(with_data(asked, store.data_root), store)
    while job := ledger.next_job():
        context = LocalContext(store.trial_directory(job.key), store.data_root, attempt=job.attempt)
        trial, leg = parse_spec(TrialSpec, job.spec, job.key), Leg(**job.leg)
        training = train(trial, context, known_reports=job.known_reports, test=job.test, leg=leg)
        try:
            while True:
                ledger.on_report(job.key, next(training))
        except LegEnded:
            ledger.on_arrived(job.key)
        except StopIteration as end:
            ledger.on_completed(job.key, end.value)
    assert ledger.is_complete()
    return ledger


def test_a_member_with_an_absurd_learning_rate_goes_on_from_a_better_members_weights(tmp_path: Path) -> None:
    points = [{RATE: rate} for rate in (1.0, 0.01, 0.003)]
    search = {"trials": 3, "points": points, "population": {"resample_probability": 0.0}}
    space = {RATE: {"low": 1e-4, "high": 1.0, "log": True}}
    asked = population(tmp_path, search=search, space=space, budget={"axis": "steps", "amount": 12})
    ledger = really_train(asked, tmp_path)
    [first, *_] = ledger.records["plain-search-0000"].lineage
    assert (first["report"], first["from"] != "plain-search-0000") == (1, True)
    mine, theirs = ledger.store.reports("plain-search-0000"), ledger.store.reports(first["from"])
    assert mine[0].validation["loss"] > theirs[0].validation["loss"]
    # The same weights, rows and draws: the next step's loss is the source's to the last bit; the update that follows
    # it is another, since the rate is.
    assert mine[1].steps[0].metrics["loss"] == theirs[1].steps[0].metrics["loss"]
    assert mine[1].steps[0].metrics["learning_rate"] == first["parameters"][RATE]
    assert mine[1].steps[1].metrics["loss"] != theirs[1].steps[1].metrics["loss"]
    assert mine[1].validation["loss"] < mine[0].validation["loss"]
    replica = ledger.records["plain-replica-0000"]
    assert replica.spec["changes"] == ledger.records[replica.source].spec["changes"]
    assert replica.result is not None
