"""The best checkpoint of a sweep as a model that MLflow serves: a LoggedModel, linked to the runs, made once.

It is found again by its tags, which are part of its creation: what a kill has left unfinished is finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from hrm.checkpoint import open_checkpoint, weights_sha256
from hrm.data.dataset import Dataset, open_dataset
from hrm.puzzles import Puzzle, as_lines
from hrm.serving import pack
from hrm.solve import puzzles_of
from hrm.spec import parse_spec
from hrm.trial import TrialSpec
from orchestrator import leaders
from orchestrator.generate_options import NEW_TOKENS
from orchestrator.trackers.mlflow_view import allowed_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_EXAMPLE_TOKENS = 12
CODE = Path(leaders.__file__).with_name("served_model.py")
_NEEDS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "tokenizers")
"""Written as its requirements, so that MLflow does not guess them by loading the model; `hrm` itself is on no index."""


def log_model(
    client: MlflowClient,
    experiment: str,
    leader: leaders.Leader,
    identity: Mapping[str, str],
    runs: list[str],
    metrics: Mapping[str, float],
) -> str:
    """The id of the model, made or finished if it is not there; empty for a task whose answers nothing asks for.

    `identity`: the sweep's tags. `runs`: the sweep's and the trial's.
    """
    from mlflow.entities import LoggedModelOutput, Metric

    checkpoint = open_checkpoint(leader.checkpoint)
    trial = parse_spec(TrialSpec, checkpoint.manifest["spec"], str(leader.checkpoint))
    dataset = open_dataset(trial.task, leader.data_root)
    digest = weights_sha256(checkpoint.manifest)
    tags = {**identity, "task": leader.task, "arm": leader.arm, "trial_key": leader.trial, "weights_sha256": digest}
    condition = " AND ".join(f"tags.`{name}` = '{tags[name]}'" for name in ("sweep_id", "task", "weights_sha256"))
    found = next(iter(client.search_logged_models([experiment], condition)), None)
    if found is not None and found.status.value == "READY":
        return str(found.model_id)
    with TemporaryDirectory() as folder:
        if not pack(checkpoint, dataset, Path(folder) / "checkpoint"):
            return ""
        if found is None:
            name = allowed_name(f"{tags['sweep']}-{leader.arm}").replace(".", "_").replace("/", "_")
            found = client.create_logged_model(experiment, name, runs[-1], tags, model_type=trial.model.kind)
        model = str(found.model_id)
        _save(Path(folder), model, runs[-1], dataset)
        client.log_model_artifacts(model, f"{folder}/model")
    step = int(checkpoint.manifest["progress"].get("step") or 0)
    for run in runs:
        client.log_outputs(run, [LoggedModelOutput(model, step)])
    time = int(found.creation_timestamp)
    values = [Metric(allowed_name(k), v, time, step, model_id=model, run_id=runs[-1]) for k, v in metrics.items()]
    client.log_batch(runs[-1], metrics=values)
    client.finalize_logged_model(model, "READY")
    return model


def _save(folder: Path, model: str, run: str, dataset: Dataset) -> None:
    """MLflow's folder `model` beside the packed `checkpoint`."""
    from mlflow import pyfunc
    from mlflow.models import Model

    pyfunc.save_model(
        folder / "model",
        python_model=str(CODE),
        artifacts={"checkpoint": str(folder / "checkpoint")},
        signature=_signature(dataset.task.next_token),
        input_example=_example(dataset),
        pip_requirements=[f"{name}=={version(name)}" for name in _NEEDS],
        mlflow_model=Model(model_id=model, model_uuid=model, run_id=run),
    )


def _signature(text: bool) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    if not text:
        answer = [("string", "solution"), ("double", "confidence"), ("long", "segments")]
        return ModelSignature(Schema([ColSpec("string", "puzzle")]), Schema([ColSpec(*each) for each in answer]))
    asked = (
        ("max_new_tokens", "long", NEW_TOKENS),
        ("temperature", "double", 0.0),
        ("top_p", "double", 1.0),
        ("seed", "long", 0),
    )
    params = [ParamSpec(name, DataType[kind], usual) for name, kind, usual in asked]
    return ModelSignature(
        Schema([ColSpec("string", "prompt")]), Schema([ColSpec("string", "text")]), ParamSchema(params)
    )


def _example(dataset: Dataset) -> Any:
    """A question of the validation split."""
    from pandas import DataFrame  # type: ignore[import-untyped]

    inputs = dataset.split("validation").gather(np.array([0]))["inputs"][0]
    if dataset.task.next_token:
        text = dataset.task.render(inputs[:_EXAMPLE_TOKENS].tolist(), dataset.manifest.vocabulary)
        return DataFrame({"prompt": [text]})
    if dataset.task.kind == "arc":
        return DataFrame({"puzzle": [json.dumps({"train": [], "test": [{"input": [[0, 1], [1, 0]]}]})]})
    kind = puzzles_of(dataset.task, {})
    assert kind is not None, "pack has seen to it"
    return DataFrame({"puzzle": ["\n".join(as_lines(kind.question(Puzzle("", inputs.astype(np.int64)))))]})
