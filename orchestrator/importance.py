"""Which searched parameters mattered: fANOVA (Hutter et al. 2014) on the completed trials of each arm's search.

With several objectives: for the first of them. Trials outside a space that has moved are left out.
"""

from __future__ import annotations

from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from orchestrator.ledger import Ledger
from orchestrator.space import distributions
from orchestrator.study_view import shown, within

MIN_TRIALS = 4
"""Completed trials below which nothing is said."""
MOST_TRIALS = 200
"""Completed trials that are looked at, of an arm that has more, evenly over the search: fANOVA takes minutes for
thousands."""


def importances(ledger: Ledger) -> dict[str, dict[str, float]]:
    """By study (`arm`, or `task/arm` with several tasks), by parameter: its share. Empty where there is no evidence."""
    several = len(ledger.experiment.tasks) > 1
    result = {}
    for line in ledger.lines:
        if line.population is not None:
            continue  # what a member found hangs on more than the parameters that it began with
        completed = [t for t in line.search.trials() if t.state == TrialState.COMPLETE]
        done = list(within(completed, distributions(line.arm.space)))
        if len(done) < MIN_TRIALS or len({t.values[0] for t in done}) == 1:
            continue
        done = done[:: -(-len(done) // MOST_TRIALS)]
        label = f"{line.arm.task}/{line.arm.name}" if several else line.arm.name
        study, evaluator = shown(line.search.study, done, done[0]), FanovaImportanceEvaluator(seed=0)
        shares = get_param_importances(study, evaluator=evaluator, target=lambda t: t.values[0])
        result[label] = {name: float(share) for name, share in shares.items()}
    return result
