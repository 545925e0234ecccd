"""Losses and tokens of a large vocabulary: what is computed a few positions at a time equals what is computed whole.

And what a training may add to the cross-entropy: smoothed labels, a loss on the normaliser.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_HRM, TINY_TRANSFORMER, MakeTrial, run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hrm.context import LocalContext
from hrm.nn import readout
from hrm.nn.losses import LossKind, LossTerms, cross_entropy, stablemax_log, trained_loss
from hrm.nn.readout import MOST_LOGITS, Head, read, read_trained
from hrm.tasks import IGNORE

MakeContext = Callable[..., LocalContext]
VOCABULARY = 37
KINDS: tuple[LossKind, ...] = ("softmax", "stablemax")
TERMS = [LossTerms(kind, smoothing, z) for kind in KINDS for smoothing, z in ((0.0, 0.0), (0.1, 0.3))]


def example(vocabulary: int = VOCABULARY, length: int = 11) -> tuple[Tensor, Head, Tensor, Tensor]:
    """answer [3, S, 16], a head, labels [3, S] of which some are not scored, weights of the rows."""
    generator = torch.Generator().manual_seed(0)
    answer = torch.randn(3, length, 16, generator=generator)
    head = Head(torch.randn(vocabulary, 16, generator=generator).requires_grad_())
    labels = torch.randint(vocabulary, (3, length), generator=generator)
    labels[:, ::4] = IGNORE
    return answer, head, labels, torch.tensor([1.0, 0.5, 2.0])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five positions at a time."""
    monkeypatch.setattr(readout, "MOST_LOGITS", 5 * VOCABULARY)


@pytest.mark.parametrize("kind", ["softmax", "stablemax"])
def test_smoothed_labels_and_the_loss_on_z_are_their_formulas(kind: LossKind) -> None:
    answer, head, labels, _ = example()
    logits = head(answer).detach().double().requires_grad_()
    logs = logits.log_softmax(-1) if kind == "softmax" else stablemax_log(logits)
    scored = labels != IGNORE
    target = F.one_hot(labels.where(scored, 0), VOCABULARY) * 0.9 + 0.1 / VOCABULARY
    s = logits.exp() if kind == "softmax" else torch.where(logits >= 0, logits + 1, 1 / (1 - logits))
    squared = s.sum(-1).log() ** 2 * scored
    expected = (-(target * logs).sum(-1) + 0.3 * squared / scored.clamp(min=1)) * scored
    trained, nats, found = trained_loss(logits, labels, LossTerms(kind, 0.1, 0.3))
    close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(trained, expected, **close)
    torch.testing.assert_close(found, squared, **close)
    torch.testing.assert_close(nats, cross_entropy(logits, labels, kind), **close)
    by_formula, ours = (torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (expected, trained))
    torch.testing.assert_close(ours, by_formula, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_positions_give_the_values_and_gradients_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch, terms: LossTerms, dtype: torch.dtype
) -> None:
    plain_answer, head, labels, weight = example()
    found = []
    for limit in (5 * VOCABULARY, 2**30):
        monkeypatch.setattr(readout, "MOST_LOGITS", limit)
        answer = plain_answer.to(dtype).requires_grad_()
        trained = read_trained(answer, head, labels, weight, terms)
        assert ("_InChunks" in type(trained.loss.grad_fn).__name__) == (limit < 2**30)
        gradients = torch.autograd.grad(3.0 * trained.loss, (answer, head.weight))
        found.append((trained.loss.detach(), trained.nats, trained.tokens, trained.squared_log_z, *gradients))
        nats, tokens = read(answer, head, labels, terms.kind)
        torch.testing.assert_close(nats, trained.nats, rtol=1e-5, atol=1e-5)
        assert torch.equal(tokens, trained.tokens)
    for in_chunks, whole in zip(*found, strict=True):
        assert in_chunks.dtype == whole.dtype
        error = (in_chunks.float() - whole.float()).norm() / whole.float().norm().clamp(min=1e-9)
        assert error < (1e-6 if dtype == torch.float32 else 1e-2)  # in bfloat16 sums of gradients are rounded


