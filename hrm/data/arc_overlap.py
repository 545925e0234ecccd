"""Which held-out ARC tasks are trained on with their answers: by id, or by their pairs, in whatever order they stand.

Tasks were handed on from set to set: 376 evaluation tasks of ARC-AGI-1 are training tasks of ARC-AGI-2, where others of
their pairs may be the test. In ARC-AGI-1 itself, evaluation task 070dd51e is training task 40853293.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hrm.data.arc_tasks import ArcTask, Pair


def trained_and_held_out(tasks: Iterable[ArcTask]) -> list[str]:
    """The names of held-out tasks of which a trained task has the id, or the pairs, or any trained pair a test pair."""
    tasks = list(tasks)
    trained = [task for task in tasks if not task.held_out]
    names = {task.name for task in trained}
    wholes = {_digest_of_all(task.pairs) for task in trained}
    pairs = {_digest(pair) for task in tasks for pair in (task.demonstrations if task.held_out else task.pairs)}
    found = [
        task.name
        for task in tasks
        if task.held_out
        and (
            task.name in names
            or _digest_of_all(task.pairs) in wholes
            or any(_digest(pair) in pairs for pair in task.tests)
        )
    ]
    return list(dict.fromkeys(found))


def _digest_of_all(pairs: Iterable[Pair]) -> bytes:
    return hashlib.sha256(b"".join(sorted(map(_digest, pairs)))).digest()


def _digest(pair: Pair) -> bytes:
    digest = hashlib.sha256()
    for grid in pair:
        digest.update(bytes(grid.shape) + grid.tobytes())
    return digest.digest()
