"""What `auto` means on this machine; resolved once per trial, stored in its checkpoints and used again."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch

from hrm.context import TrainContext
from hrm.nn.attention import AttentionKernel, flash_attention
from hrm.tasks import TaskShape
from hrm.trial import TrialSpec

logger = logging.getLogger(__name__)

EXPLICIT_LENGTH = 256
"""Up to this many positions attention by plain products is faster on a CPU than the fused kernel, whose backward pass
in bfloat16 is slow; beyond, storing all scores costs more."""
COMPILE_FLOPS = {"cpu": 4e13, "cuda": 3e15}
"""Training FLOPs from which compiling (10 to 40 seconds) pays, by device; the number for CUDA is an estimate."""


def resolve(trial: TrialSpec, shape: TaskShape, context: TrainContext) -> dict[str, Any]:
    """`{precision, attention, compiled, device, threads, workers}` with every `auto` replaced."""
    device, precision = context.device, trial.precision
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16(device) else "float32"
    return {
        "precision": precision,
        "attention": _attention(device, precision, shape.sequence_length),
        "compiled": _compiled(trial, shape, context),
        "device": device.type,
        "threads": context.threads,
        "workers": context.world_size,
    }


def take_effect(resolved: dict[str, Any]) -> None:
    """Make this process compute as resolved, and say so once in the trial's log."""
    torch.set_num_threads(resolved["threads"])
    if resolved["compiled"]:
        torch.compiler.reset()  # what earlier trials of this process compiled must not decide how this one is
        torch._dynamo.config.suppress_errors = True  # a block that cannot be compiled runs as it is, with a warning
    logger.info("computes with %s", ", ".join(f"{name} {value}" for name, value in resolved.items()))


def fast_bfloat16(device: torch.device) -> bool:
    """True where matrix products in bfloat16 run on hardware: CPUs with AMX or AVX512-BF16, GPUs since Ampere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def _attention(device: torch.device, precision: str, length: int) -> AttentionKernel:
    if device.type == "cpu":
        return "explicit" if precision == "bfloat16" and length <= EXPLICIT_LENGTH else "sdpa"
    usable = device.type == "cuda" and precision == "bfloat16" and flash_attention() is not None
    return "flash" if usable else "sdpa"


def _compiled(trial: TrialSpec, shape: TaskShape, context: TrainContext) -> bool:
    if context.compile == "never":
        return False
    pays = expected_flops(trial, shape) >= COMPILE_FLOPS.get(context.device.type, float("inf"))
    return (pays or context.compile == "always") and compile_works(context.device.type)


def expected_flops(trial: TrialSpec, shape: TaskShape) -> float:
    """Training FLOPs of the whole budget, roughly: rows that halt early, and unscored tokens, are not foreseen."""
    amount, axis = trial.budget.amount, trial.budget.axis
    if axis == "flops":
        return amount
    if axis == "seconds":
        return amount * 3e11  # what two CPU cores do in a second
    rows = {"steps": amount * trial.batch_size, "examples": amount * trial.model.halting_rule().segments}
    row_segments = rows.get(axis, amount / shape.sequence_length)
    return row_segments * trial.model.flops(shape).training


@cache
def compile_works(device: str) -> bool:
    """Whether torch.compile can make code for this device (it needs a C++ compiler, or Triton); one warning if not."""
    try:
        torch.compile(lambda x: x * 2.0 + 1.0, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler of this machine does, training goes on without it
        logger.warning("torch.compile does not work here, training goes on without it: %s", str(error).split("\n")[0])
        return False
    return True