@pytest.mark.usefixtures("small_chunks")
def test_a_head_or_an_answer_without_gradient_is_no_hindrance() -> None:
    answer, head, labels, weight = example()
    fixed = Head(head.weight.detach())
    loss = read_trained(answer.requires_grad_(), fixed, labels, weight, LossTerms()).loss
    loss.backward()  # type: ignore[no-untyped-call]
    assert answer.grad is not None
    assert not read_trained(answer.detach(), fixed, labels, weight, LossTerms()).loss.requires_grad


@pytest.mark.parametrize("model", [TINY_HRM, {**TINY_TRANSFORMER, "tied_embeddings": True}])
def test_a_training_in_chunks_equals_one_with_all_logits(
    monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial, make_context: MakeContext, model: dict[str, Any]
) -> None:
    trial = make_trial(model=model, budget={"axis": "steps", "amount": 3}, num_reports=1, precision="float32")
    [whole], _ = run(trial, make_context("whole"))
    monkeypatch.setattr(readout, "MOST_LOGITS", 3000)
    chunks = [0]
    monkeypatch.setattr(readout, "_chunks", counting(readout._chunks, chunks))
    [parts], _ = run(trial, make_context("parts"))
    assert chunks[0] > 3  # in evaluations, too
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert other.metrics == pytest.approx(one.metrics, rel=1e-4)
    assert parts.validation == pytest.approx(whole.validation, rel=1e-4)


def counting(function: Callable[..., Any], count: list[int]) -> Callable[..., Any]:
    """The function, and how often it is called."""

    def counted(*arguments: Any) -> Any:
        count[0] += 1
        return function(*arguments)

    return counted


class LiveFloats(TorchDispatchMode):
    """The most bytes that tensors of logits' size hold at one time: float32 ones of at least so many values."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.now, self.peak = least, 0, 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and value.dtype == torch.float32 and value.numel() >= self.least:
                self._watch(value.untyped_storage())
        return made

    def _watch(self, storage: Any) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self.seen:
            self.seen.add(place)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self.seen.discard(place)
        self.now -= size


def peak(vocabulary: int, length: int, limit: int, terms: LossTerms) -> tuple[int, int]:
    """In a training and in an evaluation, in bytes."""
    generator = torch.Generator().manual_seed(0)
    head = Head(torch.randn(vocabulary, 8, generator=generator).requires_grad_())
    answer = torch.randn(1, length, 8, generator=generator, dtype=torch.bfloat16).requires_grad_()
    labels = torch.randint(vocabulary, (1, length), generator=generator)
    with LiveFloats(limit // 2) as training:
        read_trained(answer, head, labels, torch.ones(1), terms).loss.backward()  # type: ignore[no-untyped-call]
    with LiveFloats(limit // 2) as evaluation:
        read(answer, head, labels, terms.kind)
    return training.peak, evaluation.peak


@pytest.mark.parametrize("terms", [TERMS[0], TERMS[3]], ids=str)
def test_the_logits_in_memory_do_not_grow_with_the_positions(monkeypatch: pytest.MonkeyPatch, terms: LossTerms) -> None:
    limit = 2**17
    monkeypatch.setattr(readout, "MOST_LOGITS", limit)
    for length in (256, 512):
        training, evaluation = peak(5003, length, limit, terms)
        assert 3.9 * limit < evaluation <= training < 8 * 4 * limit < 256 * 5003 * 4
    monkeypatch.setattr(readout, "MOST_LOGITS", 2**30)
    assert peak(5003, 256, limit, terms)[0] > 2 * 256 * 5003 * 4  # so much it would be


@pytest.mark.slow
def test_not_even_one_copy_of_the_logits_of_2048_positions_and_50265_tokens_is_in_memory() -> None:
    training, evaluation = peak(50_265, 2048, MOST_LOGITS, LossTerms())
    assert evaluation <= training < 2048 * 50_265 * 4
