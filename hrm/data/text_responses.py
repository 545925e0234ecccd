"""Responses that a model writes itself: which rows ask for one, and how near what it writes is to what stands there.

The metrics are those of well-kept libraries (sacrebleu, rouge-score, nltk), all from 0 to 100. They compare words and
characters with one reference, not meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrm.data.checks import IGNORE

_WORD = re.compile(r"\w+|[^\w\s]")
_ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


@dataclass(frozen=True, slots=True)
class Asked:
    """The last response of a row's first document: what stands before it, and what was said."""

    place: int
    """In the rows that were looked at."""
    prompt: list[int]
    reference: list[int]
    """Without the end token."""


def asked_responses(rows: Mapping[str, np.ndarray], begin: int, end: int) -> list[Asked]:
    """Of rows [N, S] those that hold a whole document from its begin to its end, the last piece of it scored."""
    found = []
    for place, (inputs, labels) in enumerate(zip(rows["inputs"], rows["labels"], strict=True)):
        scored = labels != IGNORE
        if "documents" in rows:
            scored = scored & (rows["documents"][place] == rows["documents"][place, 0])
        if inputs[0] != begin or not scored.any():
            continue
        last = int(np.flatnonzero(scored)[-1])
        before = np.flatnonzero(~scored[:last])
        first = int(before[-1]) + 1 if len(before) else 0
        if labels[last] == end and last > first > 0:
            found.append(Asked(place, inputs[: first + 1].tolist(), labels[first:last].tolist()))
    return found


def compare(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU and chrF over all texts together, ROUGE's F1 and METEOR as means over texts; one reference each.

    `meteor_stemmed` matches equal words and equal stems: METEOR's third stage, synonyms, would need a download.
    """
    import sacrebleu

    if not texts:
        return {}
    return {
        "bleu": float(sacrebleu.corpus_bleu(texts, [references]).score),
        "chrf": float(sacrebleu.corpus_chrf(texts, [references]).score),
        **_rouge(texts, references),
        "meteor_stemmed": _meteor(texts, references),
    }


def _rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(_ROUGE.values()))
    found = [scorer.score(reference, text) for text, reference in zip(texts, references, strict=True)]
    return {name: 100.0 * float(np.mean([one[theirs].fmeasure for one in found])) for name, theirs in _ROUGE.items()}


def _meteor(texts: Sequence[str], references: Sequence[str]) -> float:
    from nltk.translate.meteor_score import meteor_score

    pairs = [(_WORD.findall(text), _WORD.findall(reference)) for text, reference in zip(texts, references, strict=True)]
    return 100.0 * float(np.mean([meteor_score([said], text, wordnet=_NoSynonyms()) for text, said in pairs]))


class _NoSynonyms:
    """In the place of WordNet."""

    def synsets(self, word: str) -> list[Any]:
        """None."""
        return []
