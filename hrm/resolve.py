"""What `auto` means on this machine; resolved once per trial, stored in its checkpoints and used again."""

from __future__ import annotations

from typing import Any

import torch


def resolve(precision: str, device: torch.device, threads: int, workers: int) -> dict[str, Any]:
    """`{precision, attention, device, threads, workers}` with every `auto` replaced."""
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16(device) else "float32"
    attention = "explicit" if device.type == "cpu" and precision == "bfloat16" else "sdpa"
    return {
        "precision": precision,
        "attention": attention,
        "device": device.type,
        "threads": threads,
        "workers": workers,
    }


def fast_bfloat16(device: torch.device) -> bool:
    """True where matrix products in bfloat16 run on hardware: CPUs with AMX or AVX512-BF16, GPUs since Ampere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False
