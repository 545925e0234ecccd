"""Results by row: kept in the pass that measures, read again, and turned into intervals over seeds and rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sweep_fixture import replica, write_sweep, write_trial

from analysis.markdown import document_text
from analysis.over_rows import RowResults, row_results
from analysis.report import build_report
from analysis.sections.comparison import sections
from analysis.sweep import load_sweep
from hrm.context import LocalContext
from hrm.data.row_results import TEST_ROWS, read_rows, write_rows
from hrm.remote import Archive
from orchestrator.fetched import sweep_with_rows
from tests.conftest import MakeTrial, run

ARMS = {"transformer": [0.5, 0.6, 0.55], "hrm": [0.7, 0.75, 0.8]}


def results(values: np.ndarray, weights: np.ndarray | None = None) -> RowResults:
    return RowResults(list(range(len(values))), values, np.ones(values.shape[1]) if weights is None else weights)


def keep(directory: Path, arm: str, loss: np.ndarray, tokens: np.ndarray, seed: int) -> None:
    columns = {"loss": loss, "tokens": tokens, "correct": tokens // 2, "exact": tokens < 0}
    write_rows(columns, directory / "trials" / f"text-{arm}-replica-{seed:04d}" / TEST_ROWS)


@pytest.fixture
def measured_by_row(tmp_path: Path) -> Path:
    """Two arms of three seeds whose rows have the losses that make the arms' test values."""
    directory, random = write_sweep(tmp_path / "s", ARMS), np.random.default_rng(0)
    tokens, noise = random.integers(5, 20, 80), random.normal(0.0, 0.2, 80)
    noise -= (noise * tokens).sum() / tokens.sum()
    for arm, values in ARMS.items():
        for seed, value in enumerate(values):
            keep(directory, arm, (value + noise) * tokens, tokens, seed)
    return directory


def test_the_rows_of_a_training_add_up_to_its_test_metrics(
    make_trial: MakeTrial, data_root: Path, tmp_path: Path
) -> None:
    context = LocalContext(tmp_path / "trial", data_root)
    _, result = run(make_trial(), context, test=True)
    rows = read_rows(context.trial_directory / TEST_ROWS)
    assert rows is not None
    assert result.test is not None
    assert rows["loss"].sum() / rows["tokens"].sum() == pytest.approx(result.test["loss"], rel=1e-6)
    assert rows["correct"].sum() / rows["tokens"].sum() == result.test["token_accuracy"]
    assert rows["exact"].mean() == result.test["exact_accuracy"]
    assert len(np.unique(rows["loss"])) > 1


def test_a_training_that_is_not_tested_keeps_no_rows(make_trial: MakeTrial, data_root: Path, tmp_path: Path) -> None:
    context = LocalContext(tmp_path / "trial", data_root)
    run(make_trial(), context)
    assert not list(context.trial_directory.glob("*.arrow"))


def test_a_missing_and_a_torn_file_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / TEST_ROWS
    assert read_rows(path) is None
    write_rows({name: np.arange(50) for name in ("loss", "tokens", "correct", "exact")}, path)
    path.write_bytes(path.read_bytes()[:300])
    assert read_rows(path) is None


@pytest.mark.parametrize("seeds", [3, 5, 10, 30])
@pytest.mark.parametrize("spread", [0.02, 0.4])
def test_the_interval_covers_the_mean_over_further_seeds_and_rows(seeds: int, spread: float) -> None:
    """Skewed rows of unequal weight; the seeds' share of the variance small and large."""
    random, hits, repetitions = np.random.default_rng(seeds), [], 300
    for _ in range(repetitions):
        weights = random.integers(5, 20, 150).astype(np.float64)
        rows = random.exponential(size=150) - 1.0
        values = 2.0 + spread * random.normal(size=(seeds, 1)) + rows + 0.5 * random.normal(size=(seeds, 150))
        found = results(values * weights, weights).interval()
        assert found is not None
        hits.append(found.low < 2.0 < found.high)
    assert np.mean(hits) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_over_seeds_alone_the_same_simulation_does_not_cover() -> None:
    """What the rows add: with few rows and alike seeds, an interval over seeds misses the mean of further rows."""
    random = np.random.default_rng(1)
    rows = 2.0 + random.normal(size=(300, 1, 40)) + 0.01 * random.normal(size=(300, 5, 40))
    means = rows.mean(axis=2)
    half = 2.776 * means.std(axis=1, ddof=1) / np.sqrt(5)
    assert np.mean(np.abs(means.mean(axis=1) - 2.0) < half) < 0.3
    found = [results(sample).interval() for sample in rows]
    assert np.mean([each.low < 2.0 < each.high for each in found if each]) > 0.92
    assert all(each.row_share > 0.9 for each in found if each)


