"""A population's members really take over each other's weights: the real command, on Ray, also when it is killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from command import check_mlflow, kill, numbers, reports_of, run, same_weights, start, trials, wait_for

from hrm.checkpoint import checkpoints_of, read_manifest
from hrm.records import Report, read_reports

NAME = "population"
EXPERIMENT = """\
question: Which schedule of parameters?
tasks: [{kind: red_team, num_train: 64, num_validation: 16, num_test: 4}]
base:
  model: {kind: hrm, hidden_size: 32, num_heads: 2, H_layers: 1, L_layers: 1, causal: true}
  optimizer: {kind: adamw, learning_rate: 3e-3}
  batch_size: 4
  num_reports: 4
arms: {hrm: {}}
space:
  optimizer.learning_rate: {low: 1e-4, high: 1.0, log: true}
search:
  trials: 4
  population: {quantile_fraction: 0.25, resample_probability: 0.0}
  points:
    - {optimizer.learning_rate: 1.0}
    - {optimizer.learning_rate: 3e-3}
    - {optimizer.learning_rate: 1e-3}
    - {optimizer.learning_rate: 2e-4}
budget: {axis: steps, amount: 120}
replicas: {seeds: 1}
"""
ABSURD = "hrm-search-0000"
pytestmark = pytest.mark.slow


def sweep(storage: Path) -> tuple[str, Path, str, Path]:
    (storage / f"{NAME}.yaml").write_text(EXPERIMENT)
    return ("sweep", storage / f"{NAME}.yaml", "--storage", storage)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    run(*sweep(root))
    return root


def reports(storage: Path, key: str) -> list[Report]:
    return list(read_reports(storage / "sweeps" / NAME / "trials" / key / "records.jsonl"))


def lineages(storage: Path) -> dict[str, object]:
    return {key: (record.lineage, record.spec["changes"]) for key, record in trials(storage, NAME).items()}


def test_a_member_with_an_absurd_learning_rate_takes_over_a_better_members_weights(undisturbed: Path) -> None:
    record = trials(undisturbed, NAME)[ABSURD]
    first = record.lineage[0]
    source = first["from"]
    mine, theirs = reports(undisturbed, ABSURD), reports(undisturbed, source)
    assert first["report"] == 1
    assert source != ABSURD
    assert mine[0].validation["loss"] > theirs[0].validation["loss"] == first["value"]
    assert first["parameters"]["optimizer.learning_rate"] < 0.01
    # The same weights, rows and draws: the loss of the step after the takeover is the source's, to the last bit, and
    # the update that follows it is another, since the rate is.
    assert mine[1].steps[0].progress.step == theirs[1].steps[0].progress.step == 31
    assert mine[1].steps[0].metrics["loss"] == theirs[1].steps[0].metrics["loss"]
    assert mine[1].steps[0].metrics["learning_rate"] != theirs[1].steps[0].metrics["learning_rate"]
    assert mine[1].steps[1].metrics["loss"] != theirs[1].steps[1].metrics["loss"]
    assert mine[1].validation["loss"] < mine[0].validation["loss"]
    log = (undisturbed / "sweeps" / NAME / "trials" / ABSURD / "log.txt").read_text()
    assert (
        f"resumed from {undisturbed / 'sweeps' / NAME / 'trials' / source / 'attempts' / '1' / 'step-00000030'}" in log
    )


def test_the_replica_repeats_the_winners_schedule_and_the_report_shows_it(undisturbed: Path) -> None:
    found = trials(undisturbed, NAME)
    replica = found["hrm-replica-0000"]
    winner = found[replica.source]
    assert {**replica.spec, "seed": winner.spec["seed"]} == winner.spec
    rates = [step.metrics["learning_rate"] for report in reports(undisturbed, replica.key) for step in report.steps]
    changes = {0: winner.spec["optimizer"]["learning_rate"]}
    changes |= {c["report"]: c["parameters"]["optimizer.learning_rate"] for c in winner.spec["changes"]}
    expected = [changes[max(report for report in changes if report <= step // 30)] for step in range(120)]
    assert rates == expected
    best = checkpoints_of(undisturbed / "sweeps" / NAME / "trials" / winner.key, 99)
    assert len(best) == 1
    assert read_manifest(best[0])["trial_id"] == winner.trial_id
    assert "population" in (undisturbed / "sweeps" / NAME / "report.md").read_text()
    check_mlflow(undisturbed, NAME)


def test_a_killed_driver_changes_no_decision_and_no_weight(undisturbed: Path, tmp_path: Path) -> None:
    driver = start(*sweep(tmp_path))
    wait_for(lambda: reports_of(tmp_path, NAME, ABSURD) >= 2)
    kill(driver)
    driver.wait(30)
    run(*sweep(tmp_path))
    assert lineages(tmp_path) == lineages(undisturbed)
    assert numbers(tmp_path, NAME) == numbers(undisturbed, NAME)
    assert same_weights(tmp_path, undisturbed, NAME, NAME)
    check_mlflow(tmp_path, NAME)


def test_members_take_over_weights_on_ray_train_workers_too(undisturbed: Path, tmp_path: Path) -> None:
    driver, slots = start(*sweep(tmp_path), "--set", "resources.launcher=ray_train"), set()
    while driver.poll() is None:
        slots |= {path.name for path in tmp_path.glob(f"sweeps/{NAME}/slots/*")}
        time.sleep(0.5)
    assert driver.returncode == 0, driver.communicate()
    assert len(slots) == 2, "members that wait for each other leave their slots to others, warm"
    assert lineages(tmp_path) == lineages(undisturbed)
    assert numbers(tmp_path, NAME) == numbers(undisturbed, NAME)
    assert same_weights(tmp_path, undisturbed, NAME, NAME)
