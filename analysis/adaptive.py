"""What halting saves: a model's runs on test rows by rules that were chosen on validation, beside full depth.

Whatever the numbers are, they are what is said: a rule that saves nothing, or that loses accuracy, is named so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from analysis.adaptive_choice import Choice
from analysis.checkpoints.calibration import Calibration, calibration
from analysis.checkpoints.row_intervals import Estimate, Sums, difference, interval
from analysis.numbers import finite, flop, plural, significant
from hrm.adaptive import Adapted, Cost, Retry
from hrm.halting_scores import Confidence

NEGLIGIBLE = 0.01
"""The loss of accuracy that an equal one may hide at most, where no margin was asked for."""
LEAST_RIGHT = 10
LEAST_ROWS = 30
"""Below, nothing is said of calibration."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was computed: a run on rows, with its truth and its times."""

    found: Adapted
    right: np.ndarray
    """[N] float64: 1 where the answer is right."""
    scored: np.ndarray
    """[N] float64: scored positions."""
    seconds: list[float]
    """Of each of its repetitions."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run on the test rows, against full depth on the same rows."""

    name: str
    rule: str
    accuracy: Estimate
    loss: Estimate
    """Nats per scored position."""
    segments: Estimate
    """Computed for a row, in the mean."""
    flops: float
    seconds: float
    """The median of its repetitions."""
    histogram: list[int]
    """Rows by segments that were computed, from 1."""
    difference: Estimate | None = None
    """Of the accuracies, paired row by row; None for full depth itself."""
    loss_difference: Estimate | None = None
    saved: Estimate | None = None
    """The share of full depth's FLOPs that was not computed."""
    seconds_saved: list[float] | None = None
    """The share of full depth's time that was not taken, in each pair of repetitions."""
    calibration: Calibration | None = None
    """Of the confidence, as the probability that the answer is right."""

    def verdict(self, margin: float) -> str:
        """A sentence. margin: the loss that an equal accuracy may hide at most."""
        if self.saved is None or self.difference is None:
            return f"{self.name}: {self.accuracy} right at {self.segments} segments a row"
        if self.saved.value <= 0.0:
            return f"{self.name} saves nothing: no threshold below full depth kept the accuracy on validation"
        accuracy = accuracy_words(self.difference, margin)
        loss = f"; nats per scored position change by {self.loss_difference}" if self.loss_difference else ""
        return f"{self.name} saves {percentages(self.saved)} of the compute; {accuracy}{loss}"


@dataclass(frozen=True, slots=True)
class Retried:
    """A rule with more for its unsure rows, against the same rule without."""

    name: str
    below: float
    segments_more: int
    restarts: int
    rows: int
    """That were unsure."""
    accuracy: Estimate
    difference: Estimate
    gained: int
    lost: int
    """Rows that became right, and that became wrong."""
    cost: Estimate
    """Segments a row that it took, in the mean over all rows."""
    seconds_more: float

    @property
    def verdict(self) -> str:
        """A sentence."""
        if not self.rows:
            return f"{self.name}: no row was below a confidence of {self.below:g}, so nothing was retried"
        rows = plural(self.rows, "unsure row")
        gain = f"{self.gained} became right and {self.lost} wrong ({_signed(self.difference)})"
        return f"{self.name}, retried below {self.below:g}: {rows}; {gain} for {self.cost} segments more a row"


@dataclass(frozen=True, slots=True)
class Adaptivity:
    """All of a checkpoint on a task."""

    checkpoint: str
    task: str
    metric: str
    segments: int
    """Of full depth."""
    confidence: Confidence
    validation_rows: int
    test_rows: int
    cost: Cost
    choices: list[Choice]
    outcomes: list[Outcome]
    """Full depth first."""
    retried: list[Retried]
    device: str
    margin: float | None = None
    """Of the choice (`analysis.adaptive_choice`)."""
    command: str = ""

    @property
    def tolerated(self) -> float:
        """The loss that an equal accuracy may hide at most."""
        return NEGLIGIBLE if self.margin is None else self.margin

    def findings(self) -> list[str]:
        """Sentences, the dearest question first."""
        verdicts = [*(one.verdict(self.tolerated) for one in self.outcomes[1:]), *(one.verdict for one in self.retried)]
        return [*(line for line in (self._too_few_right(), self._nothing_adaptive()) if line), *verdicts]

    def lead(self) -> str:
        """What the rule saves that saves most at an accuracy that is equal or better, or else is not shown to be."""
        if few := self._too_few_right():
            return f"{few}."
        shown, saving = self._saving()
        if not saving:
            return "No rule saves compute without a loss of accuracy here."
        doubt = "" if shown else "No rule that saves compute is shown to keep the accuracy. "
        return f"{doubt}{saving[0].verdict(self.tolerated)}."

    def _saving(self) -> tuple[bool, list[Outcome]]:
        """The rules that save something, the one that saves most first: those whose accuracy is shown to be kept, and
        only where there are none (False) those of which nothing is shown."""
        saving = [(one.saved.value, one) for one in self.outcomes[1:] if one.saved and one.saved.value > 0.0]
        ordered = [one for _, one in sorted(saving, key=lambda pair: -pair[0])]
        known = [(change_of(one.difference, self.tolerated), one) for one in ordered if one.difference]
        kept = [one for change, one in known if change in ("equal", "better")]
        return bool(kept), kept or [one for change, one in known if change == "open"]

    def _too_few_right(self) -> str:
        right = round(self.outcomes[0].accuracy.value * self.test_rows)
        few = f"Only {right} of {self.test_rows:,} rows are right at full depth: an equal accuracy means little here"
        return few if right < LEAST_RIGHT else ""

    def _nothing_adaptive(self) -> str:
        """Where no rule by row saves more than a depth that is the same for all."""
        saving = {one.name: one.saved.value for one in self._saving()[1] if one.saved}
        fixed = [one for one in self.outcomes[1:] if one.rule == "fixed" and one.name in saving]
        by_row = [one.name for one in self.outcomes[1:] if one.rule != "fixed"]
        if not fixed or not by_row or saving[fixed[0].name] < max(saving.get(name, 0.0) for name in by_row):
            return ""
        return f"A fixed depth of {fixed[0].segments.value:g} saves as much: nothing adaptive is shown"

    def to_json(self) -> str:
        """Everything, for programs; what is not finite becomes null."""
        said = {"findings": self.findings(), "lead": self.lead()}
        return json.dumps(finite(asdict(self) | said), allow_nan=False)


