"""Tables and words that a report shares with the commands: what arms cost, a front's aims, a value of any type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.front import POINTS_SHOWN, Front
from analysis.numbers import count, listing
from analysis.records import ArmCost, compared_to
from analysis.section import Table


def front_note(front: Front) -> str:
    """What the front is."""
    pairs = zip(front.objectives, front.directions, strict=True)
    aims = listing([f"{direction.removesuffix('e')}ing {name}" for name, direction in pairs])
    more = f" The first {POINTS_SHOWN} of {len(front.points)}." if len(front.points) > POINTS_SHOWN else ""
    return f"{front.arm}: no trial is better in all of {aims} on validation, one seed each.{more}"


def costs_table(costs: Sequence[ArmCost], reference: str) -> Table:
    """What each arm costs as its file states it; ratios are to the arm `reference` on the same task (`compared_to`)."""
    own = compared_to(costs, reference)
    header = ["arm", "parameters", "ratio", "table", "forward", "training", "ratio", "steps", "tokens"]
    rows = [
        [
            f"{cost.task}/{cost.arm}" if len(own) > 1 else cost.arm,
            f"{cost.parameters:,}",
            f"{cost.parameters / own[cost.task].parameters:.3f}",
            count(cost.table_values),
            count(cost.forward_flops_per_token),
            count(cost.flops_per_token),
            f"{cost.flops_per_token / own[cost.task].flops_per_token:.3f}",
            count(cost.steps),
            count(cost.tokens),
        ]
        for cost in costs
    ]
    return Table(header, rows, frozenset(range(1, len(header))), arms=[cost.arm for cost in costs])


def costs_notes(costs: Sequence[ArmCost], reference: str) -> list[str]:
    """What the columns mean, and how far the spaces move the costs of single arms."""
    references = references_in_words(costs, reference)
    lines = [
        "Parameters without puzzle tables, and the tables' values; FLOPs per token and segment, forward and in "
        f"training (a mean over it); ratios to {references}; steps and scored tokens that the budget buys. "
        "All as the experiment gives an arm, before its search: a searched value may change them."
    ]
    for cost in costs:
        ranges = (("parameters", cost.parameters_range), ("training FLOPs per token", cost.flops_per_token_range))
        moved = [f"{name} from {count(ends[0])} to {count(ends[1])}" for name, ends in ranges if ends]
        if moved:
            lines.append(f"The space of {cost.arm} takes {' and '.join(moved)}.")
    return list(dict.fromkeys(lines))


def references_in_words(costs: Sequence[ArmCost], reference: str) -> str:
    """`baseline`; where it does not run on every task, also what stands in: `baseline (transformer on other)`."""
    stand_ins = [
        f"{cost.arm} on {task}" for task, cost in compared_to(costs, reference).items() if cost.arm != reference
    ]
    return f"{reference} ({listing(stand_ins)})" if stand_ins else reference


def value_in_words(value: Any) -> str:
    """`0.0023`, `a, b`, `name 3, other 4`; a dash for None."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {value_in_words(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(value_in_words(item) for item in value)
    return "–" if value is None else str(value)
