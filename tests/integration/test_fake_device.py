"""No tensor of a training is left on the CPU: whole steps of every model on a fake accelerator (`fake_device.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

from hrm.models import ModelSpec
from hrm.optim import OptimizerSpec
from hrm.variants import discover

ROOT = Path(__file__).parents[2]


def test_every_model_trains_and_evaluates_on_an_accelerator_with_every_halting_rule_and_optimizer() -> None:
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot have a device of Python alone")
    script = Path(__file__).with_name("fake_device.py")  # a process of its own: a device cannot be unregistered
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[:6000]
    models, rules, optimizers, _ = (
        set(column) for column in zip(*map(str.split, done.stdout.splitlines()), strict=True)
    )
    assert models == set(discover("hrm.models", ModelSpec))
    assert rules == {"none", "q", "q_with_target"}
    assert optimizers == set(discover("hrm.optim", OptimizerSpec))
