"""Golden ids of trials: if one changes, every old sweep loses its trials. Raise CANONICAL_VERSION knowingly."""

from __future__ import annotations

from typing import Any

from hrm.models.hrm import HRMSpec
from hrm.spec import CANONICAL_VERSION, parse_spec
from hrm.trial import TrialSpec

PLAIN: dict[str, Any] = {"task": {"kind": "red_team"}, "model": {"kind": "hrm"}, "optimizer": {"kind": "adam_atan2"}}
TEXT: dict[str, Any] = {
    "task": {"kind": "red_team", "num_train": 64, "num_validation": 16, "num_test": 16},
    "model": {
        "kind": "transformer",
        "hidden_size": 96,
        "num_heads": 3,
        "num_layers": 6,
        "causal": True,
        "dropout": 0.05,
    },
    "optimizer": {"kind": "adamw", "learning_rate": 3e-3, "weight_decay": 0.1},
    "schedule": {"kind": "cosine", "warmup_fraction": 0.1, "floor_fraction": 0.1},
    "budget": {"axis": "flops", "amount": 1.2e12},
    "objective": {"metric": "loss", "direction": "minimize"},
    "batch_size": 8,
    "clip_norm": 1.0,
    "num_reports": 6,
    "seed": 1000,
}


def trial_id(data: dict[str, Any]) -> str:
    return parse_spec(TrialSpec, data, "trial").hash()


def test_the_ids_of_old_sweeps_hold() -> None:
    assert CANONICAL_VERSION == 1
    assert trial_id(PLAIN) == "a028ddceb48342db"
    assert trial_id(TEXT) == "ddebee6fc269d64a"


def test_a_default_written_out_is_the_same_trial() -> None:
    whole = parse_spec(TrialSpec, TEXT, "trial").model_dump(mode="json")
    assert whole.keys() > TEXT.keys()
    assert trial_id(whole) == trial_id(TEXT)


def test_a_new_field_with_a_default_keeps_the_id() -> None:
    class Later(TrialSpec):
        invented: int = 1

    assert parse_spec(Later, TEXT, "trial").hash() == trial_id(TEXT)
    assert parse_spec(Later, {**TEXT, "invented": 2}, "trial").hash() != trial_id(TEXT)


def test_every_kind_is_inside_also_where_it_is_the_only_thing_said() -> None:
    canonical = parse_spec(TrialSpec, PLAIN, "trial").canonical()
    assert canonical == PLAIN
    assert HRMSpec().canonical() == {"kind": "hrm"}
    other = {**PLAIN, "optimizer": {"kind": "adamw"}}
    assert trial_id(other) != trial_id(PLAIN)


def test_whatever_changes_the_numbers_changes_the_id() -> None:
    changes: list[dict[str, Any]] = [
        {"seed": 1001},
        {"batch_size": 16},
        {"clip_norm": None},
        {"precision": "float32"},
        {"num_reports": 7},
        {"label_smoothing": 0.1},
        {"z_loss": 1e-4},
        {"q_loss_weight": 0.01},
        {"accumulation": 2},
        {"activation_checkpointing": True},
        {"model": {**TEXT["model"], "tied_embeddings": True}},
        {"budget": {"axis": "flops", "amount": 1.3e12}},
        {"model": {**TEXT["model"], "dropout": 0.1}},
        {"task": {**TEXT["task"], "seed": 1}},
    ]
    ids = [trial_id({**TEXT, **change}) for change in changes]
    assert len({trial_id(TEXT), *ids}) == len(changes) + 1
