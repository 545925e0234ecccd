"""Importing `hrm` imports no Transformers; then its Auto classes know our models, whichever was imported first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hrm.huggingface import registration

ASK = """
import json, sys
print(json.dumps({
    "config": AutoConfig.for_model("hrm_orchestrator").__class__.__name__,
    "model": AutoModelForCausalLM._model_mapping[type(AutoConfig.for_model("hrm_orchestrator"))].__name__,
    "early": early,
    "finders": sum(type(finder).__module__.startswith("hrm.") for finder in sys.meta_path),
}))
"""
HRM_FIRST = """
import sys
import hrm, hrm.train
early = sorted(name for name in sys.modules if name.split(".")[0] == "transformers")
from transformers import AutoConfig, AutoModelForCausalLM
"""
TRANSFORMERS_FIRST = """
from transformers import AutoConfig, AutoModelForCausalLM
early = []
import hrm
"""
HALF_WAY = """
from transformers import AutoConfig
early = []
import hrm
from transformers import AutoModelForCausalLM
"""


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(HRM_FIRST, id="hrm first"),
        pytest.param(TRANSFORMERS_FIRST, id="transformers first", marks=pytest.mark.slow),
        pytest.param(HALF_WAY, id="between", marks=pytest.mark.slow),
    ],
)
def test_the_auto_classes_know_our_models(order: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", order + ASK]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(said.stdout.splitlines()[-1])
    assert (found["config"], found["model"]) == ("HrmConfig", "HrmForCausalLM")
    assert found["early"] == []
    assert found["finders"] <= 1


def test_registering_again_changes_nothing() -> None:
    before = list(sys.meta_path)
    registration.register_when_imported()
    registration.register_when_imported()
    new = [finder for finder in sys.meta_path if finder not in before]
    assert len(new) <= 1
    for finder in new:
        sys.meta_path.remove(finder)


def test_other_imports_are_left_alone() -> None:
    assert registration._Waiting().find_spec("json", None) is None
    assert registration._Waiting().find_spec("transformers", None) is None
