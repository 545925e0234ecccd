"""Limits and forecasts with real Ray: a sweep ends at its limit, everything saved, and goes on with a higher one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray
from command import report, reports_of, run, trials

from hrm.errors import SpecError
from hrm.records import read_reports
from orchestrator.limits import LimitSpec, check_energy
from orchestrator.node import energy_problem

EXPERIMENT = """\
question: What does it cost?
tasks: [{kind: red_team, num_train: 64, num_validation: 16, num_test: 4}]
base:
  model: {kind: hrm, hidden_size: 32, num_heads: 2, H_layers: 1, L_layers: 1, causal: true}
  optimizer: {kind: adamw, learning_rate: 3e-3}
  batch_size: 4
  num_reports: 4
arms:
  hrm: {}
space:
  optimizer.learning_rate: {low: 1e-3, high: 1e-2, log: true}
search: {trials: 4, pruner: {kind: none}}
budget: {axis: seconds, amount: 3}
replicas: {seeds: 2}
resources: {gpus_per_worker: 0.0}
prices: {cpu_hour: 3600, currency: EUR}
trackers: []
"""


@pytest.mark.slow
def test_a_sweep_that_has_spent_its_limit_stops_cleanly_and_goes_on_with_a_higher_one(tmp_path: Path) -> None:
    file, storage = tmp_path / "costs.yaml", tmp_path / "runs"
    file.write_text(EXPERIMENT)

    forecast = json.loads(run("sweep", file, "--storage", storage, "--dry-run", "--json", "--set", "limits.cost=10"))
    assert not (storage / "sweeps").exists()
    assert (forecast["search_trials"], forecast["replicas"]) == (4, 2)
    expected = forecast["without_pruning"]["spending"]["cost"]  # a euro for a second of a CPU
    assert expected > 6 * 3
    assert "limits.cost of 10 EUR will be reached before the end" in forecast["limits"][0]

    low = ("sweep", file, "--storage", storage, "--set", "limits.cost=5")
    said = run(*low, expect=1)
    assert "limits.cost is reached" in said
    assert "EUR spent. Raise it, and the same command goes on" in said
    first = trials(storage, "costs")
    assert {record.state for record in first.values()} <= {"waiting", "completed"}
    assert any(record.state == "waiting" and record.attempts == 1 for record in first.values())
    found = report(storage, "costs")
    assert not found["finished"]
    assert 5 <= found["spent"]["cost"] < expected  # of two trials at a time, far less than the whole
    status = run("status", "costs", "--storage", storage)
    assert "limits.cost is reached" in status

    run(*low, expect=1)  # it starts nothing
    assert {key: record.attempts for key, record in trials(storage, "costs").items()} == {
        key: record.attempts for key, record in first.items()
    }

    run("sweep", file, "--storage", storage, "--set", "limits.cost=1000")
    last, found = trials(storage, "costs"), report(storage, "costs")
    assert len(last) == 6
    assert {record.state for record in last.values()} == {"completed"}
    assert found["finished"]
    assert 6 * 3 < found["spent"]["cost"] < 3 * expected
    assert found["spent"]["limits"]["cost"] == 1000
    for key in last:
        path = storage / "sweeps" / "costs" / "trials" / key / "records.jsonl"
        steps = [step.progress.step for r in read_reports(path) for step in r.steps]
        assert steps == list(range(1, len(steps) + 1)), "a step is missing or was trained twice"
        assert reports_of(storage, "costs", key) == 4


@pytest.mark.slow
def test_a_limit_in_energy_is_refused_where_a_node_cannot_measure_it() -> None:
    if not energy_problem():
        pytest.skip("this machine counts the energy of its GPUs")
    ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False)  # the GPU is a number to Ray
    try:
        with pytest.raises(SpecError, match=r"limits.energy_kwh: cannot be measured on .*: NVML does not answer there"):
            check_energy(LimitSpec(energy_kwh=1.0), gpus_per_worker=1.0)
    finally:
        ray.shutdown()
