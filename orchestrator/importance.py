"""Which searched parameters mattered: fANOVA (Hutter et al. 2014) on the completed trials of each arm's search."""

from __future__ import annotations

from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from orchestrator.ledger import Ledger

MIN_TRIALS = 4
"""Completed trials below which nothing is said."""


def importances(ledger: Ledger) -> dict[str, dict[str, float]]:
    """By study (`arm`, or `task/arm` with several tasks), by parameter: its share. Empty where there is no evidence."""
    several = len(ledger.experiment.tasks) > 1
    result = {}
    for line in ledger.lines:
        done = [t for t in line.search.trials() if t.state == TrialState.COMPLETE]
        if len(done) < MIN_TRIALS or len({t.value for t in done}) == 1:
            continue
        label = f"{line.arm.task}/{line.arm.name}" if several else line.arm.name
        shares = get_param_importances(line.search.study, evaluator=FanovaImportanceEvaluator(seed=0))
        result[label] = {name: float(share) for name, share in shares.items()}
    return result
