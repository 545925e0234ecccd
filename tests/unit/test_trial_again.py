"""`train --trial SWEEP/KEY` trains what the sweep trained, and says what came of it there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_experiment import experiment
from sweep_fixture import replica, write_sweep, write_trial

from analysis.records import TrialRecord
from hrm.data.dataset import build_dataset
from orchestrator.cli import main


@pytest.fixture
def recorded(tmp_path: Path) -> TrialRecord:
    """A replica of a sweep `demo` in the storage `runs`, with a spec that can be trained and made-up results."""
    arm = experiment(tmp_path).arms[0]
    task = build_dataset(experiment(tmp_path).tasks[arm.task], tmp_path / "runs/data").task
    spec = replace(arm, template={**arm.template, "task": task.model_dump(mode="json")}).trial({"batch_size": 2}, 7)
    trial = replace(
        replica("text", "plain", 7, 0.25),
        spec=spec.model_dump(mode="json"),
        trial_id=spec.hash(),
        resolved={"precision": "float32"},
    )
    write_sweep(tmp_path / "runs/sweeps/demo", {"plain": []}, search={"plain": 0})
    write_trial(tmp_path / "runs/sweeps/demo", trial)
    return trial


def test_a_trial_of_a_sweep_is_trained_again(
    recorded: TrialRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    command = ["train", "--trial", f"demo/{recorded.key}", "--storage", str(tmp_path / "runs")]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    folder = Path(result["directory"])
    assert folder.name == f"demo-{recorded.key}-{recorded.trial_id}"
    manifest = json.loads((folder / result["best_checkpoint"] / "manifest.json").read_text())
    assert manifest["spec"] == recorded.spec
    command[2] = f"{tmp_path / 'runs/sweeps/demo'}/{recorded.key}"
    assert result["test"] is not None, "it is a replica"
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"test loss {result['test']['loss']:.4f}" in said
    assert "in the sweep: completed, validation loss 0.2510, test loss 0.2500, precision float32" in said


def test_what_cannot_be_trained_again_is_refused_with_the_way_out(
    recorded: TrialRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert main(["train", *arguments, "--storage", str(tmp_path / "runs")]) == 2
        return capsys.readouterr().err

    assert f"demo has no trial 'other'. Its trials are {recorded.key}." in refused("--trial", "demo/other")
    assert "there is no sweep 'none'" in refused("--trial", "none/other")
    assert "an experiment file, or --trial SWEEP/KEY" in refused()
    assert "without an experiment file, --seed. Leave one" in refused("x.yaml", "--trial", "demo/other", "--seed", "1")
    lineage: list[dict[str, Any]] = [{"report": 1, "from": "x", "value": 1.0, "parameters": {}}]
    write_trial(tmp_path / "runs/sweeps/demo", replace(recorded, lineage=lineage))
    assert "took over the states of other trials" in refused("--trial", f"demo/{recorded.key}")
