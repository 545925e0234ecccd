"""The JSON schemas of the files that people write, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from hrm.trial import AnyTaskSpec, TrialSpec
from orchestrator.experiment import ExperimentSpec


def schema_of(what: str) -> dict[str, Any]:
    """`experiment`, `trial` or `recipe`. The experiment's `base` and patches are trials with nothing required."""
    if what == "trial":
        return TrialSpec.model_json_schema()
    if what == "recipe":
        return TypeAdapter(AnyTaskSpec).json_schema()
    schema = ExperimentSpec.model_json_schema()
    trial = TrialSpec.model_json_schema()
    definitions = {**trial.pop("$defs"), **schema["$defs"]}
    trial.pop("required", None)
    for name in ("task", "budget", "objective", "seed"):
        trial["properties"].pop(name)
    for field in trial["properties"].values():
        if "oneOf" in field:  # a patch without a `kind` is of several kinds at once
            field["anyOf"] = field.pop("oneOf")
            field.pop("discriminator", None)
    definitions["StartSpec"].pop("required")  # filled in when the file is loaded
    trial["properties"]["initialize_from"]["anyOf"].append({"type": "string"})
    definitions["PartialTrial"] = trial
    schema["$defs"] = definitions
    schema["properties"]["base"] = {"$ref": "#/$defs/PartialTrial"}
    definitions["ArmSpec"]["properties"]["patch"] = {"$ref": "#/$defs/PartialTrial"}
    return schema
