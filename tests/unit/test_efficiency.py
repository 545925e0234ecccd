"""What arms need to become good, on curves whose truth is known, and the sections and figures that say it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, browser
from sweep_fixture import RIVALS, replica, write_sweep, write_trial

from analysis.arms import REPLICAS, SEARCH
from analysis.curve_figures import training_figure, validation_figure
from analysis.curves import ArmCurves, Array, Curve, curves_of, mean_curve
from analysis.efficiency import areas, equal_compute, leads, measure_efficiency
from analysis.intervals import t_interval
from analysis.numbers import significant
from analysis.page import render_document
from analysis.report import build_report
from analysis.section import Chart, Section, Table, Text
from analysis.sections import curves, efficiency
from analysis.sweep import load_sweep
from analysis.time_to_target import EVERY_ARM, TimeToTarget, first_reached, times_to_targets
from hrm.records import Progress, StepRecord, read_reports
from hrm.records import Report as TrialReport


def curve(seed: int, flops: Sequence[float] | Array, values: Sequence[float] | Array, maximize: bool = False) -> Curve:
    y = np.asarray(values, dtype=np.float64)
    best = np.maximum.accumulate(y) if maximize else np.minimum.accumulate(y)
    return Curve(f"trial-{seed}", seed, {"flops": np.asarray(flops, dtype=np.float64)}, y, best)


def arm(name: str, *members: Curve) -> ArmCurves:
    return ArmCurves(name, REPLICAS, list(members))


def falling(seed: int, slowness: float) -> Curve:
    """1 / flops, slower by a factor: the target 0.1 at 10 times it."""
    flops = np.geomspace(1.0, 200.0, 400)
    return curve(seed, flops, slowness / flops)


def of(rows: Sequence[TimeToTarget], name: str, words: str | None = None) -> TimeToTarget:
    return next(row for row in rows if row.arm == name and (words is None or row.reached_by == words))


def test_a_target_is_reached_between_the_reports_around_it() -> None:
    x, y = np.array([1.0, 2.0, 4.0]), np.array([8.0, 6.0, 2.0])
    assert first_reached(x, y, 4.0) == 3.0
    assert first_reached(x, y, 6.0) == 2.0
    assert first_reached(x, y, 9.0) == 1.0, "the first report, or at some time before it"
    assert first_reached(x, y, 1.0) is None


def test_the_targets_are_what_every_replica_of_all_arms_and_of_the_best_one_reached() -> None:
    good = arm("good", curve(0, [1, 2], [9, 1.0]), curve(1, [1, 2], [9, 2.0]))
    bad = arm("bad", curve(0, [1, 2], [9, 5.0]), curve(1, [1, 2], [9, 6.0]))
    rows = times_to_targets("t", [good, bad], "minimize")
    assert {(row.reached_by, row.target) for row in rows} == {(EVERY_ARM, 6.0), ("", 4.0), ("good", 2.0)}
    assert [of(rows, "bad", words).reached for words in (EVERY_ARM, "", "good")] == [2, 0, 0]
    assert of(rows, "bad", "good").mean is None, "a mean of those alone that got there would flatter"
    flipped = [
        arm(each.arm, *(curve(c.seed, [1, 2], (-c.values).tolist(), maximize=True) for c in each.curves))
        for each in (good, bad)
    ]
    mirrored = times_to_targets("t", flipped, "maximize")
    assert [(row.arm, -row.target, row.mean) for row in mirrored] == [(row.arm, row.target, row.mean) for row in rows]


def test_a_target_that_was_passed_before_the_first_report_gives_no_ratio() -> None:
    slow = arm("slow", *(curve(seed, [1, 2, 3], [9, 7, 5]) for seed in range(3)))
    fast = arm("fast", *(curve(seed, [1, 2, 3], [4, 3, 2]) for seed in range(3)))
    rows = times_to_targets("t", [slow, fast], "minimize")
    assert of(rows, "fast", EVERY_ARM).at_first == 3
    assert of(rows, "fast", EVERY_ARM).mean == pytest.approx(1.0)
    assert of(rows, "slow", EVERY_ARM).ratio is None


def test_the_interval_of_a_ratio_covers_the_true_one_at_its_rate() -> None:
    random, hits, sweeps = np.random.default_rng(3), 0, 400
    for _ in range(sweeps):
        luck = np.exp(random.normal(0.0, 0.2, size=3))
        own = np.exp(random.normal(0.0, 0.1, size=(2, 3)))
        fast = arm("fast", *(falling(seed, luck[seed] * own[0, seed]) for seed in range(3)))
        slow = arm("slow", *(falling(seed, 2.0 * luck[seed] * own[1, seed]) for seed in range(3)))
        row = of(times_to_targets("t", [fast, slow], "minimize"), "slow", EVERY_ARM)
        assert row.ratio_low is not None
        assert row.ratio_high is not None
        hits += row.ratio_low <= 2.0 <= row.ratio_high
    assert 0.925 <= hits / sweeps <= 0.975


def test_among_equal_arms_hardly_any_sweep_has_one_that_takes_longer() -> None:
    random, found, sweeps = np.random.default_rng(5), 0, 200
    for _ in range(sweeps):
        arms = [arm(f"arm{i}", *(falling(s, math.exp(random.normal(0.0, 0.2))) for s in range(5))) for i in range(8)]
        rows = [row for row in times_to_targets("t", arms, "minimize") if row.reached_by == EVERY_ARM]
        found += any(row.adjusted_p is not None and row.adjusted_p < 0.05 for row in rows)
    assert found / sweeps <= 0.05, "it is 0.03; corrected for the seven others alone, not for all pairs, 0.11"


def test_arms_are_compared_where_all_of_them_have_spent_as_much() -> None:
    long = arm("long", curve(0, [10, 100], [10.0, 1.0]), curve(1, [10, 100], [10.0, 1.2]))
    short = arm("short", curve(0, [10, 40], [8.0, 2.0]), curve(1, [10, 40], [8.0, 2.2]))
    rows = [row for row in equal_compute("t", [long, short], "minimize") if row.share == 1.0]
    assert {row.end for row in rows} == {40.0}
    assert [row.mean for row in rows] == pytest.approx([7.0 + 1 / 30, 2.1])
    assert {row.best for row in rows} == {"short"}, "the long one is better only with more compute"
    earlier = {row.share for row in equal_compute("t", [long, short], "minimize")}
    assert earlier == {0.25, 0.5, 1.0}


def test_the_area_is_the_mean_over_what_all_have_trained() -> None:
    straight = arm("a", curve(0, [0, 10], [10.0, 0.0]), curve(1, [0, 10], [10.0, 0.0]))
    later = arm("b", curve(0, [2, 4, 20], [3.0, 3.0, 3.0]), curve(1, [2, 4, 20], [3.0, 3.0, 3.0]))
    rows = {row.arm: row for row in areas("t", [straight, later], "flops", "minimize")}
    assert (rows["a"].start, rows["a"].end) == (2.0, 10.0)
    assert rows["a"].mean == pytest.approx(4.0)
    assert rows["b"].mean == pytest.approx(3.0)


def test_the_front_changes_where_the_curves_cross() -> None:
    quick = arm("quick", curve(0, [0, 10, 100], [8.0, 4.0, 4.0]))
    deep = arm("deep", curve(0, [0, 100], [8.0, 0.0]))
    found = leads("t", [quick, deep], "minimize")
    assert [lead.arm for lead in found] == ["quick", "deep"]
    assert found[0].end == pytest.approx(50.0, abs=1.0), "8 - 0.08 x = 4"
    assert found[-1].value == 0.0


def test_an_equal_arm_does_not_take_the_lead() -> None:
    arms = [arm("late", curve(0, [2, 20], [0.5, 0.5])), arm("early", curve(0, [1, 20], [0.5, 0.5]))]
    assert [lead.arm for lead in leads("t", arms, "maximize")] == ["early"]


def test_the_band_of_a_mean_is_its_t_interval_at_each_report() -> None:
    members = [curve(seed, [1, 2 + seed], [5.0 + seed, 1.0 + seed * seed]) for seed in range(3)]
    mean = mean_curve([*members[:2], replace(members[2])])
    assert mean is not None
    low, high = t_interval(np.array([[5.0, 6.0, 7.0], [1.0, 2.0, 5.0]]))
    assert (mean.low.tolist(), mean.high.tolist()) == (low.tolist(), high.tolist())
    assert mean.axes["flops"].tolist() == [1.0, 3.0]
    assert mean_curve(members[:2]) is None


def text_of(sections: Sequence[Section]) -> str:
    blocks = [block for section in sections for block in section.blocks]
    return "\n".join(block.text for block in blocks if isinstance(block, Text))


def test_the_report_says_who_takes_longer_where_the_interval_allows_it(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "s"))
    report = build_report(sweep)
    sections = efficiency.sections(report, sweep, "text")
    assert [section.title for section in sections] == [
        "Time to a target",
        "At equal compute",
        "Quality against compute",
    ]
    words = text_of(sections)
    rows = [row for row in report.efficiency.targets if row.axis == "tokens"]
    sure = [row.adjusted_p is not None and row.adjusted_p < 0.05 for row in rows]
    assert sure == [f"{significant(row.target)}, {row.arm} takes" in words for row in rows]
    assert {True, False} == set(sure)
    table = next(block for block in sections[1].blocks if isinstance(block, Table))
    assert table.leader == 0
    assert table.rows[0][0] == "transformer"


def test_a_sweep_without_replicas_shows_its_best_search_trials_and_what_they_are_worth(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "s", {}, search={"transformer": 4, "hrm": 4}))
    assert {each.evidence for each in curves_of(sweep, "text")} == {SEARCH}
    assert "not evidence" in text_of(curves.sections(build_report(sweep), sweep, "text"))
    assert all(row.low is None and row.adjusted_p is None for row in measure_efficiency(sweep).targets)


def test_a_sweep_in_which_nothing_has_completed_has_no_such_sections(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "s", {}, search={"transformer": 0, "hrm": 0}, finished=False))
    report = build_report(sweep)
    assert efficiency.sections(report, sweep, "text") == curves.sections(report, sweep, "text") == []


def test_money_and_energy_are_axes_where_they_are_known(tmp_path: Path) -> None:
    prices = {"prices": {"currency": "EUR", "cpu_hour": 3.6, "gpu_hour": 0.0}}
    directory = write_sweep(tmp_path / "s", RIVALS, experiment=prices)
    for trial in load_sweep(directory).select(phase="replica"):
        write_trial(directory, replace(trial, spent={"cpu_seconds": 1000.0}))
        path = directory / "trials" / trial.key / "records.jsonl"
        lines = [replace(each, system={"energy_joules": 2.0}).to_json() for each in read_reports(path)]
        path.write_text("".join(line + "\n" for line in lines))
    sweep = load_sweep(directory)
    member = curves_of(sweep, "text")[0].curves[0]
    assert member.axes["cost"][-1] == pytest.approx(1.0), "1000 seconds at 0.001 EUR"
    assert member.axes["joules"].tolist() == [2.0 * n for n in range(1, 25)]
    assert {"cost", "joules"} <= {row.axis for row in measure_efficiency(sweep).targets}
    labels = [
        button.label for button in validation_figure(sweep, curves_of(sweep, "text")).layout.updatemenus[0].buttons
    ]
    assert "against cost in EUR" in labels


def test_a_figure_of_curves_has_positions_for_every_trace_on_every_axis(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"<b>": [0.19, 0.2, 0.21], "hrm": [0.2, 0.21, 0.23]})
    figure = validation_figure(load_sweep(directory), curves_of(load_sweep(directory), "text"))
    menu = figure.layout.updatemenus[0]
    assert [button.label.removeprefix("against ") for button in menu.buttons] == [
        "optimizer steps",
        "examples",
        "scored tokens",
        "training FLOPs",
        "seconds of training",
    ]
    assert menu.buttons[menu.active].label == "against scored tokens", "the budget's axis"
    for button in menu.buttons:
        assert [len(x) for x in button.args[0]["x"]] == [len(trace.y) for trace in figure.data]
    assert {trace.legendgroup for trace in figure.data} == {"<b>", "hrm"}
    assert not any("<b>" in (trace.name or "") for trace in figure.data)


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_reader_chooses_the_axis_of_the_curves(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "s"))
    figure = validation_figure(sweep, curves_of(sweep, "text"))
    (tmp_path / "page.html").write_text(render_document("s", [Section("Curves", [Chart("curves", figure)])]))
    wanted = {button.label: button.args[0]["x"] for button in figure.layout.updatemenus[0].buttons}
    middle = "(box => [box.x + box.width / 2, box.y + box.height / 2])({}.getBoundingClientRect())"
    drawn = "document.getElementById('curves').data.map(trace => Array.from(trace.x))"
    with browser() as page:
        page.open(tmp_path / "page.html")
        assert page.run(drawn) == [list(x) for x in wanted["against scored tokens"]]
        page.click(*page.run(middle.format("document.querySelector('.updatemenu-header')")))
        choices = "[...document.querySelectorAll('.updatemenu-dropdown-button')]"
        wait_for(lambda: bool(page.run(f"{choices}.length")))
        seconds = f"{choices}.find(choice => choice.textContent.includes('seconds'))"
        page.click(*page.run(middle.format(seconds)))
        wait_for(lambda: page.run(drawn) == [list(x) for x in wanted["against seconds of training"]])
        assert page.complaints == []


def test_a_spike_in_a_long_training_is_drawn(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"transformer": [0.19]}, search={})
    trial = load_sweep(directory).trials[0]
    steps = tuple(
        StepRecord(Progress(n, n, n, float(n), float(n)), 0.0, {"loss": 77.0 if n == 3333 else 1.0 + 1.0 / n})
        for n in range(1, 5001)
    )
    report = TrialReport(1, steps[-1].progress, 0.0, {"loss": 0.2}, steps)
    (directory / "trials" / trial.key / "records.jsonl").write_text(report.to_json() + "\n")
    trace = training_figure(load_sweep(directory), [trial]).data[0]
    assert len(trace.y) <= 400
    assert max(trace.y) == 77.0
    assert trace.x[trace.y.index(77.0)] == 3333


def test_a_sweep_with_odd_replicas_has_all_its_sections(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {"transformer": [0.19, 0.2], "hrm": [0.2]}, tasks=("text", "maze"))
    lost = replace(replica("text", "hrm", 1, 0.2), state="failed", result=None, objective=None)
    empty = replica("text", "transformer", 2, 0.21)
    for trial in (lost, empty):
        write_trial(directory, trial, num_reports=0)
    sweep = load_sweep(directory)
    report = build_report(sweep)
    assert {row.task for row in report.efficiency.equal_compute} == {"text", "maze"}
    assert all(
        curves.sections(report, sweep, task) + efficiency.sections(report, sweep, task) for task in ("text", "maze")
    )
    assert "NaN" not in report.to_json()
