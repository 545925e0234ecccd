"""The n-gram model that language models are measured against: a proper distribution, and the published formula."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kneser_ney import ASSUMED, KneserNey, bits_per_byte, discounts, main, scored_text
from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.data.sample_text import SAMPLE
from hrm.errors import SpecError
from hrm.spec import parse_spec
from hrm.tasks.text import TextSpec

TEXT = "\n".join(SAMPLE).encode()


@pytest.mark.parametrize("order", [1, 2, 5, 8])
@pytest.mark.parametrize("context", [b"", b"T", b"the sea", b"\xff", b"the \xff", b"\xffhe s", TEXT[-9:]])
def test_the_probabilities_of_all_bytes_are_positive_and_add_up_to_one(order: int, context: bytes) -> None:
    distribution = KneserNey(TEXT, order).distribution(context)
    assert distribution.shape == (256,)
    assert (distribution > 0.0).all()
    assert distribution.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_discounts_are_those_of_the_counts_of_counts() -> None:
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])  # n1 .. n4 = 4, 2, 1, 1: Y = 4 / (4 + 2 * 2) = 1/2
    assert discounts(counts) == (1 - 2 / 2 * 2 / 4, 2 - 3 / 2 * 1 / 2, 3 - 4 / 2 * 1 / 1)
    assert discounts(np.array([1, 1, 2, 3])) == ASSUMED  # nothing is counted four times
    assert discounts(np.array([1, 2, 3, 4, 4, 4])) == ASSUMED  # they would be 1/3, 1 and -1


def test_a_text_of_three_bytes_by_hand() -> None:
    """aa and ab once each; a and b each follow one byte. Too little to estimate from: one half is taken of each."""
    single = 0.5 / 2 + 0.5 * 2 / 2 / 256  # of a, and of b
    unseen = 0.5 * 2 / 2 / 256
    after_a = KneserNey(b"aab", 2).distribution(b"a")
    assert after_a[ord("a")] == after_a[ord("b")] == pytest.approx(0.5 / 2 + 0.5 * single)
    assert after_a[ord("c")] == pytest.approx(0.5 * unseen)
    assert KneserNey(b"aab", 2).distribution(b"b")[ord("a")] == pytest.approx(single)
    assert bits_per_byte(b"aab", b"ab", 2) == pytest.approx(-(math.log2(single) + math.log2(0.25 + 0.5 * single)) / 2)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_the_formula_of_chen_and_goodman(order: int) -> None:
    random = np.random.Generator(np.random.Philox(3))
    drawn = random.choice(np.frombuffer(b"abcdef", np.uint8), 360, p=[0.4, 0.3, 0.1, 0.1, 0.07, 0.03]).tobytes()
    train, held_out = drawn[:300], drawn[300:] + b"?a"
    expected = [formula(train, held_out[max(0, i + 1 - order) : i], held_out[i : i + 1], order) for i in range(62)]
    np.testing.assert_allclose(KneserNey(train, order).probabilities(held_out), expected, rtol=1e-12)


def formula(train: bytes, context: bytes, byte: bytes, order: int) -> float:
    """p(byte | context) as it is written down, recursively, one probability at a time."""
    length = len(context) + 1
    counts = counted(train, length, order)
    followers = [count for gram, count in counts.items() if gram[:-1] == context]
    shorter = formula(train, context[1:], byte, order) if context else 1 / 256
    if not followers:
        return shorter
    taken = (0.0, *discounts(np.array(list(counts.values()))))
    count = counts[context + byte]
    gamma = sum(taken[min(follower, 3)] for follower in followers) / sum(followers)
    return (count - taken[min(count, 3)]) / sum(followers) + gamma * shorter


def counted(train: bytes, length: int, order: int) -> Counter[bytes]:
    """Occurrences of the n-grams of the highest order; of shorter ones, how many different bytes they follow."""
    if length == order:
        return Counter(train[i : i + length] for i in range(len(train) - length + 1))
    return Counter(longer[1:] for longer in {train[i : i + length + 1] for i in range(len(train) - length)})


def test_a_longer_context_helps_and_a_text_read_before_is_known() -> None:
    train, held_out = TEXT[:-500], TEXT[-500:]
    by_order = [bits_per_byte(train, held_out, order) for order in (1, 2, 3)]
    assert by_order == sorted(by_order, reverse=True)
    assert bits_per_byte(TEXT, held_out) < 0.5 * bits_per_byte(train, held_out)


@pytest.mark.parametrize(("train", "order"), [(TEXT, 0), (TEXT, 9), (b"abcd", 5)])
def test_an_order_that_cannot_be_is_refused(train: bytes, order: int) -> None:
    with pytest.raises(ValueError, match=f"order must be 1 .. 8 and at most the length of the text, got {order} for"):
        KneserNey(train, order)


PLAYS = "".join(f"Scene {number}.\nCitizen: we are {number * number} too many; \u00e9.\n" for number in range(90))


def test_a_text_is_measured_on_the_splits_that_models_see(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plays.txt").write_text(PLAYS, encoding="utf-8")
    dataset = built(tmp_path, source={"path": str(tmp_path / "plays.txt")})
    texts = [scored_text(dataset, split) for split in SPLITS]
    assert b"".join(text[:-1] for text, _ in texts).decode() == PLAYS
    assert [(text[-1], len(text) - 1) for text, _ in texts] == [(0, num_bytes) for _, num_bytes in texts]
    name, root = dataset.directory.name, str(tmp_path)
    monkeypatch.setattr("sys.argv", ["kneser_ney", name, "--orders", "2", "5", "--storage", root])
    main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[:2] for row in rows] == [[name, "2"], [name, "5"]]
    (train, _), *held_out = texts
    with_the_end = [bits_per_byte(train, text) * len(text) / num_bytes for text, num_bytes in held_out]
    assert rows[1][2:4] == [f"{value:.4f}" for value in with_the_end]


@pytest.mark.parametrize("recipe", [{}, {"packing": True}, {"tokenizer": {"kind": "bpe", "vocab_size": 300}}])
def test_each_document_is_read_once_and_ended(tmp_path: Path, recipe: dict[str, Any]) -> None:
    dataset = built(tmp_path, **recipe)
    documents = [d for split in SPLITS for d in scored_text(dataset, split)[0].decode().split("\0")[:-1]]
    assert sorted(documents) == sorted(SAMPLE)


def test_tokens_that_do_not_spell_the_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"must spell the text, byte by byte.*tokenizer: .kind: bytes"):
        scored_text(built(tmp_path, tokenizer={"kind": "words"}), "train")


def built(root: Path, **recipe: Any) -> Dataset:
    return build_dataset(parse_spec(TextSpec, {"kind": "text", **recipe}, "recipe"), root / "data")
