"""Text: next-token prediction on any local or hub data, plain, as instructions or as conversations.

A document is framed by the tokenizer's begin and end tokens. Its every token is scored once, or those of the responses
alone; the UTF-8 bytes of what is scored are counted, so that bits per byte are exact and comparable between tokenizers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from hrm.data.corpus import Corpus
from hrm.data.dataset import SPLITS, DatasetWriter, Rows
from hrm.data.packing import Span, TokenizedDocument, chunks, packed, windows
from hrm.data.sample_text import SampleName
from hrm.data.sources import SourceSpec
from hrm.data.text_formats import Document, FormatSpec, LossOn, PlainFormat
from hrm.data.text_responses import asked_responses, compare
from hrm.data.tokenizers import SPECIAL, BytesTokenizerSpec, TokenizerSpec
from hrm.data.tokenizing import TextTokenizer, bytes_of, load_tokenizer, tokenized
from hrm.tasks import IGNORE, Answer, Answers, Sums, TaskSpec


class TextSpec(TaskSpec):
    """The recipe."""

    kind: Literal["text"] = "text"
    next_token: ClassVar[bool] = True
    reduction: ClassVar[Literal["token", "row"]] = "token"

    source: SourceSpec | None = None
    """Of train; null: a small text that comes with the code, for the format `instruction` questions about it."""
    sample: SampleName = "prose"
    """Which sample, where there is no source: a little prose, or lists of tags."""
    validation_source: SourceSpec | None = None
    test_source: SourceSpec | None = None
    """null: held out of `source`, by document, or cut from its end if it is a single text."""
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)
    test_fraction: float = Field(default=0.05, gt=0, lt=1)
    """The share of the documents, or of the characters of a single text, that is held out."""
    format: FormatSpec = PlainFormat()
    tokenizer: TokenizerSpec = BytesTokenizerSpec()
    sequence_length: int = Field(default=128, ge=2, le=2**20)
    """Positions of a row. A longer document is cut into rows."""
    loss_on: LossOn = "all"
    """`response`: only what the assistant says, and the end after it."""
    prefix: bool = False
    """The prompt is read as a whole by models that can (PrefixLM). A document that does not fit a row is dropped."""
    packing: bool = False
    """Several documents to a row, with a column `documents` that keeps models from looking across."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the choice of what is held out."""
    generated_rows: int = Field(default=0, ge=0, le=100_000)
    """So many rows of a split, evenly spread, of which the model writes the response itself, to be held against the
    one that stands there: BLEU, chrF, ROUGE-1, -2, -L and METEOR (`hrm.data.text_responses`). On the test split at a
    training's end, and by `checkpoint evaluate`. Does not change what is built."""
    generated_tokens: int = Field(default=128, ge=1, le=2**20)
    """The most tokens of such a response."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        held_out = [split for split in ("validation", "test") if getattr(self, f"{split}_source") is None]
        total = sum(getattr(self, f"{split}_fraction") for split in held_out)
        if total >= 1:
            raise ValueError(f"validation_fraction + test_fraction must be < 1, got {total:g}. Lower one")
        sampled = self.format == PlainFormat() or self.format.kind == "instruction"
        if self.source is None and not (sampled and len(held_out) == 2):
            raise ValueError("source must be given for this format or further sources, got None. Give source")
        if self.sample != "prose" and (self.source is not None or self.format.kind != "plain"):
            rule = f"sample must be left out where there is a source, or another format than plain, got {self.sample!r}"
            raise ValueError(f"{rule}. Leave it out")
        if self.loss_on == "response" and self.format.kind == "plain":
            raise ValueError("loss_on must be all for the format plain, got 'response'. A plain text has no response")
        if self.prefix and (self.format.kind != "instruction" or self.loss_on != "response" or self.packing):
            found = f"{self.format.kind}, {self.loss_on}, packing {str(self.packing).lower()}"
            rule = "prefix must be false but for the format instruction, loss_on response, packing false"
            raise ValueError(f"{rule}, got {found}. Change them, or leave prefix out")
        if self.generated_rows and self.loss_on != "response":
            rule = f"generated_rows must be 0 where loss_on is all, got {self.generated_rows}"
            raise ValueError(f"{rule}. Set loss_on: response, or leave it out")
        if self.generated_tokens != 128 and not self.generated_rows:
            rule = f"generated_tokens must be left out where generated_rows is 0, got {self.generated_tokens}"
            raise ValueError(f"{rule}. Set generated_rows, or leave it out")
        return self

    def build(self, writer: DatasetWriter) -> None:
        """Make the tokenizer from the train split, store it, and write the splits in chunks."""
        corpus = self._corpus()
        tokenizer = self.tokenizer.build("".join(p.text for p in document) for document in corpus.documents("train"))
        writer.vocabulary = tokenizer.vocabulary
        for name, content in tokenizer.files().items():
            writer.write_file(name, content)
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for split in SPLITS:
            documents = corpus.documents(split)
            writer.write_split(split, self._columns(documents, tokenizer, counts[split]))
        writer.facts = self._facts(tokenizer, counts, corpus.empty)

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """The text; special tokens and ignored labels are left out."""
        words = [word for token in tokens if token >= 0 and (word := vocabulary[token]) not in SPECIAL]
        if self.tokenizer.kind == "words":
            return " ".join(words)
        return bytes_of("".join(words)).decode(errors="replace").replace("▁", " ")

    def text_tokenizer(self, directory: Path, vocabulary: list[str]) -> TextTokenizer:
        """The one that was stored when the rows were made."""
        return load_tokenizer(directory)

    def prompt(self, text: str) -> str:
        """In the format's words."""
        return self.format.prompt(text)

    @property
    def prompts_whole(self) -> bool:
        return self.prefix

    @property
    def metrics(self) -> tuple[str, ...]:
        """Bits per byte."""
        return ("bits_per_byte",)

    def score(self, answers: Answers, vocabulary: list[str]) -> Sums:
        """`bits_per_byte`: the losses over the UTF-8 bytes of the scored text; ends of documents cost, and are none."""
        return {"bits_per_byte": (float(answers.losses.sum()) / math.log(2), float(answers.rows["num_bytes"].sum()))}

    @property
    def has_predictions(self) -> bool:
        return self.generated_rows > 0

    def predictions(self, answer: Answer, rows: Rows, vocabulary: list[str]) -> pa.Table | None:
        """`row`, `reference`, `text`: the last response of each document, as it stands and as the model writes it."""
        if not self.generated_rows:
            return None
        tokenizer = answer.tokenizer
        if tokenizer is None or tokenizer.begin is None:
            raise ValueError("a text's tokenizer has a begin token")
        # Some rows hold no whole document.
        looked_at = np.linspace(0, len(rows) - 1, min(4 * self.generated_rows, len(rows))).astype(np.int64)
        asked = asked_responses(rows.gather(looked_at), tokenizer.begin, tokenizer.end)
        chosen = np.unique(np.linspace(0, len(asked) - 1, min(self.generated_rows, len(asked))).astype(np.int64))
        asked = [asked[place] for place in chosen.tolist()]
        said = answer.continued([one.prompt for one in asked], self.generated_tokens)
        texts = [tokenizer.decode(tokens).strip() for tokens in said]
        references = [tokenizer.decode(one.reference).strip() for one in asked]
        numbers = looked_at[[one.place for one in asked]]
        columns = {"reference": references, "text": texts}
        return pa.table({"row": numbers, **{name: pa.array(found, pa.string()) for name, found in columns.items()}})

    def judge(self, predictions: pa.Table) -> dict[str, float]:
        """See `hrm.data.text_responses.compare`."""
        return compare(predictions["text"].to_pylist(), predictions["reference"].to_pylist())

    def recipe(self) -> Self:
        """The recipe of the rows: what is generated after a training is not one of theirs."""
        plain = {name: type(self).model_fields[name].default for name in ("generated_rows", "generated_tokens")}
        return super().recipe().model_copy(update=plain)

    @classmethod
    def smoke(cls) -> Self:
        """The sample text as bytes."""
        return cls(sequence_length=48)

    def _corpus(self) -> Corpus:
        sources = {"train": self.source, "validation": self.validation_source, "test": self.test_source}
        fractions = {"validation": self.validation_fraction, "test": self.test_fraction}
        return Corpus(sources, self.format, self.loss_on, fractions, self.seed, self.sample)

    def _columns(
        self, documents: Iterable[Document], tokenizer: TextTokenizer, counts: Counter[str]
    ) -> Iterator[dict[str, np.ndarray]]:
        spans = self._spans(tokenized(documents, tokenizer), tokenizer, counts)
        rows = packed(spans, self.sequence_length) if self.packing else ([span] for span in spans)
        make = partial(chunks, documents=self.packing, prompts=self.prefix)
        return make(rows, self.sequence_length, tokenizer.pad)

    def _spans(
        self, documents: Iterable[TokenizedDocument], tokenizer: TextTokenizer, counts: Counter[str]
    ) -> Iterator[Span]:
        # A tokenizer whose unknown token ends documents, too (GPT-2's, which knows every byte), has none to count
        unknown = None if tokenizer.unknown == tokenizer.end else tokenizer.unknown
        for document in documents:
            counts["documents"] += 1
            if self.prefix and len(document.tokens) > self.sequence_length + 1:
                counts["too_long"] += 1
                continue
            for span in windows(document, self.sequence_length):
                scored = span.labels[span.labels != IGNORE]
                counts["tokens"] += len(scored)
                counts["bytes"] += span.num_bytes
                counts["unknown"] += 0 if unknown is None else int((scored == unknown).sum())
                yield span

    def _facts(
        self, tokenizer: TextTokenizer, counts: dict[str, Counter[str]], empty: dict[str, int]
    ) -> dict[str, Any]:
        def by_split(name: str) -> dict[str, int]:
            return {split: found[name] for split, found in counts.items()}

        def quotient(over: str, under: str) -> dict[str, float]:
            return {split: found[over] / max(1, found[under]) for split, found in counts.items()}

        return {
            "documents_by_split": by_split("documents"),
            "scored_tokens_by_split": by_split("tokens"),
            "scored_bytes_by_split": by_split("bytes"),
            "bytes_per_token_by_split": quotient("bytes", "tokens"),
            "unknown_fraction_by_split": quotient("unknown", "tokens"),
            "empty_documents_by_source": empty,
            **({"too_long_documents_by_split": by_split("too_long")} if self.prefix else {}),
            "special_tokens": {name: getattr(tokenizer, name) for name in ("begin", "end", "pad", "unknown")},
        }
