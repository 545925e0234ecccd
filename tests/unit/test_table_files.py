"""The Parquet files hold what the report shows, and the example of the README reads them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from sweep_fixture import NUM_REPORTS, replica, search_trial, write_sweep, write_trial

from analysis.report import build_report, write_report
from analysis.sweep import Sweep, load_sweep
from analysis.table_files import columns_and_data, table_of, tables_of, write_tables

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the sweep `text_adapt` and its report."""
    storage = tmp_path_factory.mktemp("runs")
    directory = write_sweep(storage / "sweeps/text_adapt")
    write_report(load_sweep(directory), directory)
    return storage


@pytest.fixture
def sweep(storage: Path) -> Sweep:
    return load_sweep(storage / "sweeps/text_adapt")


def written(directory: Path, *, steps: bool = False) -> Path:
    sweep = load_sweep(directory)
    write_tables(build_report(sweep), sweep, directory / "tables", steps=steps)
    return directory / "tables"


def rows(tables: Path, name: str) -> list[dict[str, Any]]:
    return list(parquet.read_table(tables / f"{name}.parquet").to_pylist())


def test_every_trial_is_a_row_with_its_parameters_and_results(sweep: Sweep) -> None:
    trials = {row["key"]: row for row in rows(sweep.directory / "tables", "trials")}
    assert len(trials) == len(sweep.trials)
    row = trials["text-lstm-replica-0001"]
    assert (row["arm"], row["seed"], row["test.loss"], row["state"]) == ("lstm", 1, 0.251, "completed")
    assert (row["parameters.model.num_heads"], row["progress.step"]) == (4, 480)
    assert (sweep.directory / row["log"]).is_file()
    assert row["command"].startswith("python -m orchestrator train --trial text_adapt/text-lstm-replica-0001")
    assert trials["text-lstm-search-0000"]["test.loss"] is None
    assert trials["text-lstm-search-0002"]["reason"] == "TrialError: the loss is not finite at step 61"


def test_curves_have_a_row_for_each_report_on_every_axis(sweep: Sweep) -> None:
    one = [row for row in rows(sweep.directory / "tables", "curves") if row["key"] == "text-hrm-replica-0000"]
    assert [row["report"] for row in one] == list(range(1, NUM_REPORTS + 1))
    trial = next(trial for trial in sweep.trials if trial.key == "text-hrm-replica-0000")
    for axis, values in sweep.reports(trial).axes.items():
        assert [row[axis] for row in one] == list(values)
    assert [row["validation.loss"] for row in one] == list(sweep.reports(trial).validation["loss"])


def test_steps_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"hrm": [0.2]}, search={"hrm": 2})
    tables = written(directory)
    assert not (tables / "steps.parquet").exists()
    written(directory, steps=True)
    steps = rows(tables, "steps")
    assert {row["key"] for row in steps} == {"text-hrm-replica-0000", "text-hrm-search-0000", "text-hrm-search-0001"}
    assert {"steps", "flops", "train.loss", "train.learning_rate", "arm", "seed"} <= set(steps[0])


def test_each_list_of_the_report_is_a_table_of_its_name(sweep: Sweep) -> None:
    report, tables = build_report(sweep), sweep.directory / "tables"
    arm = next(row for row in rows(tables, "arms") if row["name"] == report.arms[0].name)
    metric = report.arms[0].metric
    assert metric is not None
    assert arm["metric.mean"] == metric.mean
    assert json.loads(arm["metric.seeds"]) == metric.seeds
    assert [row["adjusted_p"] for row in rows(tables, "comparisons")] == [d["adjusted_p"] for d in report.comparisons]
    assert len(rows(tables, "failures")) == len(report.failures) == 3


def test_a_table_that_has_become_empty_goes(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"hrm": [0.2, 0.3]})
    tables = written(directory)
    assert (tables / "failures.parquet").exists()
    write_trial(directory, replace(search_trial("text", "hrm", 2), state="completed", reason=""))
    written(directory)
    assert not (tables / "failures.parquet").exists()


def test_columns_of_several_kinds_are_text_and_whole_numbers_among_others_are_numbers() -> None:
    table = table_of([{"a": 1, "b": 1, "c": {"x": 1}}, {"a": 2.5, "b": "auto"}, {"a": None, "b": True, "c": None}])
    assert table.column("a").to_pylist() == [1.0, 2.5, None]
    assert table.column("b").to_pylist() == ["1", '"auto"', "true"]
    assert table.column("c").to_pylist() == ['{"x": 1}', None, None]


def test_tables_for_a_tracker_are_strict_json(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"hrm": [0.2, float("nan")]})
    sweep = load_sweep(directory)
    for table in tables_of(build_report(sweep), sweep).values():
        data = columns_and_data(table)
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert {len(row) for row in data["data"]} <= {len(data["columns"])}


def test_a_sweep_that_has_only_begun_has_tables(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {}, search={"hrm": 0}, finished=False)
    write_trial(directory, replace(replica("text", "hrm", 0, 0.2), state="waiting", started=None, result=None))
    tables = written(directory, steps=True)
    assert parquet.read_table(tables / "trials.parquet").num_rows == 1
    assert not (tables / "curves.parquet").exists()


def test_the_example_of_the_readme_runs(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").symlink_to(storage)
    found = re.search(r"## Notebooks.*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    assert len(found[1].strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(found[1], "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"transformer +0\.190", said)
