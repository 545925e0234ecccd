"""What halting saves: a model's runs on test rows by rules that were chosen on validation, beside full depth.

Whatever the numbers are, they are what is said: a rule that saves nothing, or that loses accuracy, is named so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from analysis.adaptive_choice import Choice
from analysis.checkpoints.calibration import Calibration, calibration
from analysis.checkpoints.row_intervals import Estimate, Sums, difference, interval
from analysis.numbers import finite, flop, plural, significant
from hrm.adaptive import Adapted, Retry
from hrm.halting_scores import Confidence

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

    @property
    def verdict(self) -> str:
        """A sentence."""
        if self.saved is None or self.difference is None:
            return f"{self.name}: {self.accuracy} right at {self.segments} segments a row"
        if self.saved.value <= 0.0:
            return f"{self.name} saves nothing: no threshold below full depth kept the accuracy on validation"
        kept = accuracy_words(self.difference)
        loss = f"; nats per scored position change by {self.loss_difference}" if self.loss_difference else ""
        return f"{self.name} saves {percentages(self.saved)} of the compute; the accuracy is {kept}{loss}"


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
    flops_per_segment: float
    """Forward, of a row."""
    choices: list[Choice]
    outcomes: list[Outcome]
    """Full depth first."""
    retried: list[Retried]
    device: str
    margin: float | None = None
    """Of the choice (`analysis.adaptive_choice`)."""
    command: str = ""

    def findings(self) -> list[str]:
        """Sentences, the dearest question first."""
        right = round(self.outcomes[0].accuracy.value * self.test_rows)
        few = f"Only {right} of {self.test_rows:,} rows are right at full depth: an equal accuracy means little here"
        verdicts = [*(one.verdict for one in self.outcomes[1:]), *(one.verdict for one in self.retried)]
        return [few, *verdicts] if right < LEAST_RIGHT else verdicts

    def lead(self) -> str:
        """What the rule that saves most at an accuracy that is not worse saves."""
        good = [one for one in self.outcomes[1:] if one.saved and one.difference and not is_worse(one.difference)]
        good = [one for one in good if one.saved is not None and one.saved.value > 0.0]
        if not good:
            return "No rule saves compute without a loss of accuracy here."
        best = max(good, key=lambda one: one.saved.value if one.saved else 0.0)
        return f"{best.verdict}."

    def to_json(self) -> str:
        """Everything, for programs; what is not finite becomes null."""
        said = {"findings": self.findings(), "lead": self.lead()}
        return json.dumps(finite(asdict(self) | said), allow_nan=False)


def outcome(name: str, rule: str, run: Run, groups: np.ndarray, of_a_segment: float, full: Run | None) -> Outcome:
    """A run's numbers; `full`: the run at full depth that it is held against."""
    found, ones = run.found, np.ones(len(run.right))
    right, losses = Sums(run.right, ones, True), Sums(found.losses, run.scored)
    most = int((full or run).found.spent.max())
    against: dict[str, object] = {}
    if full is not None:
        kept = Sums(found.spent / full.found.spent, ones, True)
        against = {
            "difference": difference(right, Sums(full.right, ones, True), groups),
            "loss_difference": difference(losses, Sums(full.found.losses, full.scored), groups),
            "saved": complement(_by_design(kept) if rule == "fixed" else interval(kept, groups)),
            "seconds_saved": [1.0 - own / whole for own, whole in zip(run.seconds, full.seconds, strict=True)],
        }
    return Outcome(
        name=name,
        rule=rule,
        accuracy=interval(right, groups),
        loss=interval(losses, groups),
        segments=interval(Sums(found.spent.astype(np.float64), ones), groups),
        flops=found.flops(of_a_segment),
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
        rows=int((more > 0).sum()),
        accuracy=interval(Sums(run.right, ones, True), groups),
        difference=difference(Sums(run.right, ones, True), Sums(before.right, ones, True), groups),
        gained=int((changed > 0).sum()),
        lost=int((changed < 0).sum()),
        cost=interval(Sums(more, ones), groups),
        seconds_more=float(np.median(run.seconds) - np.median(before.seconds)),
    )


def is_worse(change: Estimate) -> bool:
    """Whether the whole interval of a difference of accuracies is below 0."""
    return change.high is not None and change.high < 0.0


def accuracy_words(change: Estimate) -> str:
    """Equal where the interval of the paired difference holds 0; then how much may be lost is said."""
    if is_worse(change):
        return f"worse, by {_signed(change)}"
    if change.low is not None and change.low > 0.0:
        return f"better, by {_signed(change)}"
    return f"equal within its interval, {_signed(change)}"


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


def _signed(change: Estimate) -> str:
    low, high = (100 * (change.value if bound is None else bound) for bound in (change.low, change.high))
    return f"{100 * change.value:+.1f} points ({low:+.1f} to {high:+.1f})"
