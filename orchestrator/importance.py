"""Which searched parameters mattered: PED-ANOVA (Watanabe et al. 2023) on each arm's search."""

from __future__ import annotations

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from orchestrator.ledger import Ledger

MIN_TRIALS = 6
"""Fewer finished trials say nothing about importance."""


def importances(ledger: Ledger) -> dict[str, dict[str, float]]:
    """By study (`arm`, or `task/arm` with several tasks), by parameter: its share. Empty where there is no evidence."""
    several = len(ledger.experiment.tasks) > 1
    result = {}
    for line in ledger.lines:
        label = f"{line.arm.task}/{line.arm.name}" if several else line.arm.name
        done = [t for t in line.search.trials() if t.state == TrialState.COMPLETE]
        if len(done) < MIN_TRIALS or not line.arm.space:
            continue
        evaluator = PedAnovaImportanceEvaluator(evaluate_on_local=False)
        shares = get_param_importances(line.search.study, evaluator=evaluator)
        result[label] = {name: float(share) for name, share in shares.items()}
    return result
