"""What a sweep has spent: hours of processors, energy and money, as its trials' records say, against its limits.

A trial's record holds what all of its attempts took (`TrialRecord.spent`), those that failed or were pruned too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from analysis.records import TrialRecord

_UNITS = {"gpu_hours": "GPU-hours", "cpu_hours": "CPU-hours", "seconds": "seconds", "energy_kwh": "kWh"}


@dataclass(frozen=True, slots=True)
class Spending:
    """Amounts under the names that limits have."""

    gpu_hours: float
    """GPUs that trials held, times the hours that they held them; a share of a GPU counts as that share."""
    cpu_hours: float
    seconds: float
    """Of the driver at work, over all starts."""
    energy_kwh: float | None
    """Of the GPUs while trials held them, by NVML's counter; None where nothing reported it."""
    cost: float | None
    """None without prices."""


def spending(trials: Iterable[TrialRecord], seconds: float, prices: Mapping[str, Any]) -> Spending:
    """The sum over trials. `seconds`: how long a driver was at work."""
    return total([trial.spent for trial in trials], seconds, prices)


def total(spent: Iterable[Mapping[str, float]], seconds: float, prices: Mapping[str, Any]) -> Spending:
    """The sum of `TrialRecord.spent`s."""
    sums: dict[str, float] = {}
    for each in spent:
        for name, value in each.items():
            sums[name] = sums.get(name, 0.0) + value
    gpu_hours, cpu_hours = sums.get("gpu_seconds", 0.0) / 3600, sums.get("cpu_seconds", 0.0) / 3600
    per_hour = prices.get("gpu_hour", 0.0), prices.get("cpu_hour", 0.0)
    return Spending(
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        seconds=seconds,
        energy_kwh=sums["joules"] / 3.6e6 if "joules" in sums else None,
        cost=gpu_hours * per_hour[0] + cpu_hours * per_hour[1] if any(per_hour) else None,
    )


def reached(spent: Spending, limits: Mapping[str, float | None]) -> list[str]:
    """The limits that are reached, by name."""
    return [name for name, limit in limits.items() if limit is not None and (getattr(spent, name) or 0.0) >= limit]


def against_limits(spent: Spending, limits: Mapping[str, float | None], prices: Mapping[str, Any]) -> str:
    """`1.2 of 8 GPU-hours, 3.4 of 10 EUR`: every amount that has a limit."""
    parts = [
        f"{short(getattr(spent, name) or 0.0)} of {short(limit)} {unit(name, prices)}"
        for name, limit in limits.items()
        if limit is not None
    ]
    return ", ".join(parts)


def limit_sentence(spent: Spending, limits: Mapping[str, float | None], prices: Mapping[str, Any]) -> str:
    """Why a sweep ends at its limits, and the way on; empty while it may go on."""
    names = reached(spent, limits)
    if not names:
        return ""
    words = against_limits(spent, {name: limits[name] for name in names}, prices)
    fields = " and ".join(f"limits.{name}" for name in names)
    return (
        f"{fields} {'is' if len(names) == 1 else 'are'} reached: {words} spent. Raise it, and the same command goes on"
    )


def outlook(
    spent: Spending, ended: int, planned: int, limits: Mapping[str, float | None], prices: Mapping[str, Any]
) -> str:
    """Which limits a whole sweep will break if its trials go on as the ended ones; empty where none is in sight."""
    if not ended:
        return ""
    parts = []
    for name, limit in limits.items():
        expected = (getattr(spent, name) or 0.0) * planned / ended
        if limit is not None and expected > limit:
            parts.append(f"{short(expected)} {unit(name, prices)} (limits.{name} is {short(limit)})")
    if not parts:
        return ""
    return f"by the {ended} trials that have ended, all {planned} will take about {' and '.join(parts)}"


def limits_line(spent: Mapping[str, Any]) -> str:
    """For a sweep that has not finished: what it spent of what has a limit, or that this ended it. `spent`: as in
    report.json."""
    if not spent:
        return ""
    amounts = Spending(**{field.name: spent[field.name] for field in fields(Spending)})
    words = against_limits(amounts, spent["limits"], spent)
    sentence = limit_sentence(amounts, spent["limits"], spent) or (words and f"Spent: {words}")
    return sentence and f" {sentence}."


def spent_rows(spent: Mapping[str, Any]) -> list[list[str]]:
    """The amounts that are not nothing or have a limit, in words; none for a sweep that kept no account."""
    limits = spent.get("limits", {})
    names = [name for name in (*_UNITS, "cost") if limits.get(name) or (spent.get(name) and name != "seconds")]
    return [
        [
            "seconds of the driver" if name == "seconds" else f"{unit(name, spent)}, over all attempts",
            short(spent[name] or 0.0) + (f" of {short(limits[name])}" if limits.get(name) else ""),
        ]
        for name in names
    ]


def unit(name: str, prices: Mapping[str, Any]) -> str:
    """What an amount is counted in."""
    return _UNITS.get(name) or str(prices.get("currency", ""))


def short(value: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
