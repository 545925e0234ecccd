"""`status --watch` draws what the files say, ends with the driver, and is plain text where there is no terminal."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sweep_fixture import replica, search_trial, write_sweep, write_trial

from orchestrator.cli import main
from orchestrator.store import SweepStore
from orchestrator.text_plot import Line, plot
from orchestrator.watching import _Watch


def drawn(*lines: Line, width: int = 60, height: int = 14) -> list[str]:
    return plot(lines, width, height, "steps").plain.splitlines()


def line(x: list[float], y: list[float]) -> Line:
    return Line(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), "cyan")


def test_a_curve_goes_from_its_first_value_to_its_last() -> None:
    rows = drawn(line([0, 10], [2.0, 1.0]))
    assert (rows[0][:7], rows[-3][:7]) == ("2.000 │", "1.000 │")
    top, bottom = rows[0].split("│")[1], rows[-3].split("│")[1]
    assert len(top.rstrip()) < len(bottom.rstrip()) == 60 - 7, "it falls from the left to the right edge"


def test_a_spike_reaches_its_height_and_what_is_not_finite_is_left_out() -> None:
    y = [1.0] * 50
    y[25], y[30] = 3.0, float("nan")
    rows = drawn(line(list(range(50)), y))
    assert rows[0].startswith("3.000")
    assert rows[0].split("│")[1].strip()
    assert plot([line([1], [float("inf")])], 60, 14, "steps").plain == "no report yet"


def test_values_that_fall_far_get_a_logarithmic_axis_which_is_said() -> None:
    assert "logarithmic" in drawn(line([0, 10], [8.0, 1.0]))[-1]
    assert "logarithmic" not in drawn(line([0, 10], [3.0, 1.0]))[-1]


def test_every_arm_keeps_its_colour_and_all_fits_the_width() -> None:
    lines = [Line(np.arange(1.0, 9.0), np.full(8, value), colour) for value, colour in ((1.0, "red"), (2.0, "blue"))]
    text = plot(lines, 40, 10, "tokens")
    assert {"red", "blue"} <= {str(span.style) for span in text.spans}
    assert max(map(len, text.plain.splitlines())) <= 40


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    """A sweep with a trial that runs."""
    write_sweep(tmp_path / "sweeps/demo", {"hrm": [0.2], "lstm": [0.3]}, finished=False)
    running = replace(replica("text", "hrm", 3, 0.1), state="running", result=None, ended=None, objective=0.123)
    write_trial(tmp_path / "sweeps/demo", running)
    return SweepStore(tmp_path, "demo")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60)])
def test_curves_legend_and_trials_fit_the_terminal(store: SweepStore, width: int, height: int) -> None:
    watch = _Watch(store)
    console = Console(width=width, height=height)
    with console.capture() as captured:
        console.print(watch.screen(next(watch.readings()), width, height))
    rows = captured.get().splitlines()
    assert len(rows) <= height
    assert max(map(len, rows)) <= width
    assert "hrm 0.1230, 1 running" in captured.get()
    assert "text-hrm-replica-0003" in captured.get()
    assert any("⠀" < sign <= "⣿" for sign in captured.get()), "a curve"


def test_without_a_terminal_each_change_is_a_line_until_the_driver_has_ended(
    store: SweepStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open()

    def later(seconds: float) -> None:
        """In the place of waiting: what another process would do meanwhile."""
        if "lstm-search-0009" in str(list((store.directory / "trials").iterdir())):
            store.close()
        write_trial(
            store.directory, replace(search_trial("text", "lstm", 0), key="text-lstm-search-0009", objective=0.11)
        )

    monkeypatch.setattr("time.sleep", later)
    assert main(["status", "demo", "--watch", "--storage", str(store.storage)]) == 0
    said = capsys.readouterr().out.splitlines()
    lines = [text for text in said if "trials ended" in text]
    assert len(lines) == 2, "the second reading adds a trial, the third nothing"
    assert "lstm 0.1100" in lines[1]
    assert "\x1b" not in "".join(said)
    assert any(text.startswith("demo") or "No winner so far" in text for text in said), "then it says where it stands"


def test_a_curve_is_not_read_again_before_it_has_grown(store: SweepStore) -> None:
    watch = _Watch(store)
    sweep = next(watch.readings())
    trial = next(trial for trial in sweep.trials if trial.state == "running")
    first = watch._reports(sweep, trial)
    assert watch._reports(next(watch.readings()), trial) is first
    with (sweep.folder_of(trial) / "records.jsonl").open("a") as file:
        file.write(
            (sweep.folder_of(trial) / "records.jsonl").read_text().splitlines()[-1].replace('"index":5', '"index":6')
            + "\n"
        )
    assert len(watch._reports(next(watch.readings()), trial)) == len(first) + 1


def test_watching_needs_neither_torch_nor_ray() -> None:
    code = "import sys, orchestrator.watching; print({'torch', 'ray', 'optuna', 'mlflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
