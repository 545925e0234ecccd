"""Effects in words: the cells of a table of differences, the same wherever arms are compared."""

from __future__ import annotations

from analysis.ablations import Change
from analysis.effects import Effect, is_better
from analysis.intervals import Direction, Mean
from analysis.numbers import p_value, percent, significant, together
from analysis.over_rows import OverRows
from analysis.tables import value_in_words

HEADER = ["95 % interval", "seeds", "p (Holm)", "relative", "chance to be better", "detectable", "spreads"]
"""What `effect_cells` gives, after the difference."""
LEGEND = [
    "relative: of the other's mean, by Fieller's interval. chance to be better: that the first beats the other in a "
    "further run of each, for normal values, with the pairs of seeds in which it did. detectable: about the smallest "
    "true difference that these seeds would have shown in 80 % of repetitions, before Holm's correction. spreads: the "
    "difference in standard deviations of a difference between two runs (Hedges' g).",
    "Below ten seeds differences are taken for normal (t), from ten pairs on intervals and p are a bootstrap's. Each "
    "interval is 95 % for itself alone; only p is corrected for the number of comparisons.",
]
_SURE = 1e-12
ONE_SEED, EQUAL = "one seed", "equal at every seed"
"""What stands where there is no interval."""


def effect_cells(found: Effect) -> list[str]:
    """The difference, then what HEADER names."""
    if found.mean is None:
        return ["–", "–", "0", *["–"] * 5]
    mean, low, high = together(found.mean, found.low, found.high)
    interval = ONE_SEED if found.low is None else EQUAL if found.low == found.high else f"{low} to {high}"
    counted = f", {found.better_at} of {found.n}" if found.better_at is not None and found.n > 1 else ""
    return [
        mean,
        interval,
        str(found.n),
        p_value(found.adjusted_p),
        _relative(found),
        _chance(found) + counted,
        significant(found.detectable, 2),
        _between(found.size, found.size_low, found.size_high),
    ]


def mean_cell(value: Mean) -> str:
    """`0.190 (0.186 to 0.194)`."""
    mean, low, high = together(value.mean, value.low, value.high)
    spread = ONE_SEED if value.low is None else EQUAL if value.low == value.high else f"{low} to {high}"
    return f"{mean} ({spread})"


def rows_cell(value: OverRows | None) -> str:
    """The same over seeds and test rows."""
    if value is None:
        return "–"
    mean, low, high = together(value.mean, value.low, value.high)
    return f"{mean} ({low} to {high}{', one seed' if value.seeds == 1 else ''})"


def chance(share: float | None) -> str:
    """`97 %`, `> 99 %`: of a chance that was estimated, which is never certain."""
    return percent(share if share is None else min(max(share, _SURE), 1.0 - _SURE))


def verdict(found: Effect, direction: Direction) -> str:
    """`better`, `worse`, `cannot tell`: by Holm's p, where there is one."""
    if found.adjusted_p is None or found.mean is None:
        return "cannot tell"
    if is_better(found, direction):
        return "better"
    return "worse" if is_better(found, "maximize" if direction == "minimize" else "minimize") else "cannot tell"


def change_in_words(change: Change) -> list[str]:
    """Its path, the value before, the value, and whether a search found it."""
    values = (value_in_words(value) for value in (change.before, change.value))
    return [change.path, *values, "searched" if change.searched else ""]


def _relative(found: Effect) -> str:
    if found.relative is None or found.relative_low is None or found.relative_high is None:
        return "–"
    bounds = (found.relative_low, found.relative_high)
    mean, low, high = together(100.0 * found.relative, *(100.0 * bound for bound in bounds))
    return f"{_signed(mean)} % ({_signed(low)} to {_signed(high)})"


def _between(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return significant(value, 2) if low is None else f"{value:.1f} ({low:.1f} to {high:.1f})"


def _chance(found: Effect) -> str:
    if found.probability is None:
        return "–"
    value, low, high = map(chance, (found.probability, found.probability_low, found.probability_high))
    return value if low == high else f"{value} ({low} to {high})"


def _signed(number: str) -> str:
    return number if number.startswith(("-", "–")) else f"+{number}"
