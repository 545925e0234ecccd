"""The next trials of a search: whose turn it is to be asked for, and configurations that were never run before.

Everything here is a function of the study, so that a driver that was killed asks for the same again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hrm.errors import SpecError
from orchestrator.countable import shuffled, size
from orchestrator.experiment import Arm, SearchSpec
from orchestrator.failures import describe
from orchestrator.space import Space, distributions
from orchestrator.studies import SearchStudy, canonical

DRAWS = 4
"""Draws of the sampler for one proposal, of which each is a configuration that the study has. Then others propose."""
Generation = tuple[int, int]
"""Its number and how many trials it was to have."""


def due(study: SearchStudy, search: SearchSpec) -> tuple[int, Generation]:
    """How many trials to ask for now, and for which generation. A generation is asked for at once, when the one before
    it has ended; one that a kill cut short is asked for to its end."""
    trials = study.trials()
    left = search.trials - len(trials)
    if search.population is not None:
        return max(0, left), (0, 0)
    if left <= 0 or not search.deterministic:
        return max(0, min(1, left)), (0, 0)
    number, size = study.generation(trials[-1]) if trials else (-1, 0)
    missing = size - sum(study.generation(t)[0] == number for t in trials)
    if missing > 0:
        return min(missing, left), (number, size)
    if not all(t.state.is_finished() for t in trials):
        return 0, (0, 0)
    size = min(search.generation, left)
    return size, (number + 1, size)


def propose(study: SearchStudy, arm: Arm, search: SearchSpec, generation: Generation) -> int | None:
    """Log a new trial and give its number; None where the space has no configuration left.

    Given points come first. A combination that is refused is logged as failed, with its reason.
    """
    past = study.past()
    common: dict[str, Any] = {"generation": generation} if search.deterministic else {}
    for point in [*(p for p in arm.points if canonical(p) not in past.points), None]:
        attributes = common if point is None else {**common, "point": canonical(point)}
        for draft in _candidates(study, arm.space, point):
            if canonical(draft.params) in past.configurations:
                continue
            try:
                trial = arm.trial(draft.params, search.seed)
            except SpecError as error:
                spec = {**arm.template, "seed": search.seed}
                attributes = {**attributes, "spec": spec, "reason": describe(error).reason}
                return study.add(draft, attributes, TrialState.FAIL)
            if trial.hash() not in past.trial_ids:
                spec = trial.model_dump(mode="json")
                return study.add(draft, {**attributes, "trial_id": trial.hash(), "spec": spec})
    return None


def _candidates(study: SearchStudy, space: Space, point: Mapping[str, Any] | None) -> Iterator[FrozenTrial]:
    """Proposals, in the order of preference: the sampler's, then what is left of a countable space, or random ones."""
    whole = point is not None and point.keys() >= space.keys()
    for again in range(1 if whole else DRAWS):
        yield study.draw(space, again, point)
    if point is not None:
        return
    if size(distributions(space)) is None:
        for again in range(DRAWS, 5 * DRAWS):
            yield study.draw(space, again, uniform=True)
    for parameters in shuffled(distributions(space), study.seed):
        yield study.configured(space, parameters)
