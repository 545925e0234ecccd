"""The optimizers' mathematics: each against its formula written out, or against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hrm.models.hrm import HRMSpec
from hrm.optim import group_of
from hrm.optim.adam_atan2 import AdamATan2
from hrm.optim.muon import Muon, MuonSpec, orthogonal
from hrm.tasks import TaskShape

WIDE, TALL, SQUARE = (32, 96), (96, 32), (48, 48)


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))


def vector() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1.0, 1.5, 5, dtype=torch.float64))


def gradients(steps: int, *shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(steps)]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# --- groups ----------------------------------------------------------------------------------------------------------


def test_parameters_are_grouped_by_what_they_do() -> None:
    spec = HRMSpec(hidden_size=16, num_heads=2, H_layers=1, L_layers=1, convolution=2, positions="learned")
    found: dict[str, set[str]] = {}
    for name, parameter in spec.build(TaskShape(13, 10)).named_parameters():
        found.setdefault(group_of(name, parameter), set()).add(name)
    parts = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    assert found == {
        "embeddings": {"embed_tokens.embedding_weight", "embed_pos.embedding_weight", "lm_head.weight"},
        "vectors": {"q_head.weight", "q_head.bias", "L_level.layers.0.conv.weight"},
        "matrices": {f"{level}.layers.0.{part}.weight" for level in ("H_level", "L_level") for part in parts},
    }


def test_depthwise_kernels_of_three_dimensions_are_no_matrices() -> None:
    assert group_of("layers.0.mlp.dwconv.weight", nn.Parameter(torch.zeros(8, 1, 2))) == "vectors"


# --- AdamATan2 -------------------------------------------------------------------------------------------------------


def test_adam_atan2_is_the_formula_written_out() -> None:
    rate, beta1, beta2, decay = 0.03, 0.8, 0.9, 0.2
    parameter = vector()
    built = AdamATan2([parameter], rate, (beta1, beta2), decay)
    expected, first, second = vector().tolist(), [0.0] * 5, [0.0] * 5
    for step, gradient in enumerate(gradients(7, 5, dtype=torch.float64), 1):
        parameter.grad = gradient
        built.step()
        for i, g in enumerate(gradient.tolist()):
            first[i] = beta1 * first[i] + (1 - beta1) * g
            second[i] = beta2 * second[i] + (1 - beta2) * g * g
            scale = math.sqrt(second[i] / (1 - beta2**step))
            expected[i] = expected[i] * (1 - rate * decay) - rate / (1 - beta1**step) * math.atan2(first[i], scale)
    torch.testing.assert_close(parameter.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_adam_atan2_does_not_feel_the_scale_of_the_gradient() -> None:
    ends = []
    for scale in (1.0, 2.0**20):
        parameter = vector()
        built = AdamATan2([parameter], 0.1)
        for gradient in gradients(4, 5, dtype=torch.float64):
            parameter.grad = gradient * scale
            built.step()
        ends.append(parameter.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=0)


def test_adam_atan2_steps_a_quarter_of_pi_where_mean_and_scale_agree() -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.full((1,), 3.0, dtype=torch.float64)
    AdamATan2([parameter], 1.0, betas=(0.0, 0.0)).step()
    assert float(parameter.detach()) == pytest.approx(-math.pi / 4)


# --- Muon ------------------------------------------------------------------------------------------------------------


def muon(parameters: list[nn.Parameter], name: str, dtype: torch.dtype = torch.bfloat16) -> Muon:
    group = {"name": name, "params": parameters, "lr": 0.02, "weight_decay": 0.1}
    return Muon([group], momentum=0.9, dtype=dtype, betas=(0.8, 0.9))


def trained(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int) -> list[Tensor]:
    """How far `steps` updates with fixed random gradients move each parameter."""
    before = [parameter.detach().clone() for parameter in parameters]
    drawn = [gradients(steps, *parameter.shape) for parameter in parameters]
    for step in range(steps):
        for parameter, mine in zip(parameters, drawn, strict=True):
            parameter.grad = mine[step]
        optimizer.step()
    return [parameter.detach() - start for parameter, start in zip(parameters, before, strict=True)]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came in torch 2.9")
@pytest.mark.parametrize("steps", [1, 10])
def test_muon_is_torchs_own(steps: int) -> None:
    shapes = (WIDE, TALL, SQUARE, WIDE)  # two equal shapes: they go through the iteration together
    mine, theirs = ([weights(*shape) for shape in shapes] for _ in range(2))
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.9, nesterov=True)
    pairs = zip(trained(muon(mine, "matrices"), mine, steps), trained(reference, theirs, steps), strict=True)
    # 2**-8 is one rounding of bfloat16, in which both iterate: a stack of matrices may be summed in another order
    assert max(relative_error(found, expected) for found, expected in pairs) < 2**-8


@pytest.mark.parametrize("shape", [WIDE, TALL, SQUARE])
def test_the_iteration_applies_its_polynomial_to_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = gradients(1, *shape, dtype=torch.float64)[0]
    u, s, vh = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    expected = u @ torch.diag(s) @ vh
    assert relative_error(orthogonal(matrix.float()[None])[0].double(), expected) < 1e-5
    assert 0.5 < float(s.min()) < float(s.max()) < 1.5


def test_muon_in_float32_is_the_formula_written_out() -> None:
    parameter = weights(*TALL)
    found = trained(muon([parameter], "matrices", torch.float32), [parameter], 3)[0]
    start = weights(*TALL).detach()
    expected, mean = start.clone(), torch.zeros(TALL)
    for gradient in gradients(3, *TALL):
        mean = 0.9 * mean + 0.1 * gradient
        ahead = 0.1 * gradient + 0.9 * mean
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * math.sqrt(3) * orthogonal(ahead[None])[0]
    assert relative_error(found, expected - start) < 1e-5


def test_muon_leaves_the_other_groups_to_adamw() -> None:
    mine, theirs = ([weights(*shape) for shape in (WIDE, (7,))] for _ in range(2))
    reference = torch.optim.AdamW(theirs, lr=0.02, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.1)
    pairs = zip(trained(muon(mine, "embeddings"), mine, 5), trained(reference, theirs, 5), strict=True)
    assert max(relative_error(found, expected) for found, expected in pairs) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_iterates_in_the_compute_dtype_of_the_model(dtype: torch.dtype) -> None:
    model = HRMSpec.smoke().build(TaskShape(13, 10))
    model.configure(dtype, "explicit")
    optimizer = MuonSpec().build(model)
    assert {group["dtype"] for group in optimizer.param_groups} == {dtype}
    assert {group["name"]: group["peak_lr"] for group in optimizer.param_groups} == {
        "matrices": 0.02,
        "embeddings": 1e-4,
        "vectors": 1e-4,
    }
