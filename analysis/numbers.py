"""Numbers as a reader wants them: three or four significant digits, with units that fit."""

from __future__ import annotations

import math
from typing import Any

_STEPS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_METRIC_UNITS = {"loss": "nats per token"}


def significant(value: float | None, digits: int = 4) -> str:
    """`0.1902`, `1234`, `1.2e-05`; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0.0 and not 1e-4 <= abs(value) < 10 ** max(digits, 6):
        return f"{value:.{digits - 1}e}"
    return f"{value:z.{_decimals(value, digits)}f}"


def together(value: float, *bounds: float | None) -> tuple[str, ...]:
    """A value and its bounds with equal decimals: three digits of the value or two of the interval, at most six."""
    known = [bound for bound in bounds if bound is not None and math.isfinite(bound)]
    width = max((abs(bound - value) for bound in known), default=0.0)
    decimals = _decimals(value, 3)
    if width > 0.0:
        decimals = min(max(decimals, _decimals(width, 2)), _decimals(value, 6))
    return tuple("–" if number is None else f"{number:z.{decimals}f}" for number in (value, *bounds))


def count(value: float | None) -> str:
    """`950`, `12.3 k`, `4.56 M`."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) < 10_000 else _scaled(value, digits=3)


def flop(value: float | None) -> str:
    """`1.2 TFLOP`."""
    return "–" if value is None else f"{_scaled(value, digits=2)}FLOP"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `42 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = (whole % size) // part
            return f"{whole // size} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def amount(value: float, axis: str) -> str:
    """A budget in words: `2 M tokens`, `1.2 PFLOP`, `10 min`."""
    match axis:
        case "flops":
            return flop(value)
        case "seconds":
            return f"{duration(value)} of training"
        case _:
            return f"{count(value)} {axis}"


def percent(share: float | None) -> str:
    """`97 %`; never rounded to certainty."""
    if share is None:
        return "–"
    return "> 99 %" if 0.99 < share < 1.0 else "< 1 %" if 0.0 < share < 0.01 else f"{100 * share:.0f} %"


def p_value(p: float | None) -> str:
    """`0.032`, `< 0.001`."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def metric_unit(metric: str) -> str:
    """What a metric is counted in, empty where the name says it."""
    return _METRIC_UNITS.get(metric, "")


def plural(number: int, word: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def listing(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _scaled(value: float, digits: int) -> str:
    for size, prefix in _STEPS:
        if abs(value) >= size:
            shown = value / size
            text = f"{shown:.{_decimals(shown, digits)}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {prefix}"
    return f"{value:.0f} "


def _decimals(value: float, digits: int) -> int:
    if value == 0.0:
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def finite(value: Any) -> Any:
    """What JSON can hold: None in the place of NaN and infinities, however deep."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
