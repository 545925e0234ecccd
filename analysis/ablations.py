"""Every arm against the arm that the others are changes of: the effect, and what was changed, one factor or several.

What was changed is read from the specs that ran, so that a searched value counts as a change, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.arms import ArmResult, chosen_replicas, measured
from analysis.effects import Effect, adjusted, effect
from analysis.sweep import Sweep

_MISSING = object()
_NOT_A_FACTOR = ("seed",)


@dataclass(frozen=True, slots=True)
class Change:
    """A field of the trial that differs from the reference's. Where a part is of another kind, the part counts once."""

    path: str
    value: Any
    before: Any
    searched: bool
    """Found by each arm's own search, not stated by the experiment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation(Effect):
    """`arm` minus `reference` on one task, paired by seed, Holm-corrected over the arms of the task."""

    task: str
    arm: str
    reference: str
    changes: tuple[Change, ...]
    one_factor: bool
    """Whether a single field differs, so that the effect is this field's."""
    failed: int
    """Of its replicas: they are not in the mean. A change that diverges is a result."""
    replicas: int


def ablations(sweep: Sweep, arms: Sequence[ArmResult], reference: str) -> list[Ablation]:
    """By task, in the order of the experiment. On a task without the reference's replicas the first arm with some
    stands in for it; a task on which fewer than two arms ran has none."""
    return [row for task in sweep.record.tasks for row in _of_task(sweep, arms, task, reference)]


def differing(spec: Mapping[str, Any], before: Mapping[str, Any], searched: Sequence[str] = ()) -> tuple[Change, ...]:
    """The fields in which two trials differ, but for their seeds; those that no search found first."""
    changes = _differing(spec, before, "")
    found = [
        Change(path, value, old, any(path == name or name.startswith(f"{path}.") for name in searched))
        for path, value, old in changes
        if path not in _NOT_A_FACTOR
    ]
    return tuple(sorted(found, key=lambda change: change.searched))


def _of_task(sweep: Sweep, arms: Sequence[ArmResult], task: str, reference: str) -> list[Ablation]:
    values, here = measured(arms, task), [arm for arm in arms if arm.task == task and arm.replicas]
    own = reference if reference in values else next(iter(values), None)
    if own is None:
        return []
    return adjusted([_ablation(sweep, arm, own, values) for arm in here if arm.name != own])


def _ablation(sweep: Sweep, arm: ArmResult, reference: str, values: Mapping[str, Mapping[int, float]]) -> Ablation:
    changes = _changes(sweep, arm.task, arm.name, reference)
    return Ablation(
        **asdict(effect(values.get(arm.name, {}), values[reference], sweep.record.direction)),
        task=arm.task,
        arm=arm.name,
        reference=reference,
        changes=changes,
        one_factor=len(changes) == 1,
        failed=arm.replicas_failed,
        replicas=arm.replicas,
    )


def _changes(sweep: Sweep, task: str, arm: str, reference: str) -> tuple[Change, ...]:
    one, other = chosen_replicas(sweep, task, arm)[0], chosen_replicas(sweep, task, reference)[0]
    return differing(one.spec, other.spec, [*one.parameters, *other.parameters])


def _differing(new: Any, old: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        if new.get("kind") != old.get("kind"):
            return [(f"{path}.kind".lstrip("."), new.get("kind"), old.get("kind"))]
        names = dict.fromkeys([*new, *old])
        found = [
            _differing(new.get(name, _MISSING), old.get(name, _MISSING), f"{path}.{name}".lstrip(".")) for name in names
        ]
        return [change for changes in found for change in changes]
    if new == old or _MISSING in (new, old):
        return []  # a field that one version of the spec lacks had its default
    return [(path, new, old)]