def test_one_seed_has_an_interval_over_rows_and_rows_without_spread_have_none() -> None:
    one = results(np.random.default_rng(2).normal(size=(1, 50))).interval()
    assert one is not None
    assert (one.seeds, one.row_share) == (1, 1.0)
    assert results(np.zeros((3, 50))).interval() is None


def test_a_difference_is_taken_row_by_row_of_the_common_seeds() -> None:
    random = np.random.default_rng(3)
    hard, own = random.normal(0.0, 5.0, 60), random.normal(0.0, 0.1, (2, 4, 60))
    first, second = (results(1.0 + shift + hard + own[index]) for index, shift in enumerate((0.0, 0.3)))
    found = (first - replace(second, seeds=[2, 1, 7, 0])).interval()
    assert found is not None
    assert found.seeds == 3
    assert -0.6 < found.low < -0.3 < found.high < 0.0  # the rows' own difficulty cancels


def test_the_report_says_what_test_rows_add_and_a_difference_needs_the_same_rows(measured_by_row: Path) -> None:
    report = build_report(load_sweep(measured_by_row))
    summary = report.summaries[0]
    assert summary.over_rows is not None
    assert summary.over_rows.mean == pytest.approx(summary.mean.mean, rel=1e-6)
    assert (summary.over_rows.seeds, summary.over_rows.rows) == (3, 80)
    assert [(row.best, row.other) for row in report.row_differences] == [("transformer", "hrm")]
    assert report.row_differences[0].over_rows.high < 0.0
    keep(measured_by_row, "hrm", np.ones(80), np.arange(80), seed=0)
    assert build_report(load_sweep(measured_by_row)).row_differences == []


def test_without_the_rows_of_every_seed_there_is_no_interval_over_rows(measured_by_row: Path) -> None:
    write_trial(measured_by_row, replica("text", "hrm", 3, 0.72))
    summaries = {summary.arm: summary for summary in build_report(load_sweep(measured_by_row)).summaries}
    assert summaries["hrm"].over_rows is None
    assert summaries["transformer"].over_rows is not None
    sweep = load_sweep(measured_by_row)
    assert row_results(sweep, sweep.select(arm="transformer", phase="replica"), "pass_1") is None


def test_the_rows_of_a_sweep_with_a_store_are_brought_from_there_and_not_missed_without_it(tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    directory = write_sweep(tmp_path / "text_adapt", {"hrm": [0.5, 0.6]}, search={}, store=store)
    assert sweep_with_rows(directory).record.store == store
    for seed in range(2):
        keep(directory, "hrm", np.linspace(1.0, 2.0 + seed, 30), np.full(30, 3), seed)
        path = directory / "trials" / f"text-hrm-replica-{seed:04d}" / TEST_ROWS
        Archive(store).at("sweeps", "text_adapt", "trials", path.parent.name).upload_file(path, TEST_ROWS)
        path.unlink()
    assert build_report(load_sweep(directory)).summaries[0].over_rows is None
    summary = build_report(sweep_with_rows(directory)).summaries[0]
    assert summary.over_rows is not None
    assert (summary.over_rows.seeds, summary.over_rows.rows) == (2, 30)


def test_where_the_seeds_decide_and_the_test_rows_cannot_the_report_says_so(tmp_path: Path) -> None:
    directory, random = write_sweep(tmp_path / "s", ARMS, search={}), np.random.default_rng(4)
    tokens = np.full(20, 10)
    for arm, values in ARMS.items():
        own = random.normal(0.0, 2.0, 20)
        for seed, value in enumerate(values):
            keep(directory, arm, (value + own - own.mean()) * tokens, tokens, seed)
    sweep = load_sweep(directory)
    report = build_report(sweep)
    text = document_text("", sections(report, sweep, "text"))
    assert report.answer["decided"]
    assert "Against hrm the seeds decide on these test rows; on further rows the difference may be none." in text
