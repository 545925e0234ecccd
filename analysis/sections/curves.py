"""How the trials of a task learned: the metric on validation and the loss in training, on any axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.arms import REPLICAS, SEARCH
from analysis.curve_figures import STEP_CURVES, training_figure, validation_figure
from analysis.curves import BAND_FROM, ArmCurves, curves_of
from analysis.section import Chart, Section, Text
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of the arms' replicas, or of the best search trials where there are none."""
    arms = curves_of(sweep, task)
    if not arms:
        return []
    number = sweep.record.tasks.index(task)
    validation = Chart(f"curves-{number}", validation_figure(sweep, arms))
    found = [Section("Validation while training", [validation, Text(_note(arms), quiet=True)])]
    keys = {curve.key for each in arms for curve in each.curves}
    trials = [trial for trial in sweep.select(task=task) if trial.key in keys]
    training = training_figure(sweep, trials)
    if training.data:
        text = "Each optimizer step; of long trainings the lowest and the highest of each stretch, so that spikes stay."
        if len(trials) > STEP_CURVES:
            text += f" {STEP_CURVES} of {len(trials)} trials, evenly from the arms."
        chart = Chart(f"training-{number}", training)
        found.append(Section("Loss in training", [chart, Text(text, quiet=True)], folded=True))
    return found


def _note(arms: list[ArmCurves]) -> str:
    if arms[0].evidence == SEARCH:
        return f"No replica has completed. Each arm's best search trial: {SEARCH.partition(', ')[2]}."
    assert arms[0].evidence == REPLICAS
    if any(len(each.curves) >= BAND_FROM for each in arms):
        return (
            "Thin: each replica. Wide: their mean at the reports that all of them have, with its 95 % interval at each "
            f"(Student's t), from {BAND_FROM} replicas on; a band that leaves what the curves span is cut there."
        )
    return f"Each replica; a mean and its interval are drawn from {BAND_FROM} on."
