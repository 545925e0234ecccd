"""`compare A B`: what the names mean, how the two are tested, and what it says where it cannot tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_fixture import replica, write_sweep, write_trial

from orchestrator.cli import main

OTHER = {"text": {"recipe": "text", "fingerprint": "another", "rows": {}, "facts": {}}}
Compared = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """`old` and `new` on one dataset, with better values in `new`; `elsewhere` on another dataset."""
    write_sweep(tmp_path / "sweeps/old", {"hrm": [0.30, 0.31, 0.33], "lstm": [0.40, 0.42, 0.41]}, name="old")
    write_sweep(tmp_path / "sweeps/new", {"hrm": [0.20, 0.212, 0.229], "gru": [0.40, 0.45, 0.43]}, name="new")
    write_sweep(tmp_path / "sweeps/elsewhere", {"hrm": [0.30, 0.31, 0.33]}, name="elsewhere", datasets=OTHER)
    return tmp_path


@pytest.fixture
def compared(storage: Path, capsys: pytest.CaptureFixture[str]) -> Compared:
    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["compare", *arguments, "--storage", str(storage), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_runs_of_equal_seeds_on_the_same_data_are_paired(compared: Compared) -> None:
    code, report = compared("new:hrm", "old:hrm")
    assert code == 0
    found = report["contrasts"][0]
    assert (found["paired"], found["same_data"], found["n"]) == (True, True, 3)
    assert found["mean"] == pytest.approx(-0.0997, abs=1e-4)
    assert found["adjusted_p"] < 0.01
    assert compared("old:hrm", "new:hrm")[1]["contrasts"][0]["mean"] == pytest.approx(0.0997, abs=1e-4)


def test_other_data_and_other_seeds_take_welchs_test(compared: Compared, storage: Path) -> None:
    found = compared("new:hrm", "elsewhere:hrm")[1]["contrasts"][0]
    assert (found["paired"], found["same_data"]) == (False, False)
    for seed in range(3):
        trial = replica("text", "gru", seed, 0.4 + 0.02 * seed)
        write_trial(storage / "sweeps/new", replace(trial, spec={**trial.spec, "seed": 70 + seed}))
    found = compared("new:gru", "old:lstm")[1]["contrasts"][0]
    assert (found["paired"], found["same_data"], found["better_at"]) == (False, True, None)


def test_what_a_name_leaves_out_is_as_on_the_other_side(compared: Compared) -> None:
    def pairs(*names: str) -> list[tuple[str, str]]:
        found = compared(*names)[1]["contrasts"]
        return [(item["first"]["arm"], item["second"]["arm"]) for item in found]

    assert pairs("new", "old") == [("hrm", "hrm")]
    assert pairs("new:hrm", "old") == [("hrm", "hrm")]
    assert pairs("new:gru", "old:text:lstm") == [("gru", "lstm")]
    assert pairs("old:hrm", "old:lstm") == [("hrm", "lstm")]


def test_what_cannot_be_compared_is_refused_with_the_names_there_are(compared: Compared, storage: Path) -> None:
    for first, second, said in (
        ("old", "old", "nothing to compare"),
        ("new:gru", "old", "nothing to compare"),
        ("old:nope", "new", "the sweep has no arm 'nope'"),
        ("old:nope:hrm", "new", "the sweep has no task 'nope'"),
        ("a:b:c:d", "new", "more than three parts"),
        ("absent", "new", "The sweeps here are"),
    ):
        code, problems = compared(first, second)
        assert code == 2
        assert said in json.dumps(problems)
    write_sweep(storage / "sweeps/up", {"hrm": [0.5, 0.6]}, metric="exact_accuracy", direction="maximize", name="up")
    code, problems = compared("up", "old")
    assert code == 2
    assert len(problems["problems"]) == 2


def test_one_seed_and_no_replica_tell_nothing(
    compared: Compared, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(storage / "sweeps/one", {"hrm": [0.1]}, search={"lstm": 3}, name="one")
    assert compared("one:hrm", "old:hrm")[1]["contrasts"][0]["adjusted_p"] is None
    main(["compare", "one:hrm", "old:hrm", "--storage", str(storage)])
    assert "Cannot tell: one:text:hrm minus old:text:hrm is" in capsys.readouterr().out
    main(["compare", "one:lstm", "old:lstm", "--storage", str(storage)])
    assert "Cannot tell: one:text:lstm has no completed replica" in capsys.readouterr().out


def test_the_answer_names_the_better_one_its_interval_and_its_test(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = storage / "out"
    assert main(["compare", "old:lstm", "old:hrm", "--storage", str(storage), "--output", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "old:text:lstm is worse than old:text:hrm: test loss differs by 0.0967 nats per token" in said
    assert "paired, 3 seeds" in said
    assert "old:text:lstm is worse" in (folder / "compare.html").read_text()
    assert (folder / "compare.md").read_text() in said + "\n"
    assert json.loads((folder / "compare.json").read_text())["metric"] == "loss"
    below = folder / "compare.json" / "out"
    assert main(["compare", "old:lstm", "old:hrm", "--storage", str(storage), "--output", str(below)]) == 2
    assert "compare.json/out: cannot be written: Not a directory. Give another --output" in capsys.readouterr().err


def test_every_value_names_its_run_its_checkpoint_and_its_command(compared: Compared, storage: Path) -> None:
    runs = compared("new:hrm", "old:hrm")[1]["runs"]
    assert [(run["unit"]["sweep"], run["seed"]) for run in runs] == [
        (name, n) for name in ("new", "old") for n in range(3)
    ]
    assert runs[0]["value"] == 0.2
    assert runs[0]["checkpoint"] == str(storage / "sweeps/new/trials/text-hrm-replica-0000/attempts/1/step-00000440")
    assert "train --trial new/text-hrm-replica-0000" in runs[0]["command"]


def test_two_sweeps_of_one_name_are_told_apart_by_their_paths(compared: Compared, storage: Path) -> None:
    other = write_sweep(storage / "backup/sweeps/old", {"hrm": [0.50, 0.51, 0.53]}, name="old")
    report = compared("old:hrm", f"{other}:hrm")[1]
    assert report["contrasts"][0]["mean"] == pytest.approx(-0.2)
    assert [run["value"] for run in report["runs"]] == [0.30, 0.31, 0.33, 0.50, 0.51, 0.53]
