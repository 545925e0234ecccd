"""What `auto` means on this machine; resolved once per trial, stored in its checkpoints and used again."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch

from hrm.context import TrainContext
from hrm.nn.attention import AttentionKernel, attend, flash_attention
from hrm.tasks import TaskShape
from hrm.trial import TrialSpec

logger = logging.getLogger(__name__)

EXPLICIT_LENGTH = 160
"""Up to this many positions attention by plain products is faster on a CPU than the fused kernel, in bfloat16 (whose
backward pass is slow there) and where the products' neighbours are compiled; beyond, storing all scores costs more."""
COMPILE_FLOPS = {"cpu": 4e13, "cuda": 3e15}
"""Training FLOPs from which compiling (10 to 40 seconds) pays, by device; the number for CUDA is an estimate."""
COMPILE_SECONDS = 120.0
"""The same for a budget of seconds."""


def resolve(trial: TrialSpec, shape: TaskShape, context: TrainContext) -> dict[str, Any]:
    """`{precision, attention, compiled, device, threads, workers}` with every `auto` replaced."""
    device, precision = context.device, trial.precision
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16(device) else "float32"
    compiled = _compiled(trial, shape, context)
    return {
        "precision": precision,
        "attention": _attention(device, precision, compiled, shape.sequence_length),
        "compiled": compiled,
        "device": device.type,
        "threads": context.threads,
        "workers": context.world_size,
    }


def resumed(stored: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint was resolved to (`stored`), but for what cannot run here; then the resume is not exact."""
    resolved = {"compiled": False} | stored
    if resolved["attention"] == "flash" and not flash_works(now["device"]):
        resolved["attention"] = now["attention"]
    resolved["compiled"] = resolved["compiled"] and compile_works(now["device"])
    return resolved


def take_effect(resolved: dict[str, Any]) -> None:
    """Make this process compute as resolved, and say so once in the trial's log."""
    torch.set_num_threads(resolved["threads"])
    if resolved["compiled"]:
        from torch._inductor import config as inductor  # here: it takes a second that a plain training need not wait

        torch.compiler.reset()  # what earlier trials of this process compiled must not decide how this one is
        torch._dynamo.config.recompile_limit = 64  # all blocks share one: with and without gradient, each stack, ...
        inductor.compile_threads = resolved["threads"]  # compilers too keep to the trial's CPUs
    logger.info("computes with %s", ", ".join(f"{name} {value}" for name, value in resolved.items()))


def fast_bfloat16(device: torch.device) -> bool:
    """True where matrix products in bfloat16 run on hardware: CPUs with AMX or AVX512-BF16, GPUs since Ampere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def _attention(device: torch.device, precision: str, compiled: bool, length: int) -> AttentionKernel:
    if device.type == "cpu":
        faster = precision == "bfloat16" or compiled
        return "explicit" if faster and length <= EXPLICIT_LENGTH else "sdpa"
    return "flash" if device.type == "cuda" and precision == "bfloat16" and flash_works(device.type) else "sdpa"


def _compiled(trial: TrialSpec, shape: TaskShape, context: TrainContext) -> bool:
    if context.compile == "never":
        return False
    if trial.budget.axis == "seconds":
        pays = trial.budget.amount >= COMPILE_SECONDS
    else:
        pays = expected_flops(trial, shape) >= COMPILE_FLOPS.get(context.device.type, float("inf"))
    return (pays or context.compile == "always") and compile_works(context.device.type)


def expected_flops(trial: TrialSpec, shape: TaskShape) -> float:
    """Training FLOPs of a budget (not in seconds), roughly: nobody foresees what halts early or is not scored."""
    amount, axis = trial.budget.amount, trial.budget.axis
    if axis == "flops":
        return amount
    rows = {"steps": amount * trial.batch_size, "examples": amount * trial.model.halting_rule().segments}
    row_segments = rows.get(axis, amount / shape.sequence_length)
    return row_segments * trial.training_flops(shape)


@cache
def flash_works(device: str) -> bool:
    """Whether flash-attn is installed and runs on this device, forward and backward."""
    function = flash_attention()
    if function is None:
        return False
    try:
        q = torch.zeros(1, 8, 1, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
        attend(q.transpose(1, 2), q.transpose(1, 2), q.transpose(1, 2), False, None, "flash").sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # built for another GPU, torch or CUDA: whatever it raises, SDPA is there
        logger.warning("flash-attn does not work here, SDPA is used: %s", str(error).split("\n")[0])
        return False
    return True


@cache
def compile_works(device: str) -> bool:
    """Whether torch.compile can make code for this device (it needs a C++ compiler, or Triton); one warning if not."""
    try:
        torch.compile(lambda x: x * 2.0 + 1.0, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler of this machine does, training goes on without it
        logger.warning("torch.compile does not work here, training goes on without it: %s", str(error).split("\n")[0])
        return False
    return True
