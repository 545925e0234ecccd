"""The rules of a sweep, with a runner that trains nothing: whatever dies, nothing is lost and nothing runs twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ledger_runner import (
    Killed,
    Runner,
    die_again_and_again,
    kill_after_calls,
    kill_before_every_commit,
    report_of,
    table,
    undisturbed,
)
from small_experiment import TRANSFORMER, experiment

from hrm.records import Progress, Report, TrialResult
from orchestrator.failures import Failure, SameFailureError
from orchestrator.ledger import Ledger
from orchestrator.store import SweepStore

LOST = Failure("infrastructure", "worker_lost: the trial's process died")
ONE_ARM = {"arms": {"plain": {}}, "search__trials": 4, "search__generation": 2, "base__num_reports": 2}


# --- a sweep that nobody disturbs ------------------------------------------------------------------------------------


def test_every_planned_trial_runs_once_and_the_best_configuration_is_repeated(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path), tmp_path)
    ledger = runner.open()
    runner.drive(ledger)
    assert ledger.is_complete()
    assert len(ledger.records) == ledger.planned_trials == 2 * (6 + 2)
    assert sorted(job.key for job in runner.jobs) == sorted(ledger.records)
    for arm in ("plain", "control"):
        searched = [r for r in ledger.records.values() if r.arm == arm and r.phase == "search"]
        best = min((r for r in searched if r.state == "completed"), key=lambda r: r.result["best_validation"]["loss"])
        replicas = [r for r in ledger.records.values() if r.arm == arm and r.phase == "replica"]
        assert [r.spec["seed"] for r in replicas] == [1000, 1001]
        assert all(r.source == best.key and r.parameters == best.parameters for r in replicas)
        assert {r.spec["model"]["kind"] for r in replicas} == {best.spec["model"]["kind"]}
        assert all(r.result["test"] and not best.result["test"] for r in replicas)


def test_a_bad_trial_is_pruned_with_its_reason_and_never_a_replica(tmp_path: Path) -> None:
    found = undisturbed(experiment(tmp_path), tmp_path)
    pruned = {key: row for key, row in found.items() if row["state"] == "pruned"}
    assert pruned
    assert not any("replica" in key for key in pruned)
    assert all(r["reason"].startswith(f"pruned at report {len(r['reports'])} of 4: worse") for r in pruned.values())
    best = min(row["objective"] for row in found.values())
    assert all(row["objective"] > best for row in pruned.values())


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_same_seed_gives_the_same_sweep_whatever_finishes_first(tmp_path: Path, seed: int) -> None:
    asked = experiment(tmp_path)
    runs = [undisturbed(asked, tmp_path / str(order), order) for order in (0, seed)]
    assert runs[0] == runs[1]


def test_another_seed_is_another_search(tmp_path: Path) -> None:
    one = undisturbed(experiment(tmp_path), tmp_path / "one")
    two = undisturbed(experiment(tmp_path, search__seed=1), tmp_path / "two")
    assert one["plain-search-0000"]["parameters"] != two["plain-search-0000"]["parameters"]
    assert len({json.dumps(row["parameters"]) for key, row in one.items() if "plain-search" in key}) == 6


def test_arms_are_searched_in_turn_and_several_tasks_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("{kind: red_team, num_train: 16, num_validation: 4, num_test: 4, seed: 1}")
    both = [experiment(tmp_path).spec.tasks[0], str(tmp_path / "other.yaml")]
    asked = experiment(tmp_path, tasks=both, search__trials=2, search__generation=1, replicas__seeds=0)
    found = undisturbed(asked, tmp_path)
    assert sorted(found) == sorted(
        f"{t}-{a}-search-000{n}" for t in ("red_team", "other") for a in ("plain", "control") for n in (0, 1)
    )


def test_without_replicas_the_sweep_ends_with_the_search(tmp_path: Path) -> None:
    found = undisturbed(experiment(tmp_path, replicas__seeds=0), tmp_path)
    assert len(found) == 12


def test_maximising_takes_the_largest_value(tmp_path: Path) -> None:
    found = undisturbed(experiment(tmp_path, objective={"metric": "loss", "direction": "maximize"}), tmp_path)
    done = {k: r for k, r in found.items() if "plain-search" in k and r["state"] == "completed"}
    assert found["plain-replica-0000"]["source"] == max(done, key=lambda k: done[k]["objective"])


# --- kills -----------------------------------------------------------------------------------------------------------


def test_a_driver_that_dies_after_any_call_costs_nothing(tmp_path: Path) -> None:
    assert kill_after_calls(experiment(tmp_path, **ONE_ARM), tmp_path, 1) > 20


def killed(folder: Path, monkeypatch: pytest.MonkeyPatch, first: int, stride: int) -> int:
    asked, check = experiment(folder, **ONE_ARM), assert_only_winners_have_checkpoints
    return kill_before_every_commit(asked, folder, monkeypatch, first, stride, check)


def test_a_driver_that_dies_between_two_commits_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert killed(tmp_path, monkeypatch, first=3, stride=11) > 10


@pytest.mark.slow
def test_a_driver_that_dies_before_any_commit_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert killed(tmp_path, monkeypatch, first=0, stride=1) > 100


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_driver_that_dies_again_and_again_still_ends_the_sweep(tmp_path: Path, deterministic: bool) -> None:
    asked = experiment(tmp_path, search__deterministic=deterministic)
    ledger = die_again_and_again(Runner(asked, tmp_path, seed=5), lambda life: 4 + life % 5)
    found = table(ledger)
    assert ledger.is_complete()
    assert len(found) == ledger.planned_trials
    assert all(row["state"] in ("completed", "pruned") for row in found.values())
    for row in found.values():
        indices = [index for index, _ in row["reports"]]
        assert indices == list(range(1, len(indices) + 1))
    if deterministic:
        assert found == undisturbed(asked, tmp_path / "undisturbed")


def test_kills_of_the_driver_do_not_use_up_a_trials_attempts(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path, **ONE_ARM, resources={"max_attempts": 2}), tmp_path)
    for _ in range(3):
        ledger = runner.open()
        job = ledger.next_job()
        ledger.store.close()
    assert job.attempt == 3
    ledger.on_failed(job.key, LOST)
    assert ledger.records[job.key].state == "waiting"


def test_a_trial_that_was_to_be_pruned_is_pruned_at_the_next_start(tmp_path: Path) -> None:
    asked = experiment(tmp_path, search__deterministic=False, arms={"plain": {}})
    runner = Runner(asked, tmp_path)
    ledger = runner.open()
    good, bad, ended = [ledger.next_job() for _ in range(3)]
    for job, loss in ((good, 0.1), (ended, 0.2), (bad, 9.0)):
        report = Report(1, Progress(1), 0.0, {"loss": loss})
        prune = ledger.on_report(job.key, report)
        if job is ended:
            ledger.on_completed(job.key, TrialResult(Progress(4), 1, "", {"loss": loss}, None))
    assert prune
    ledger.store.close()  # before on_pruned; a trial with a higher number has ended
    again = runner.open()
    assert again.records[bad.key].state == "pruned"
    assert again.records[good.key].state == "waiting"


def test_asking_the_pruner_again_gives_the_same_answer(tmp_path: Path) -> None:
    asked = experiment(tmp_path, search__deterministic=False, arms={"plain": {}})
    ledger = Runner(asked, tmp_path).open()
    jobs = [ledger.next_job() for _ in range(3)]
    answers = []
    for job, loss in zip(jobs, (1.0, 3.0, 2.0), strict=True):
        answers.append(ledger.on_report(job.key, Report(1, Progress(1), 0.0, {"loss": loss})))
    study = ledger.lines[0].search
    assert answers == [False, True, True]
    assert [study.should_prune(number) for number in (2, 2, 0, 0)] == [True, True, False, False]


def test_a_report_that_comes_again_is_logged_once(tmp_path: Path) -> None:
    ledger = Runner(experiment(tmp_path), tmp_path).open()
    job = ledger.next_job()
    for _ in range(2):
        ledger.on_report(job.key, report_of(job.spec, 1))
    assert [r.index for r in ledger.store.reports(job.key)] == [1]


def test_a_torn_line_of_records_and_journal_is_mended(tmp_path: Path) -> None:
    asked = experiment(tmp_path, **ONE_ARM)
    expected = undisturbed(asked, tmp_path / "undisturbed")
    runner = Runner(asked, tmp_path)
    ledger = runner.open()
    with pytest.raises(Killed):
        runner.drive(ledger, calls=5)
    ledger.store.close()
    key = next(key for key, record in ledger.records.items() if record.state == "running" and key in ledger.reports)
    torn = ledger.store.trial_directory(key) / "records.jsonl"
    for path in (torn, ledger.store.journal):
        with path.open("ab") as file:
            file.write(path.read_bytes().splitlines()[-1][:20])
    ledger = runner.open()
    runner.drive(ledger)
    assert table(ledger) == expected
    assert all(json.loads(line) for line in torn.read_text().splitlines())


def test_a_lost_projection_is_written_again(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path, **ONE_ARM), tmp_path)
    ledger = runner.open()
    runner.drive(ledger)
    expected = table(ledger)
    ledger.store.close()
    for path in ledger.store.directory.glob("trials/*/trial.json"):
        path.unlink()
    assert table(runner.open()) == expected


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_lost_worker_is_replaced_until_the_attempts_are_used_up(tmp_path: Path) -> None:
    ledger = Runner(experiment(tmp_path, **ONE_ARM, resources={"max_attempts": 3}), tmp_path).open()
    first = ledger.next_job()
    ledger.on_report(first.key, report_of(first.spec, 1))
    attempts = [(first.attempt, first.known_reports)]
    for _ in range(2):
        ledger.on_failed(first.key, LOST)
        assert ledger.records[first.key].state == "waiting"
        job = next(j for j in iter(ledger.next_job, None) if j.key == first.key)
        attempts.append((job.attempt, job.known_reports))
    assert attempts == [(1, 0), (2, 1), (3, 1)]
    ledger.on_failed(first.key, LOST)
    assert (ledger.records[first.key].state, ledger.records[first.key].reason) == ("failed", LOST.reason)


def test_a_diverged_trial_is_failed_at_once_and_the_sweep_goes_on(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path, **ONE_ARM), tmp_path)
    ledger = runner.open()
    job = ledger.next_job()
    ledger.on_failed(job.key, Failure("trial", "not_finite: the loss is nan at step 2", "Traceback"))
    record = ledger.records[job.key]
    assert (record.state, record.reason, record.error) == (
        "failed",
        "not_finite: the loss is nan at step 2",
        "Traceback",
    )
    assert record.attempts == 1
    runner.drive(ledger)
    assert ledger.is_complete()
    assert [j.key for j in runner.jobs].count(job.key) == 0
    assert sum(r.state == "failed" for r in ledger.records.values()) == 1


def test_four_equal_first_failures_end_the_sweep(tmp_path: Path) -> None:
    ledger = Runner(experiment(tmp_path, search__generation=6), tmp_path).open()
    same = Failure("unexpected", "TypeError: 'NoneType' object is not callable")
    for _ in range(3):
        ledger.on_failed(ledger.next_job().key, same)
    with pytest.raises(SameFailureError, match="the first 4 trials all failed: TypeError"):
        ledger.on_failed(ledger.next_job().key, same)


@pytest.mark.parametrize("reasons", [["a", "a", "b", "a", "b", "a"], ["done", "a", "a", "a", "a", "a"]])
def test_other_failures_do_not_end_the_sweep(tmp_path: Path, reasons: list[str]) -> None:
    ledger = Runner(experiment(tmp_path, search__generation=6), tmp_path).open()
    for reason in reasons:
        key = ledger.next_job().key
        if reason == "done":
            ledger.on_completed(key, TrialResult(Progress(), 1, "", {"loss": 1.0}, None))
        else:
            ledger.on_failed(key, Failure("trial", reason))
    assert not ledger.is_finished()


def test_a_combination_that_is_refused_fails_alone(tmp_path: Path) -> None:
    space = {"model.hidden_size": {"choices": [16, 20]}, "model.num_heads": {"choices": [2, 8]}}
    base = {**experiment(tmp_path).spec.base, "model": {**TRANSFORMER, "hidden_size": 16}}
    asked = experiment(tmp_path, arms={"plain": {}}, base=base, space=space, search__trials=12, search__generation=1)
    found = undisturbed(asked, tmp_path)
    search = [row for key, row in found.items() if "search" in key]
    assert len(search) == 4  # each of the space's configurations once, refused or not
    assert [row["state"] for row in search].count("failed") == 1
    assert all(
        row["reason"].startswith("spec: arms.plain: model: hidden_size") for row in search if row["state"] == "failed"
    )


def test_proposals_that_are_all_refused_do_not_end_the_sweep_early(tmp_path: Path) -> None:
    # Alone each value is allowed with the template; together they are refused.
    space = {"schedule.warmup_steps": {"low": 3, "high": 300}, "schedule.warmup_fraction": {"choices": [0.5]}}
    ledger = Runner(experiment(tmp_path, arms={"plain": {}}, space=space, search__deterministic=False), tmp_path).open()
    assert ledger.next_job() is None
    assert ledger.is_complete()
    assert [r.state for r in ledger.records.values()] == ["failed"] * 6
    assert "warmup_steps and warmup_fraction must not both be given" in ledger.records["plain-search-0000"].reason


# --- stops and what is kept ------------------------------------------------------------------------------------------


def test_a_stopped_trial_waits_and_goes_on_at_the_next_start(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path, **ONE_ARM), tmp_path)
    ledger = runner.open()
    job = ledger.next_job()
    ledger.on_report(job.key, report_of(job.spec, 1))
    ledger.store.request_stop()
    assert ledger.next_job() is None
    assert not ledger.is_finished()
    ledger.on_stopped(job.key)
    assert ledger.is_finished()
    assert not ledger.is_complete()
    assert ledger.records[job.key].state == "waiting"
    ledger.store.close()
    again = runner.open()
    resumed = again.next_job()
    assert (resumed.key, resumed.attempt, resumed.known_reports) == (job.key, 2, 1)


def test_a_sweep_whose_last_generation_was_stopped_is_not_complete(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path, **ONE_ARM), tmp_path)
    ledger = runner.open()
    jobs = [ledger.next_job(), ledger.next_job()]  # all that the generation has: nothing is left in the queue
    ledger.store.request_stop()
    assert ledger.next_job() is None
    for job in jobs:
        ledger.on_stopped(job.key)
    assert ledger.is_finished()
    assert not ledger.is_complete()


def assert_only_winners_have_checkpoints(ledger: Ledger) -> None:
    for record in ledger.records.values():
        kept = {str(path.relative_to(ledger.store.trial_directory(record.key)))
                for path in ledger.store.trial_directory(record.key).glob("attempts/*/step-*")}  # fmt: skip
        rivals = [r for r in ledger.records.values() if (r.arm, r.phase) == (record.arm, "search") and r.result]
        best = min(rivals, key=lambda r: r.result["best_validation"]["loss"])
        wins = record.phase == "replica" or record is best
        assert kept == ({record.result["best_checkpoint"]} if wins else set()), record.key


def test_the_losers_checkpoints_are_removed(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path), tmp_path)
    ledger = runner.open()
    runner.drive(ledger)
    assert_only_winners_have_checkpoints(ledger)


def test_listeners_hear_of_every_change(tmp_path: Path) -> None:
    heard: list[str] = []

    class Ear:
        def changed(self, key: str) -> None:
            heard.append(key)

    store = SweepStore(tmp_path, "ear")
    store.open()
    ledger = Ledger(experiment(tmp_path, **ONE_ARM), store, [Ear()])
    job = ledger.next_job()
    heard.clear()
    ledger.on_report(job.key, report_of(job.spec, 1))
    ledger.on_completed(job.key, TrialResult(Progress(), 1, "", {"loss": 1.0}, None))
    assert heard == [job.key, job.key]
