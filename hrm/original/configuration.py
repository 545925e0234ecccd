"""What an original checkpoint is a checkpoint of: from its `all_config.yaml`, fields given, and the tensors' shapes.

What the shapes show is read off them, and a configuration that says otherwise is refused. What neither shows (heads,
cycles, halting, where there is no configuration) is assumed as the original's default, and listed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hrm.errors import Problem, SpecError
from hrm.models.hrm import HRMSpec
from hrm.models.recursion import RecursiveSpec
from hrm.models.trm import TRMSpec
from hrm.models.urm import URMSpec
from hrm.nn.layers import NORM_EPSILON, BlockShape
from hrm.spec import parse_spec
from hrm.strict_yaml import parse_yaml, read_yaml

Kind = Literal["hrm", "trm", "urm"]
_SPECS: dict[Kind, type[RecursiveSpec]] = {"hrm": HRMSpec, "trm": TRMSpec, "urm": URMSpec}
_CYCLES: dict[Kind, tuple[int, int]] = {"hrm": (2, 2), "trm": (3, 6), "urm": (2, 6)}
_LOSSES = {"stablemax_cross_entropy": "stablemax", "softmax_cross_entropy": "softmax"}
_OPTIMIZER = {
    "lr": "learning_rate",
    "weight_decay": "weight_decay",
    "beta1": "beta1",
    "beta2": "beta2",
    "puzzle_emb_lr": "puzzle_learning_rate",
    "puzzle_emb_weight_decay": "puzzle_weight_decay",
}
"""The original's fields of its optimizer, and ours."""
FIELDS = (
    *("hidden_size", "num_heads", "expansion", "num_layers", "H_layers", "L_layers", "H_cycles", "L_cycles"),
    *("pos_encodings", "rope_theta", "rms_norm_eps", "mlp_t", "seq_len", "vocab_size"),
    *("puzzle_emb_ndim", "puzzle_emb_len", "num_puzzle_identifiers"),
    *("halt_max_steps", "halt_exploration_prob", "loops", "no_ACT_continue", "loss_type"),
    *_OPTIMIZER,
    *("use_muon", "lr_warmup_steps", "lr_min_ratio", "global_batch_size", "ema", "ema_rate", "forward_dtype", "seed"),
)
"""Fields of the original's configuration that mean something here, wherever in it they are."""
_WORDS = ("pos_encodings", "loss_type", "forward_dtype")
"""Those that hold words; the others hold numbers."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What is known of a checkpoint's model and of how it was trained."""

    model: RecursiveSpec
    vocab_size: int
    num_puzzle_identifiers: int
    sequence_length: int | None
    """None where nothing shows it: a model with rotary positions fits any length."""
    training: dict[str, Any]
    """Fields of a trial: the loss; optimizer, schedule, batch size, average, precision, seed if they were said."""
    assumed: dict[str, Any]
    """The original's fields that nobody said and no shape shows, and what was taken for them."""


def said_of(path: Path, config: Path | None, given: list[str]) -> dict[str, Any]:
    """What is said of the checkpoint `path`: by `config` or the all_config.yaml beside it, and by `field=value`."""
    beside = path.parent / "all_config.yaml"
    config = config or (beside if beside.is_file() else None)
    said = {} if config is None else _flat(read_yaml(config))
    for item in given:
        name, separator, text = item.partition("=")
        if not separator or name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            way_out = f"Did you mean {near[0]}?" if near else f"The fields are {', '.join(FIELDS)}"
            raise SpecError(
                Problem(f"--set {item}", "must have the form field=value, of a field of the original", way_out)
            )
        said[name] = parse_yaml(text, f"--set {name}")
    _refuse_other_types(said, "--set" if config is None else str(config))
    return said


def _refuse_other_types(said: dict[str, Any], place: str) -> None:
    problems = []
    for name, value in said.items():
        if name in _WORDS and not isinstance(value, str):
            problems.append(Problem(f"{place}: {name}", f"must be a word, got {value!r}", "Correct it"))
        if name not in _WORDS and not (isinstance(value, int | float) and 0 <= value < math.inf):
            rule = f"must be a number that is not negative, got {value!r}"
            problems.append(Problem(f"{place}: {name}", rule, "Correct it"))
    if problems:
        raise SpecError(*problems)


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    """The known fields of an all_config.yaml (they are at the top, in `arch` and in `arch.loss`) as one mapping."""
    parts, place = [data], data
    for section in ("arch", "loss"):
        inner = place.get(section)
        place = inner if isinstance(inner, dict) else {}
        parts.append(place)
    found = {name: value for part in parts for name, value in part.items() if name in FIELDS}
    return {name: value for name, value in found.items() if value is not None}


