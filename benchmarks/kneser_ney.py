"""Bits per byte of an n-gram model of bytes: what a language model of this project has to beat on the same split.

    python -m benchmarks.kneser_ney DATASET... [--orders 3 4 5 6] [--storage runs]

Interpolated modified Kneser-Ney (Chen and Goodman 1998): three discounts for each order, estimated from counts of
counts, continuation counts below the highest order, and a uniform distribution over the 256 bytes at the end. DATASET
is a built dataset of the task `text`, named as `data show` names it. As in the task's own metric, the ends of documents
are predicted, too, and are no bytes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrm.data.dataset import SPLITS, Dataset
from hrm.data.tokenizers import SPECIAL
from hrm.data.tokenizing import bytes_of
from hrm.errors import Problem, SpecError
from hrm.tasks import IGNORE
from orchestrator.data_names import open_named

MOST_BYTES = 8
"""An n-gram is one 64-bit number."""
ASSUMED = (0.5, 1.0, 1.5)
"""The discounts of an order whose counts of counts give none, as KenLM assumes them."""


def bits_per_byte(train: bytes, held_out: bytes, order: int = 5) -> float:
    """The mean of -log2 p(byte | the order - 1 bytes before it), fewer at the start of the text."""
    return KneserNey(train, order).bits(held_out) / len(held_out)


class KneserNey:
    """A distribution over the next byte for every context of bytes, seen or not."""

    def __init__(self, train: bytes, order: int = 5) -> None:
        """Raises ValueError for an order that is not 1 .. 8, or a text shorter than it."""
        if not 1 <= order <= min(MOST_BYTES, len(train)):
            rule = f"order must be 1 .. {MOST_BYTES} and at most the length of the text"
            raise ValueError(f"{rule}, got {order} for {len(train)} bytes")
        shorter = [_level(*_continuations(train, length)) for length in range(1, order)]
        self._levels = [*shorter, _level(*np.unique(_grams(train, order), return_counts=True))]

    def bits(self, text: bytes) -> float:
        """The sum of -log2 p over the bytes of a text."""
        return -float(np.log2(self.probabilities(text)).sum())

    def probabilities(self, text: bytes) -> np.ndarray:
        """[len(text)] float64: of each byte, given the bytes before it."""
        result = np.full(len(text), 1 / 256)
        for length, level in enumerate(self._levels[: len(text)], 1):
            result[length - 1 :] = level.interpolate(_grams(text, length), result[length - 1 :])
        return result

    def distribution(self, context: bytes) -> np.ndarray:
        """[256] float64: of the byte after `context`."""
        return np.array([self.probabilities(context + bytes([byte]))[-1] for byte in range(256)])


@dataclass(frozen=True, slots=True)
class _Level:
    """The n-grams of one length, sorted, so that those of one context are neighbours."""

    grams: np.ndarray
    shares: np.ndarray
    """Of each n-gram in its context, after the discount."""
    contexts: np.ndarray
    spared: np.ndarray
    """Of each context: the share that the discounts took, which the next shorter context gives out."""

    def interpolate(self, grams: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """The probabilities of these n-grams' last bytes, from those that the context without its first byte gives."""
        found: np.ndarray = _look_up(self.contexts, self.spared, grams >> np.uint64(8), 1.0) * shorter
        found += _look_up(self.grams, self.shares, grams, 0.0)
        return found


def _level(grams: np.ndarray, counts: np.ndarray) -> _Level:
    discount = np.array((0.0, *discounts(counts)))[counts.clip(max=3)]
    contexts, starts = np.unique(grams >> np.uint64(8), return_index=True)
    totals = np.add.reduceat(counts, starts)
    sizes = np.diff(starts, append=len(grams))
    shares = (counts - discount) / np.repeat(totals, sizes)
    return _Level(grams, shares, contexts, np.add.reduceat(discount, starts) / totals)


def discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """What is taken from n-grams counted once, twice and more often (Chen and Goodman 1998, equation 26)."""
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if 0 in (n1, n2, n3, n4):
        return ASSUMED
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < discount <= times for times, discount in enumerate(found, 1)) else ASSUMED


def _grams(text: bytes, length: int) -> np.ndarray:
    """Every run of `length` bytes as a number, the last byte lowest: uint64."""
    values = np.frombuffer(text, np.uint8)
    codes = np.zeros(len(values) - length + 1, np.uint64)
    for place in range(length):
        codes = codes << np.uint64(8) | values[place : place + len(codes)]
    return codes


def _continuations(text: bytes, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams that follow any byte, and how many different bytes each follows."""
    longer = np.unique(_grams(text, length + 1))
    return np.unique(longer & np.uint64(256**length - 1), return_counts=True)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, otherwise: float) -> np.ndarray:
    """The value of each wanted key; keys are sorted."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], otherwise)


def scored_text(dataset: Dataset, split: str) -> tuple[bytes, int]:
    """The text that a split scores, with a zero byte at each end of a document, and its number of bytes without these.

    Raises SpecError where the tokens do not spell the text.
    """
    columns = dataset.split(split).gather(np.arange(dataset.manifest.rows[split]))
    labels = columns["labels"][columns["labels"] != IGNORE]
    written = [b"" if word in SPECIAL else bytes_of(word) for word in dataset.manifest.vocabulary]
    num_bytes = int(columns["num_bytes"].sum()) if "num_bytes" in columns else -1
    if sum(len(written[token]) for token in labels.tolist()) != num_bytes:
        rule = "the scored tokens must spell the text, byte by byte"
        raise SpecError(Problem(str(dataset.directory), rule, "Build it as text with tokenizer: {kind: bytes}"))
    return b"".join(written[token] or b"\0" for token in labels.tolist()), num_bytes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="DATASET")
    parser.add_argument("--orders", nargs="+", type=int, default=[3, 4, 5, 6])
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    options = parser.parse_args()
    print("dataset                    order  validation    test  bits per byte  seconds")
    for name in options.datasets:
        texts = {split: scored_text(open_named(name, options.storage), split) for split in SPLITS}
        for order in options.orders:
            started = time.perf_counter()
            model = KneserNey(texts["train"][0], order)
            validation, test = (model.bits(texts[split][0]) / texts[split][1] for split in ("validation", "test"))
            seconds = time.perf_counter() - started
            print(f"{name:26} {order:5d} {validation:11.4f} {test:7.4f} {seconds:22.2f}")


if __name__ == "__main__":
    main()
