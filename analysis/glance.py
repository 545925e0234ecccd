"""What a sweep says at a glance, in the time of a glance: no curve is read, nothing is drawn or fitted."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from analysis.answer import answer_task, summary
from analysis.arms import measure_arms
from analysis.front import Front, fronts
from analysis.records import TrialState
from analysis.spending import spending
from analysis.sweep import Sweep

STATES: tuple[TrialState, ...] = ("waiting", "running", "completed", "pruned", "failed")


@dataclass(frozen=True, slots=True)
class Glance:
    """As the fields of these names in a report."""

    answer: dict[str, Any]
    trials: dict[str, int]
    spent: dict[str, Any]
    exhausted: list[str]
    fronts: list[Front]


def glance(sweep: Sweep) -> Glance:
    """Where the sweep stands."""
    record, arms = sweep.record, measure_arms(sweep)
    return Glance(
        answer=summary([answer_task(record, arms, task) for task in record.tasks]),
        trials=trial_counts(sweep),
        spent=spent(sweep),
        exhausted=list(record.exhausted),
        fronts=fronts(sweep),
    )


def trial_counts(sweep: Sweep) -> dict[str, int]:
    """`{total, planned}` and the number in each state."""
    states = Counter(trial.state for trial in sweep.trials)
    by_state: dict[str, int] = {state: states[state] for state in STATES}
    return {"total": len(sweep.trials), "planned": sweep.record.planned_trials, **by_state}


def spent(sweep: Sweep) -> dict[str, Any]:
    """The amounts of `analysis.spending`, with the currency and the limits."""
    asked = sweep.record.experiment
    prices, limits = asked.get("prices") or {}, asked.get("limits") or {}
    amounts = spending(sweep.trials, sweep.record.elapsed_seconds, prices)
    return {**asdict(amounts), "currency": prices.get("currency", ""), "limits": dict(limits)}
