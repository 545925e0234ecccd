"""Which held-out ARC tasks are trained on with their answers: by id, by a pair, or as a form (turned, recoloured).

Tasks were handed on from set to set: 376 evaluation tasks of ARC-AGI-1 are training tasks of ARC-AGI-2, where others of
their pairs may be the test. In ARC-AGI-1 itself, evaluation task 070dd51e is training task 40853293.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hrm.data.arc_forms import NUM_COLOURS
from hrm.data.arc_symmetry import as_form
from hrm.data.arc_tasks import ArcTask, Pair

Key = tuple[object, ...]


def trained_and_held_out(tasks: Sequence[ArcTask]) -> list[tuple[str, str]]:
    """The names of held-out tasks, each with that of a task that is trained on: with the same id, or with one of the
    test pairs, or as a form of the whole task in which a test pair is trained on. Pairs may stand in any order.
    """
    by_name: dict[str, list[ArcTask]] = {}
    by_pair: dict[bytes, list[ArcTask]] = {}
    by_key: dict[Key, list[ArcTask]] = {}
    for task in tasks:
        by_key.setdefault(_key(task), []).append(task)
        for pair in _trained(task):
            by_pair.setdefault(_digest(pair), []).append(task)
        if not task.held_out:
            by_name.setdefault(task.name, []).append(task)
    found: dict[tuple[str, str], None] = {}
    for task in tasks:
        if task.held_out:
            others = [*by_name.get(task.name, []), *(o for pair in task.tests for o in by_pair.get(_digest(pair), []))]
            others += [other for other in by_key[_key(task)] if _is_trained_form(other, task)]
            found |= dict.fromkeys((task.name, other.name) for other in others)
    return list(found)


def _trained(task: ArcTask) -> tuple[Pair, ...]:
    return task.demonstrations if task.held_out else task.pairs


def _is_trained_form(other: ArcTask, task: ArcTask) -> bool:
    """Whether the other is a form of the held-out task, and trains on what a test pair of this becomes."""
    if other.held_out and other.name == task.name:
        return False
    assigned = as_form(task.pairs, other.pairs)
    return assigned is not None and min(assigned[len(task.demonstrations) :]) < len(_trained(other))


def _key(task: ArcTask) -> Key:
    """Equal for all forms of a task, and seldom for others: sizes, and how often the colours occur."""
    return tuple(sorted(map(_key_of_pair, task.pairs)))


def _key_of_pair(pair: Pair) -> tuple[tuple[int, ...], ...]:
    black, *others = zip(*(np.bincount(grid.ravel(), minlength=NUM_COLOURS).tolist() for grid in pair), strict=True)
    return (*(tuple(sorted(grid.shape)) for grid in pair), black, *sorted(others))


def _digest(pair: Pair) -> bytes:
    digest = hashlib.sha256()
    for grid in pair:
        digest.update(bytes(grid.shape) + grid.tobytes())
    return digest.digest()