def outcome(name: str, rule: str, run: Run, groups: np.ndarray, cost: Cost, full: Run | None) -> Outcome:
    """A run's numbers; `full`: the run at full depth that it is held against."""
    found, ones = run.found, np.ones(len(run.right))
    right, losses = Sums(run.right, ones, True), Sums(found.losses, run.scored)
    most = int((full or run).found.spent.max())
    against: dict[str, object] = {}
    if full is not None:
        whole = full.found.flops(cost)
        least = float(((cost.segment + cost.answer) / whole).mean())
        kept = Sums(found.flops(cost) / whole, ones, True)
        against = {
            "difference": difference(right, Sums(full.right, ones, True), groups),
            "loss_difference": difference(losses, Sums(full.found.losses, full.scored), groups),
            "saved": complement(_by_design(kept) if rule == "fixed" else _at_least(interval(kept, groups), least)),
            "seconds_saved": [1.0 - own / all_of_it for own, all_of_it in zip(run.seconds, full.seconds, strict=True)],
        }
    return Outcome(
        name=name,
        rule=rule,
        accuracy=interval(right, groups),
        loss=interval(losses, groups),
        segments=interval(Sums(found.spent.astype(np.float64), ones), groups),
        flops=float(found.flops(cost).sum()),
        seconds=float(np.median(run.seconds)),
        histogram=np.bincount(found.spent, minlength=most + 1)[1:].tolist(),
        calibration=calibration(found.confidence, run.right, groups) if len(ones) >= LEAST_ROWS else None,
        **against,  # type: ignore[arg-type]
    )


def retried(name: str, retry: Retry, run: Run, before: Run, groups: np.ndarray) -> Retried:
    """What `retry` changed."""
    ones, changed = np.ones(len(run.right)), run.right - before.right
    more = (run.found.spent - before.found.spent).astype(np.float64)
    return Retried(
        name=name,
        below=retry.below,
        segments_more=retry.segments,
        restarts=retry.restarts,
        rows=int((before.found.confidence < retry.below).sum()),
        accuracy=interval(Sums(run.right, ones, True), groups),
        difference=difference(Sums(run.right, ones, True), Sums(before.right, ones, True), groups),
        gained=int((changed > 0).sum()),
        lost=int((changed < 0).sum()),
        cost=interval(Sums(more, ones), groups),
        seconds_more=float(np.median(run.seconds) - np.median(before.seconds)),
    )


def change_of(difference: Estimate, margin: float) -> Literal["worse", "better", "equal", "open"]:
    """What the interval of a paired difference of accuracies shows: that it is none in the main, `equal`, where it
    rules out a loss beyond the margin."""
    if difference.low is None or difference.high is None:
        return "open"
    if difference.high < 0.0 or difference.low > 0.0:
        return "worse" if difference.high < 0.0 else "better"
    return "equal" if difference.low >= -margin else "open"


def accuracy_words(difference: Estimate, margin: float) -> str:
    """A clause; where nothing is shown, how much may be lost."""
    change, signed = change_of(difference, margin), _signed(difference)
    if change == "equal":
        return f"the accuracy is equal to within {in_points(margin)}, {signed}"
    if change != "open":
        return f"the accuracy is {change}, by {signed}"
    lost = "all of it" if difference.low is None else f"up to {in_points(math.ceil(-1000 * difference.low) / 1000)}"
    return f"no difference of accuracy is shown, but {lost} may be lost, {signed}"


def percentages(share: Estimate) -> str:
    """`48 % (46 to 50)`."""
    if share.low is None or share.high is None:
        return f"{100 * share.value:.1f} %"
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def complement(share: Estimate) -> Estimate:
    """One minus a share."""
    low, high = (None if bound is None else 1.0 - bound for bound in (share.high, share.low))
    return Estimate(1.0 - share.value, low, high, share.n)


def cost_words(outcomes: Sequence[Outcome]) -> str:
    """FLOPs and time of full depth."""
    full = outcomes[0]
    return f"full depth took {flop(full.flops)} and {significant(full.seconds, 3)} s"


def _by_design(share: Sums) -> Estimate:
    """A fixed depth costs every row the same, others too."""
    return Estimate(share.value, share.value, share.value, len(share.sums))


def _at_least(share: Estimate, least: float) -> Estimate:
    """A share that cannot be less: each row has one segment and one answer."""
    return Estimate(share.value, None if share.low is None else max(share.low, least), share.high, share.n)


def in_points(share: float) -> str:
    """`1 point`, `0.5 points`."""
    number = f"{100 * share:.1f}".removesuffix(".0")
    return f"{number} point" if number == "1" else f"{number} points"


def _signed(change: Estimate) -> str:
    low, high = (100 * (change.value if bound is None else bound) for bound in (change.low, change.high))
    return f"{100 * change.value:+.1f} points ({low:+.1f} to {high:+.1f})"
