"""Several sweeps in one report: arms keep what they are, nothing is compared that cannot be, every link still leads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_fixture import NUM_REPORTS, replica, write_sweep, write_trial

from analysis.joined import join
from analysis.records import read_sweep_record, write_json
from analysis.report import build_report
from analysis.sweep import Sweep, load_sweep
from hrm.errors import SpecError
from orchestrator.cli import main

FIRST = {"transformer": [0.189, 0.190, 0.191], "hrm": [0.204, 0.206, 0.207]}
SECOND = {"transformer": [0.179, 0.181, 0.180], "lstm": [0.304, 0.306, 0.307]}


def two(storage: Path, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> list[Sweep]:
    """Sweeps `a` and `b` that share the arm `transformer`; with changes of their records."""
    write_sweep(storage / "sweeps/a", FIRST, **{"name": "a", **(first or {})})
    write_sweep(storage / "sweeps/b", SECOND, **{"name": "b", **(second or {})})
    return [load_sweep(storage / "sweeps" / name) for name in "ab"]


def test_only_what_two_sweeps_have_in_common_gets_their_names(tmp_path: Path) -> None:
    joined = join(two(tmp_path))
    assert joined.record.arms == ["a/transformer", "hrm", "b/transformer", "lstm"]
    assert joined.record.tasks == ["text"]
    answer = build_report(joined).answers[0]
    assert (answer.best_arm, answer.decided) == ("b/transformer", True)
    assert {difference.other: difference.n for difference in answer.comparisons}["a/transformer"] == 3, "paired by seed"


def test_one_sweep_stays_as_it_is(tmp_path: Path) -> None:
    sweep = two(tmp_path)[0]
    assert join([sweep]) is sweep
    assert build_report(sweep).sweeps == []


def test_sweeps_that_measure_different_things_are_refused_with_what_each_measures(tmp_path: Path) -> None:
    sweeps = two(tmp_path, second={"metric": "exact_accuracy", "direction": "maximize"})
    with pytest.raises(SpecError) as caught:
        join(sweeps)
    assert "same objective.metric, got a loss, b exact_accuracy" in str(caught.value)
    assert "same objective.direction, got a minimize, b maximize" in str(caught.value)
    with pytest.raises(SpecError, match="'a' is given 2 times"):
        join([sweeps[0], sweeps[0]])


def test_different_budgets_leave_no_winner_and_are_the_reason_that_is_given(tmp_path: Path) -> None:
    report = build_report(join(two(tmp_path, second={"budget": {"axis": "tokens", "amount": 983_040}})))
    assert report.answer["decided"] is False
    assert "different budgets (1.97 M tokens in a and 983 k tokens in b)" in report.answer["sentence"]


def test_budgets_of_sweeps_on_different_rows_are_no_doubt(tmp_path: Path) -> None:
    other = {"text": {"recipe": "text_markov", "fingerprint": "another", "rows": {"train": 5}}}
    joined = join(two(tmp_path, second={"budget": {"axis": "tokens", "amount": 983_040}, "datasets": other}))
    assert [answer.decided for answer in build_report(joined).answers] == [True, True]


def test_one_name_for_different_rows_is_two_tasks(tmp_path: Path) -> None:
    other = {"text": {"recipe": "text_markov", "fingerprint": "another", "rows": {"train": 5}}}
    joined = join(two(tmp_path, second={"datasets": other}))
    assert joined.record.tasks == ["a/text", "b/text"]
    report = build_report(joined)
    assert [(arm.name, arm.task) for arm in report.arms if arm.metric] == [
        ("transformer", "a/text"),
        ("hrm", "a/text"),
        ("transformer", "b/text"),
        ("lstm", "b/text"),
    ]
    assert [answer.best_arm for answer in report.answers] == ["transformer", "transformer"]
    assert report.datasets["b/text"]["fingerprint"] == "another"


def test_an_arm_that_is_the_same_on_other_rows_keeps_one_name_for_a_comparison_across_tasks(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweeps/a", FIRST, name="a", tasks=("text",))
    write_sweep(tmp_path / "sweeps/b", SECOND, name="b", tasks=("maze",))
    record = read_sweep_record(tmp_path / "sweeps/b")
    data = {"maze": {**record.datasets["maze"], "fingerprint": "another"}}
    write_json(tmp_path / "sweeps/b/sweep.json", replace(record, datasets=data))
    same = join([load_sweep(tmp_path / "sweeps" / name) for name in "ab"])
    assert same.record.arms == ["transformer", "hrm", "lstm"]
    assert same.record.runs_on("transformer", "maze")
    assert not same.record.runs_on("hrm", "maze")
    patched = {"arms": {"transformer": {"patch": {"model": {"num_layers": 9}}}}}
    write_json(tmp_path / "sweeps/b/sweep.json", replace(record, datasets=data, experiment=patched))
    unlike = join([load_sweep(tmp_path / "sweeps" / name) for name in "ab"])
    assert "b/transformer" in unlike.record.arms, "it is another model"


def test_every_trial_is_found_where_its_sweep_left_it(tmp_path: Path) -> None:
    sweeps = two(tmp_path)
    mark = {"ui": "http://h:5000", "experiment_id": "3", "parent": "p", "runs": {"text-lstm-replica-0001": "run9"}}
    (tmp_path / "sweeps/b/mlflow.json").write_text(json.dumps(mark))
    joined = join(sweeps)
    assert len({trial.key for trial in joined.trials}) == len(joined.trials) == sum(len(s.trials) for s in sweeps)
    for trial in joined.trials:
        assert (joined.directory / joined.log_of(trial)).is_file()
        if trial.state == "completed":
            assert len(joined.reports(trial)) == NUM_REPORTS
    last = next(trial for trial in joined.trials if trial.key == "b/text-lstm-replica-0001")
    assert last.source == "b/text-lstm-search-0000"
    assert joined.checkpoint_of(last) == "b/trials/text-lstm-replica-0001/attempts/1/step-00000440"
    assert joined.run_address(last) == "http://h:5000/#/experiments/3/runs/run9"
    assert "--trial b/text-lstm-replica-0001" in joined.command_of(last)
    assert str(tmp_path) in joined.command_of(last), "the storage is not the default one"


def test_a_checkpoint_in_a_store_is_named_by_its_address(tmp_path: Path) -> None:
    sweeps = two(tmp_path, first={"store": "s3://bucket/x?region=eu"})
    joined = join(sweeps)
    trial = next(trial for trial in joined.trials if trial.key == "a/text-hrm-replica-0000")
    expected = "s3://bucket/x/sweeps/a/trials/text-hrm-replica-0000/attempts/1/step-00000440?region=eu"
    assert joined.checkpoint_of(trial) == expected


def test_a_sweep_that_runs_leaves_the_joined_report_open(tmp_path: Path) -> None:
    sweeps = two(tmp_path, second={"finished": False})
    running = replace(replica("text", "lstm", 3, 0.3), state="running", result=None)
    write_trial(tmp_path / "sweeps/b", running)
    report = build_report(join([sweeps[0], load_sweep(tmp_path / "sweeps/b")]))
    assert report.finished is False
    assert report.trials["running"] == 1
    assert report.answer["decided"] is False


def test_the_command_writes_one_report_of_several_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two(tmp_path, second={"code": {"commit": "other"}})
    assert main(["report", "a", str(tmp_path / "sweeps/b"), "--storage", str(tmp_path)]) == 0
    folder = tmp_path / "reports/a+b"
    said = capsys.readouterr().out
    assert f"The full report: {folder / 'report.html'}" in said
    assert "different versions of the code" in said
    report = json.loads((folder / "report.json").read_text())
    assert [part["name"] for part in report["sweeps"]] == ["a", "b"]
    assert report["sweeps"][1]["arms"] == ["b/transformer", "lstm"]
    assert "../../sweeps/a/trials/text-hrm-search-0002/log.txt" in (folder / "report.html").read_text()
    assert main(["report", "a", "c", "--storage", str(tmp_path)]) == 2
    assert "The sweeps here are a, b" in capsys.readouterr().err.replace("b, a", "a, b")
