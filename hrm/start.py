"""Where a training's weights come from, if not from its seed: another checkpoint, named by the digest of its weights.

The digest, not the place, is part of the trial's id, and it is checked again when the training starts. The optimizer,
the carry and the step are fresh.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from hrm.checkpoint import Checkpoint, DamagedCheckpointError, differences, read_checkpoint, weights_sha256
from hrm.errors import InfrastructureError, Problem, SpecError
from hrm.models import Model, ModelSpec
from hrm.spec import Spec

logger = logging.getLogger(__name__)
_WHAT_WEIGHTS_MEAN = (
    *("kind", "hidden_size", "num_heads", "expansion", "positions", "rotary_theta", "puzzle_tokens", "mixer"),
    "tied_embeddings",
    *("num_layers", "num_layers_per_stack", "H_layers", "L_layers", "convolution", "gated_convolution"),
)
"""Fields of a model with other values of which the same weights do not fit, or compute something else."""


PLACES = ("path", "sweep", "arm", "task", "store", "trial", "hub", "revision")
"""Fields that say where a start is, or was found: its digest is what it is."""


class StartSpec(Spec):
    """A checkpoint to start from (`checkpoint import` makes one of an original state dict).

    A file gives a `path`, also of a Transformers folder, or the `sweep` whose best checkpoint is meant, or a model on
    the `hub`; the rest is found when it is loaded.
    """

    path: str
    """Of the checkpoint's folder, readable by every worker."""
    sweep: str | None = None
    """A finished sweep, by its name in the same storage or by its directory."""
    arm: str | None = None
    task: str | None = None
    """Of that sweep; may be left out where it has one only."""
    store: str | None = None
    """The URI of the store where that sweep's copies are, if not in this storage."""
    trial: str | None = None
    """The key of the trial in that sweep, once it is found."""
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """`owner/name` of a Transformers model on the Hugging Face hub."""
    revision: str | None = None
    """Its branch, tag or commit; null: main."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of its weights (`hrm.checkpoint.weights_sha256`); an experiment fills it in when it is loaded."""
    without: tuple[str, ...] = ()
    """Parts that are drawn from the seed all the same, by the first words of their tensors' names: `embed_tokens` and
    `lm_head` for another vocabulary, `puzzle_emb` for other puzzles."""

    def canonical(self) -> dict[str, Any]:
        return {name: value for name, value in super().canonical().items() if name not in PLACES}


def unlike(model: ModelSpec, manifest: dict[str, Any], place: str) -> list[Problem]:
    """Why a checkpoint of this manifest is no start for such a model, so far as their specs tell."""
    theirs, ours = manifest["spec"]["model"], model.model_dump(mode="json")
    return [
        Problem(
            place,
            f"the checkpoint's model.{name} is {theirs[name]}, the trial's is {ours[name]}",
            f"Set model.{name}: {theirs[name]}, or start from another checkpoint",
        )
        for name in _WHAT_WEIGHTS_MEAN
        if name in theirs and name in ours and theirs[name] != ours[name]
    ]


def take_over(start: StartSpec, spec: ModelSpec, model: Model) -> dict[str, Any]:
    """Put the checkpoint's weights, as evaluations use them, into the freshly drawn `model`; gives the lineage.

    Initial states and the puzzle table are among them. Raises SpecError where something does not fit, and where the
    folder holds other weights than when the trial was named.
    """
    try:
        checkpoint = read_checkpoint(Path(start.path))
    except DamagedCheckpointError as error:  # it was good when the experiment was loaded: this node's view of it is not
        raise InfrastructureError(f"initialize_from cannot be read: {error}") from error
    problems = misfits(start, spec, model.state_dict(), checkpoint, f"initialize_from {start.path}")
    if problems:
        raise SpecError(*problems)
    weights = checkpoint.evaluation_weights
    model.load_state_dict({name: w for name, w in weights.items() if _part(name) not in start.without}, strict=False)
    drawn_anew = [name for name in model.state_dict() if _part(name) in start.without]
    logger.info("starts from %s%s", start.path, f"; drawn anew: {', '.join(drawn_anew)}" if drawn_anew else "")
    origin = {name: getattr(start, name) for name in ("sweep", "arm", "task", "trial")}
    return {**came_from(Path(start.path), checkpoint), **origin, "drawn_anew": drawn_anew}


def came_from(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a manifest's `lineage` says of the checkpoint that its weights came from."""
    manifest = checkpoint.manifest
    return {
        "path": str(path),
        "sha256": weights_sha256(manifest),
        "trial_id": manifest.get("trial_id"),
        "step": manifest["progress"].get("step"),
        "lineage": manifest.get("lineage"),
    }


def misfits(
    start: StartSpec, spec: ModelSpec, own: dict[str, Tensor], checkpoint: Checkpoint, place: str
) -> list[Problem]:
    """Everything that keeps a model with the tensors `own` from starting there; `place` starts each problem."""
    held = checkpoint.evaluation_weights
    problems = unlike(spec, checkpoint.manifest, place)
    digest = weights_sha256(checkpoint.manifest)
    if digest != start.sha256:
        rule = f"must hold the weights {start.sha256[:16]}, got {digest[:16]}: they were changed"
        problems.append(Problem(place, rule, "Put back what was there, or load the experiment again"))
    parts = dict.fromkeys(_part(name) for name in [*own, *held])
    for part in start.without:
        if part not in parts:
            rule = f"without: there is no part {part!r}"
            problems.append(Problem(place, rule, f"The parts are {', '.join(parts)}"))
    for part, rule in differences(own, held).items():
        if part not in start.without:
            way_out = f"Train on data of the same shape, or draw this part anew with without: [{part}]"
            problems.append(Problem(place, rule, way_out))
    return problems


def _part(name: str) -> str:
    return name.split(".")[0]
