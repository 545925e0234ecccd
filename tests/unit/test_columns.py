"""Columns of a trial's records are what its reports say, however a file came to be and however long it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.columns import read_report_columns, read_step_columns
from hrm.records import Progress, Report, StepRecord, read_reports


def step(number: int, loss: float = 1.0) -> StepRecord:
    progress = Progress(number, 8 * number, 100 * number, 1e9 * number, 0.1 * number)
    return StepRecord(progress, 1.7e9 + number, {"loss": loss, "learning_rate": 1e-3})


def report(index: int, loss: float = 1.0, steps: int = 3) -> Report:
    taken = tuple(step(number, loss) for number in range((index - 1) * steps + 1, index * steps + 1))
    return Report(index, taken[-1].progress, taken[-1].time, {"loss": loss}, taken, {"energy_joules": 5.0})


def write(path: Path, *reports: Report) -> Path:
    path.write_text("".join(each.to_json() + "\n" for each in reports))
    return path


def test_columns_hold_what_the_reports_say(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", *(report(index, 1 / index) for index in range(1, 6)))
    reports, columns, steps = list(read_reports(path)), read_report_columns(path), read_step_columns(path)
    assert columns.index.tolist() == [each.index for each in reports]
    assert columns.validation["loss"].tolist() == [each.validation["loss"] for each in reports]
    assert columns.axes["flops"].tolist() == [each.progress.flops for each in reports]
    assert columns.time.tolist() == [each.time for each in reports]
    assert columns.system["energy_joules"].tolist() == [5.0] * 5
    assert steps.axes["steps"].tolist() == [each.progress.step for r in reports for each in r.steps]
    assert steps.metrics["loss"].tolist() == [each.metrics["loss"] for r in reports for each in r.steps]


def test_what_a_restart_wrote_again_counts_once_and_the_later_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", report(1), report(2, 9.0), report(3, 9.0), report(2, 0.5), report(3, 0.4))
    assert read_report_columns(path).validation["loss"].tolist() == [1.0, 0.5, 0.4]
    steps = read_step_columns(path)
    assert steps.axes["steps"].tolist() == list(range(1, 10))
    assert steps.metrics["loss"].tolist() == [1.0] * 3 + [0.5] * 3 + [0.4] * 3


def test_a_line_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", report(1))
    path.write_text(path.read_text() + report(2).to_json()[:50])
    assert len(read_report_columns(path)) == 1
    assert len(read_step_columns(path)) == 3


def test_a_metric_that_a_report_lacks_is_nan_there(tmp_path: Path) -> None:
    late = replace(report(2), validation={"loss": 0.5, "judged": 1})
    values = read_report_columns(write(tmp_path / "records.jsonl", report(1), late)).validation["judged"]
    assert np.isnan(values[0])
    assert values[1] == 1.0


def test_no_text_in_a_line_is_taken_for_its_fields(tmp_path: Path) -> None:
    evil = ',"steps":[{}],"system":{},"checkpoint":"'
    odd = replace(report(1), validation={"loss": 0.5, evil: 2.0}, checkpoint=evil, facts={evil: [1], "system": [evil]})
    path = write(tmp_path / "records.jsonl", odd)
    assert read_report_columns(path).validation[evil].tolist() == [2.0]
    assert len(read_step_columns(path)) == 3


def test_lines_in_another_order_of_fields_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    data = json.loads(report(1, 0.25).to_json())
    path.write_text(json.dumps(dict(sorted(data.items()))) + "\n")
    assert read_report_columns(path).validation["loss"].tolist() == [0.25]
    assert len(read_step_columns(path)) == 3


def test_a_report_with_megabytes_of_steps_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", report(1, steps=7_000))
    assert path.stat().st_size > 2**20
    assert len(read_step_columns(path)) == 7_000


def test_a_trial_without_records_has_empty_columns(tmp_path: Path) -> None:
    assert len(read_report_columns(tmp_path / "none")) == len(read_step_columns(tmp_path / "none")) == 0
    bare = write(tmp_path / "bare", replace(report(1), steps=(), system={}))
    assert (len(read_report_columns(bare)), len(read_step_columns(bare))) == (1, 0)
