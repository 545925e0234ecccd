"""torch.compile: the same training to rounding, exact resume, and training all the same without a compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakeTrial

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset, open_dataset
from hrm.resolve import COMPILE_FLOPS, compile_works, expected_flops, resolve
from hrm.tasks.red_team import RedTeamSpec
from hrm.train import Training
from hrm.trial import TrialSpec

SCRIPT = """
import json, logging, sys
from pathlib import Path
from hrm.context import LocalContext
from hrm.spec import parse_spec
from hrm.train import Training
from hrm.trial import TrialSpec

logging.basicConfig(level=logging.WARNING)
trial, root, name, compile, steps = sys.argv[1:]
context = LocalContext(Path(root) / name, Path(root), compile=compile)
training = Training(parse_spec(TrialSpec, json.loads(trial), "trial"), context)
while training.state.progress.step < int(steps):
    training.step()
losses = [record.metrics["loss"] for record in training.state.pending]
training.save()
training.checkpoints.wait()
print(json.dumps({"losses": losses, "compiled": training.resolved["compiled"]}))
"""
MODEL = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": True, "dropout": 0.1}


def run(
    trial: TrialSpec, root: Path, name: str, compile_: str, steps: int = 6, **env: str
) -> tuple[list[float], bool, str]:
    """The losses of `steps` steps in a process of its own, whether it was compiled, and what it said."""
    build_dataset(trial.task, root)
    command = [sys.executable, "-c", SCRIPT, trial.model_dump_json(), str(root), name, compile_, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=True)
    facts = json.loads(done.stdout)
    return facts["losses"], facts["compiled"], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_training_equals_a_plain_one_to_rounding_and_resumes_exactly(
    make_trial: MakeTrial, tmp_path: Path, precision: str
) -> None:
    if not compile_works("cpu"):
        pytest.skip("no C++ compiler here")
    trial = make_trial(model=MODEL, precision=precision, num_reports=1)
    plain, was_compiled, _ = run(trial, tmp_path, "plain", "never")
    compiled, is_compiled, _ = run(trial, tmp_path, "compiled", "always")
    assert (was_compiled, is_compiled) == (False, True)
    assert compiled == pytest.approx(plain, rel=1e-5 if precision == "float32" else 2e-2)
    run(trial, tmp_path, "parts", "always", steps=3)
    resumed, _, _ = run(trial, tmp_path, "parts", "never", steps=6)  # as the checkpoint says, not as it is asked now
    assert resumed == compiled


@pytest.mark.slow
def test_compiled_blocks_can_be_recomputed_too(make_trial: MakeTrial, tmp_path: Path) -> None:
    if not compile_works("cpu"):
        pytest.skip("no C++ compiler here")
    model = {"kind": "transformer", "hidden_size": 16, "num_heads": 2, "num_layers": 1, "causal": True, "dropout": 0.1}
    fields = {"model": model, "precision": "float32", "num_reports": 1, "accumulation": 2}
    plain, _, _ = run(make_trial(**fields), tmp_path, "plain", "never", steps=3)
    trial = make_trial(**fields, activation_checkpointing=True)
    compiled, is_compiled, _ = run(trial, tmp_path, "compiled", "always", steps=3)
    assert is_compiled
    assert compiled == pytest.approx(plain, rel=1e-5)


def test_without_a_compiler_training_goes_on_with_one_warning(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(model=MODEL, num_reports=1)
    cache = str(tmp_path / "cache")
    losses, compiled, said = run(
        trial, tmp_path, "none", "always", CXX=str(tmp_path / "no-compiler"), TORCHINDUCTOR_CACHE_DIR=cache
    )
    assert not compiled
    assert len(losses) == 6
    assert said.count("torch.compile does not work here") == 1


def test_only_a_training_that_is_long_enough_is_compiled(
    make_trial: MakeTrial, data_root: Path, tmp_path: Path
) -> None:
    shape = open_dataset(RedTeamSpec.smoke(), data_root).shape
    context = LocalContext(tmp_path, data_root)
    short = make_trial(budget={"axis": "flops", "amount": 0.5 * COMPILE_FLOPS["cpu"]})
    assert expected_flops(short, shape) == 0.5 * COMPILE_FLOPS["cpu"]
    assert not resolve(short, shape, context)["compiled"]
    long = make_trial(budget={"axis": "flops", "amount": COMPILE_FLOPS["cpu"]})
    assert resolve(long, shape, context)["compiled"] == compile_works("cpu")
    by_step = make_trial(budget={"axis": "steps", "amount": 10}, batch_size=4)
    assert expected_flops(by_step, shape) == 40 * by_step.model.flops(shape).training


def test_a_checkpoint_from_before_compiling_existed_resumes_without_it(
    make_trial: MakeTrial, data_root: Path, tmp_path: Path
) -> None:
    context = LocalContext(tmp_path, data_root, compile="always")
    training = Training(make_trial(), LocalContext(tmp_path, data_root, compile="never"))
    training.resolved.pop("compiled")
    training.step()
    training.save()
    training.checkpoints.wait()
    assert Training(make_trial(), context).resolved["compiled"] is False
