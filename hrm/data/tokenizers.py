"""The tokenizers that a text recipe can name: bytes, words, a BPE trained on its own text, a ready-made one.

Vocabularies are made from the train split alone. Own tokenizers number `<pad>` 0 and `<end>` 1; a document is
`<end>` text `<end>`, so that its first token is predicted too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hrm.data.hub import RepositoryKind
from hrm.data.sources import SourceSpec
from hrm.data.tokenizing import CONFIG_FILE, TOKENIZER_FILE, TextTokenizer, byte_alphabet
from hrm.errors import Problem, SpecError
from hrm.spec import Spec

PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"
USUAL = {
    "begin": ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]"),
    "end": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "[SEP]"),
    "pad": (PAD, "<|pad|>", "[PAD]"),
    "unknown": (UNKNOWN, "[UNK]"),
}
"""The names that ready-made tokenizers give their special tokens."""
SPECIAL = frozenset({PAD, END, *USUAL["begin"], *USUAL["end"], *USUAL["pad"]})
"""What a text is read without."""
NUM_BYTES = 256


class BytesTokenizerSpec(Spec):
    """A token is a byte of the text's UTF-8: 256 of them, and `<pad>` and `<end>`."""

    kind: Literal["bytes"] = "bytes"

    def build(self, texts: Iterable[str]) -> TextTokenizer:
        """The tokenizer; it needs no text."""
        return _own({PAD: 0, END: 1, **{character: 2 + byte for byte, character in enumerate(byte_alphabet())}})


class BpeTokenizerSpec(Spec):
    """A byte-level byte-pair encoding trained on the train split: any text can be written, none is unknown."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = Field(default=4096, ge=NUM_BYTES + 2, le=2**20)
    """With `<pad>`, `<end>` and the 256 bytes; a small text may give fewer."""

    def build(self, texts: Iterable[str]) -> TextTokenizer:
        """Train on the texts: the pair that is met most often becomes a token, again and again."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=2,
            special_tokens=[PAD, END],
            initial_alphabet=list(byte_alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return TextTokenizer(backend, begin=1, end=1, pad=0)


class WordsTokenizerSpec(Spec):
    """A token is a word or a run of punctuation of the train split, any other `<unk>`; white space is lost."""

    kind: Literal["words"] = "words"
    min_count: int = Field(default=1, ge=1)
    """How often a word must be met in the train split to be in the vocabulary."""

    def build(self, texts: Iterable[str]) -> TextTokenizer:
        """Count the words of the texts."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        splitter = pre_tokenizers.Whitespace()
        counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(text))
        words = sorted(word for word, count in counts.items() if count >= self.min_count)
        numbers = {word: number for number, word in enumerate([PAD, END, UNKNOWN, *words])}
        backend = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
        backend.pre_tokenizer = splitter
        backend.add_special_tokens([PAD, END, UNKNOWN])
        return TextTokenizer(backend, begin=1, end=1, pad=0, unknown=2)


class PretrainedTokenizerSpec(SourceSpec):
    """A ready-made tokenizer: a file or folder, or a model on the hub, with `tokenizer.json` or GPT-2's two files.

    The special tokens are those of its `tokenizer_config.json`, or else found by their usual names.
    """

    kind: Literal["pretrained"] = "pretrained"
    begin_token: str | None = None
    end_token: str | None = None
    pad_token: str | None = None
    repository: ClassVar[RepositoryKind] = "model"

    def build(self, texts: Iterable[str]) -> TextTokenizer:
        """Read it. Raises SpecError for files of another form, and for a tokenizer that has no end token."""
        files = {path.name: path for path in self.locate()}
        backend = _read_backend(files, self.place)
        config = json.loads(files[CONFIG_FILE].read_text(encoding="utf-8")) if CONFIG_FILE in files else {}
        known = backend.get_vocab(with_added_tokens=True)

        def token(name: str, given: str | None, usual: tuple[str, ...]) -> int | None:
            content = config.get(f"{name}_token")
            content = content.get("content") if isinstance(content, dict) else content
            if given is not None and given not in known:
                rule = f"its vocabulary has no token {given!r}"
                raise SpecError(Problem(f"tokenizer: {self.place}", rule, "Name one that it has"))
            return next((known[word] for word in (given, content, *usual) if word in known), None)

        end = token("eos", self.end_token, USUAL["end"])
        if end is None:
            rule = "it has no token that ends a document"
            raise SpecError(Problem(f"tokenizer: {self.place}", rule, "Name one with end_token"))
        begin = token("bos", self.begin_token, USUAL["begin"])
        pad = token("pad", self.pad_token, USUAL["pad"])
        unknown = token("unk", None, USUAL["unknown"])
        return TextTokenizer(backend, end if begin is None else begin, end, end if pad is None else pad, unknown)

    @property
    def place(self) -> str:
        """Where it is from, for messages."""
        return str(self.path or self.hub)

    @staticmethod
    def usual_files(names: list[str]) -> list[str]:
        """`tokenizer.json`, or a vocabulary and its merges; beside them the names of the special tokens."""
        pairs = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
        main = next((choice for choice in ((TOKENIZER_FILE,), *pairs) if set(choice) <= set(names)), ())
        return [*main, *(name for name in names if main and name == CONFIG_FILE)]


TokenizerSpec = Annotated[
    BytesTokenizerSpec | BpeTokenizerSpec | WordsTokenizerSpec | PretrainedTokenizerSpec, Field(discriminator="kind")
]


def _own(vocabulary: dict[str, int]) -> TextTokenizer:
    """A byte-level tokenizer without merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([PAD, END])
    return TextTokenizer(backend, begin=1, end=1, pad=0)


def _read_backend(files: dict[str, Path], place: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    try:
        ready = files.get(TOKENIZER_FILE) or (next(iter(files.values())) if len(files) == 1 else None)
        if ready:
            return Tokenizer.from_file(str(ready))
        vocabulary, merges = _pair(files)
        backend = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        return backend
    except Exception as error:  # `tokenizers` raises plain Exception for what it cannot read
        rule = f"cannot be read as a tokenizer: {error}"
        way_out = "Give a tokenizer.json, or a folder with vocab.json and merges.txt"
        raise SpecError(Problem(f"tokenizer: {place}", rule, way_out)) from error


def _pair(files: dict[str, Path]) -> tuple[Path, Path]:
    names = ("vocab.json", "merges.txt") if "vocab.json" in files else ("encoder.json", "vocab.bpe")
    return files[names[0]], files[names[1]]