def architecture(kind: Kind, shapes: Mapping[str, tuple[int, ...]], said: dict[str, Any], place: str) -> Architecture:
    """The model that these tensors, by our names, are of. Raises SpecError with every contradiction, after `place`."""
    facts = _Facts(said, place)
    vocab_size, hidden_size = _sizes(shapes, "embed_tokens.embedding_weight", 2)
    if not hidden_size:
        rule = "embed_tokens.embedding_weight must be of two dimensions, vocabulary and width"
        raise SpecError(Problem(place, rule, "Give a checkpoint of HRM, TRM or URM"))
    facts.seen("vocab_size", vocab_size)
    table = _sizes(shapes, "puzzle_emb.weights", 2) if "puzzle_emb.weights" in shapes else (0, 0)
    tokens = _puzzle_tokens(kind, facts, hidden_size, table[1])
    model = {
        "kind": kind,
        "hidden_size": facts.seen("hidden_size", hidden_size),
        "num_heads": facts.said_or("num_heads", 8),
        "expansion": _expansion(kind, shapes, facts, hidden_size),
        "rotary_theta": float(said.get("rope_theta", 10000.0)),
        "positions": _positions(shapes, facts),
        "puzzle_embedding_size": facts.seen("puzzle_emb_ndim", table[1]),
        "puzzle_tokens": tokens if kind == "trm" else 0,
        "halting": _halting(kind, facts),
        "H_cycles": facts.said_or("H_cycles", _CYCLES[kind][0]),
        "L_cycles": facts.said_or("L_cycles", _CYCLES[kind][1]),
        **_stacks(kind, shapes, facts),
    }
    if said.get("rms_norm_eps", NORM_EPSILON) != NORM_EPSILON:
        facts.contradict("rms_norm_eps", NORM_EPSILON)
    sequence_length = _sequence_length(shapes, facts, tokens)
    identifiers = facts.seen("num_puzzle_identifiers", table[0]) if table[0] else 0
    training = _training(facts)
    if facts.problems:
        raise SpecError(*facts.problems)
    spec = parse_spec(_SPECS[kind], model, place)
    return Architecture(spec, vocab_size, identifiers, sequence_length, training, facts.assumed)


@dataclass(slots=True)
class _Facts:
    """What is said, held against what is seen; what is assumed, and what does not fit."""

    said: dict[str, Any]
    place: str
    assumed: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def seen(self, name: str, value: Any) -> Any:
        """`value`, as the tensors show it; a problem if the configuration says otherwise."""
        if self.said.get(name, value) != value:
            self.contradict(name, value)
        return value

    def said_or(self, name: str, default: Any) -> Any:
        """What is said, else the original's default, which is noted as assumed."""
        if name not in self.said:
            self.assumed[name] = default
        return self.said.get(name, default)

    def contradict(self, name: str, value: Any) -> None:
        rule = f"{name} must be {value} for these tensors, the configuration says {self.said[name]!r}"
        way_out = f"Give this checkpoint's own configuration with --config, or --set {name}={value}"
        self.problems.append(Problem(self.place, rule, way_out))


def _sizes(shapes: Mapping[str, tuple[int, ...]], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor; zeros where it is not there or not of so many dimensions (the proof refuses it later)."""
    shape = shapes.get(name, ())
    return shape if len(shape) == dimensions else (0,) * dimensions


def _puzzle_tokens(kind: Kind, facts: _Facts, hidden_size: int, width: int) -> int:
    """Positions before the tokens. TRM may take more than the puzzle embedding fills (16 by default)."""
    if not width:
        return 0
    needed = -(-width // hidden_size)
    return (facts.said_or("puzzle_emb_len", 16) or needed) if kind == "trm" else needed


def _sequence_length(shapes: Mapping[str, tuple[int, ...]], facts: _Facts, puzzle_tokens: int) -> int | None:
    """As a tensor shows that is as long as puzzle tokens and tokens together; else as is said."""
    for name in ("embed_pos.embedding_weight", "L_level.layers.0.mlp_t.down_proj.weight"):
        if name in shapes:
            length = _sizes(shapes, name, 2)[0]
            if puzzle_tokens < length:
                return int(facts.seen("seq_len", length - puzzle_tokens))
            rule = f"puzzle_emb_len must be less than the {length} positions that the tensors have, got {puzzle_tokens}"
            facts.problems.append(Problem(facts.place, rule, "Give it with --set puzzle_emb_len=N"))
    return facts.said.get("seq_len")


def _expansion(kind: Kind, shapes: Mapping[str, tuple[int, ...]], facts: _Facts, hidden_size: int) -> float:
    """The MLP's expansion: what is said, else 4, if it gives the width that is seen; else one that does."""
    stack = "level" if kind == "urm" else "L_level"
    inner = _sizes(shapes, f"{stack}.layers.0.mlp.down_proj.weight", 2)[1]
    expansion = facts.said.get("expansion", 4.0)
    if not inner or BlockShape(hidden_size, 1, float(expansion)).inner_size == inner:
        return float(expansion)
    fitting = 1.5 * inner / hidden_size
    return float(facts.seen("expansion", fitting))


def _positions(shapes: Mapping[str, tuple[int, ...]], facts: _Facts) -> str:
    if "embed_pos.embedding_weight" in shapes:
        facts.seen("pos_encodings", "learned")
        return "learned"
    if "L_level.layers.0.mlp_t.down_proj.weight" in shapes:
        return "none"  # whatever is said: an MLP across positions uses no rotary ones
    said = facts.said_or("pos_encodings", "rope")
    if said not in ("rope", "none"):
        facts.contradict("pos_encodings", "rope")
    return "rotary" if said == "rope" else "none"


def _halting(kind: Kind, facts: _Facts) -> dict[str, Any]:
    target = kind == "hrm" or (kind == "trm" and facts.said.get("no_ACT_continue") is False)
    return {
        "rule": "q_with_target" if target else "q",
        "segments": facts.said_or("loops" if kind == "urm" else "halt_max_steps", 16),
        "exploration": 0.1 if kind == "urm" else float(facts.said_or("halt_exploration_prob", 0.1)),
    }


def _stacks(kind: Kind, shapes: Mapping[str, tuple[int, ...]], facts: _Facts) -> dict[str, Any]:
    """The numbers of layers, and what is inside them."""

    def layers(stack: str) -> int:
        return len({name.split(".")[2] for name in shapes if name.startswith(f"{stack}.layers.")})

    if kind == "urm":
        kernel = _sizes(shapes, "level.layers.0.mlp.dwconv.weight", 3)[2]
        return {"num_layers": facts.seen("num_layers", layers("level")), "gated_convolution": kernel}
    found: dict[str, Any] = {"L_layers": facts.seen("L_layers", layers("L_level"))}
    if kind == "hrm":
        return found | {"H_layers": facts.seen("H_layers", layers("H_level"))}
    is_mlp = any(".mlp_t." in name for name in shapes)
    return found | {"mixer": "mlp" if facts.seen("mlp_t", is_mlp) else "attention"}


def _training(facts: _Facts) -> dict[str, Any]:
    """What is said of how it was trained, as fields of a trial."""
    said = facts.said
    loss = facts.said_or("loss_type", "stablemax_cross_entropy")
    if loss not in _LOSSES:
        facts.contradict("loss_type", " or ".join(_LOSSES))
    training: dict[str, Any] = {"loss": _LOSSES.get(loss)}
    if "lr" in said and not said.get("use_muon"):
        optimizer = {ours: said[theirs] for theirs, ours in _OPTIMIZER.items() if theirs in said}
        training["optimizer"] = {"kind": "adam_atan2", **optimizer}
    if "lr_min_ratio" in said:
        kind = "constant" if said["lr_min_ratio"] == 1.0 else "cosine"
        warmup = said.get("lr_warmup_steps", 0)
        training["schedule"] = {"kind": kind, "warmup_steps": warmup, "floor_fraction": said["lr_min_ratio"]}
    if said.get("ema"):
        training["ema"] = said.get("ema_rate", 0.999)
    fields = {"batch_size": "global_batch_size", "precision": "forward_dtype", "seed": "seed"}
    return training | {ours: said[theirs] for ours, theirs in fields.items() if theirs in said}
