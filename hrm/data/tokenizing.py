"""From text to tokens with the bytes that each stands for, and back.

Every tokenizer is one of the `tokenizers` library and is stored in the dataset's folder as stock Transformers reads it
(`tokenizer.json`, `tokenizer_config.json`), so that what generates or exports uses the one that the data was built
with. The bytes of a text's tokens add up to the text's UTF-8 bytes, whatever the tokenizer does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hrm.data.packing import TokenizedDocument
from hrm.data.text_formats import Document, Piece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLOCK, BATCH = 1 << 18, 1 << 20
"""Characters that are one text to the tokenizer (a longer one is cut between two lines), and one call of it."""
TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_LINE_END = re.compile(r"(?<=\S)\n(?=\S)")


class TextTokenizer:
    """A tokenizer with its special tokens, by number; `begin` and `end` frame a document and may be one token.

    begin: None where a document starts with its first token.
    """

    def __init__(self, backend: Tokenizer, begin: int | None, end: int, pad: int, unknown: int | None = None) -> None:
        backend.encode_special_tokens = True  # what a text writes like a special token is text
        backend.no_truncation()  # folders keep the cuts of a fine-tuning, which are none of the text's
        backend.no_padding()
        words = backend.get_vocab(with_added_tokens=True)
        self.begin, self.end, self.pad, self.unknown = begin, end, pad, unknown
        self.opening = [] if begin is None else [begin]
        """What stands before a document's text."""
        self.vocabulary = [f"<unused {token}>" for token in range(max(words.values()) + 1)]
        """Token -> how it is written; byte-level tokens in the alphabet of `byte_alphabet`."""
        for word, token in words.items():
            self.vocabulary[token] = word
        added = backend.get_added_tokens_decoder()
        special = {token for token, word in added.items() if word.special} - {unknown}
        self.special = frozenset({*self.opening, end, pad} | special)
        """The tokens that stand for no text."""
        self._backend = backend
        self._sizes = _bytes_by_token(self.vocabulary, self.special)

    def encode(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each text its tokens and their bytes, int32; nothing is added at its ends."""
        blocks = [list(_blocks(text)) for text in texts]
        flat = [block for parts in blocks for block in parts]
        encoded = iter(self._encode_blocks(flat))
        result = []
        for parts in blocks:
            pairs = [next(encoded) for _ in parts]
            tokens, sizes = ([pair[side] for pair in pairs] for side in (0, 1))
            result.append((np.concatenate(tokens), np.concatenate(sizes)))
        return result

    def prompt(self, text: str) -> list[int]:
        """The tokens of a document that starts with this text, for a model to go on from; none for an empty text."""
        tokens: list[int] = self.encode([text])[0][0].tolist()
        return [*self.opening, *tokens] if tokens else []

    def unknown_words(self, text: str) -> list[str]:
        """What of a text the vocabulary lacks, in order, none twice."""
        if self.unknown is None:
            return []
        encoding = self._backend.encode(text, add_special_tokens=False)
        places = (place for token, place in zip(encoding.ids, encoding.offsets, strict=True) if token == self.unknown)
        return list(dict.fromkeys(text[start:end] for start, end in places))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; special ones are left out."""
        text = [token for token in tokens if token not in self.special]
        return str(self._backend.decode(text, skip_special_tokens=False))

    def written(self, token: int) -> str:
        """A token as it reads in a text; one that stands for no text, or for part of a character, by its own name."""
        text = "" if token in self.special else self.decode([token])
        return self.vocabulary[token] if not text or "\N{REPLACEMENT CHARACTER}" in text else text

    def files(self) -> dict[str, bytes]:
        """The files that Transformers' `AutoTokenizer` and `load_tokenizer` read, by name."""
        special = {"bos": self.begin, "eos": self.end, "pad": self.pad, "unk": self.unknown}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{name}_token": self.vocabulary[token] for name, token in special.items() if token is not None},
        }
        return {
            TOKENIZER_FILE: self._backend.to_str(pretty=False).encode(),
            CONFIG_FILE: (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode(),
        }

    def _encode_blocks(self, blocks: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for block, encoding in zip(
            blocks, self._backend.encode_batch_fast(blocks, add_special_tokens=False), strict=True
        ):
            tokens = np.array(encoding.ids, dtype=np.int32)
            by_token = self._sizes[tokens]
            if by_token.sum() != len(block.encode()):  # not byte-level, or the tokenizer adds or changes characters
                ends = [end for _, end in self._backend.encode(block, add_special_tokens=False).offsets]
                by_token = _bytes_up_to(block, ends)
            yield tokens, by_token


def tokenized(documents: Iterable[Document], tokenizer: TextTokenizer) -> Iterator[TokenizedDocument]:
    """Documents framed by the begin and end tokens, some at a time; neighbouring pieces of one sort are one text.

    The end is scored where the last piece is. What stands before the first scored piece is the prompt.
    """
    opening = np.array(tokenizer.opening, dtype=np.int32)
    for batch in _batches(documents):
        encoded = iter(tokenizer.encode([piece.text for document in batch for piece in document]))
        for document in batch:
            parts = [next(encoded) for _ in document]
            marks = [np.full(len(part[0]), piece.scored) for part, piece in zip(parts, document, strict=True)]
            prompt = len(opening) + (0 if document[0].scored else len(parts[0][0]))
            yield TokenizedDocument(
                np.concatenate([opening, *(tokens for tokens, _ in parts), [tokenizer.end]], dtype=np.int32),
                np.concatenate([opening < 0, *marks, [document[-1].scored]]),
                np.concatenate([0 * opening, *(sizes for _, sizes in parts), [0]], dtype=np.int32),
                prompt,
            )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(tuple(_merged(document)))
        size += sum(len(piece.text) for piece in document)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _merged(document: Document) -> Iterator[Piece]:
    for scored, pieces in groupby((piece for piece in document if piece.text), lambda piece: piece.scored):
        yield Piece("".join(piece.text for piece in pieces), scored)


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer that `TextTokenizer.files` stored in a folder (a built dataset's)."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    numbers = backend.get_vocab(with_added_tokens=True)
    begin, end, pad = (numbers[config[f"{name}_token"]] for name in ("bos", "eos", "pad"))
    return TextTokenizer(backend, begin, end, pad, numbers.get(config.get("unk_token")))


@cache
def byte_alphabet() -> str:
    """The character that stands for each byte in byte-level tokens: itself where it is printable, else 256 and up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


def bytes_of(written: str) -> bytes:
    """The bytes of byte-level tokens as they are written; another character stands for itself."""
    number = {character: byte for byte, character in enumerate(byte_alphabet())}
    return b"".join(bytes([number[c]]) if c in number else c.encode() for c in written)


def _bytes_by_token(vocabulary: list[str], special: frozenset[int]) -> np.ndarray:
    """[vocabulary] the bytes of each token if it is a byte-level one; special ones stand for none."""
    alphabet = frozenset(byte_alphabet())
    plain = [token not in special and alphabet.issuperset(word) for token, word in enumerate(vocabulary)]
    return np.array([len(word) if is_plain else 0 for word, is_plain in zip(vocabulary, plain, strict=True)], np.int32)


def _blocks(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > BLOCK:
        ends = [found.end() for found in _LINE_END.finditer(text, start + BLOCK // 2, start + BLOCK)]
        end = ends[-1] if ends else start + BLOCK
        yield text[start:end]
        start = end
    yield text[start:]


def _bytes_up_to(text: str, ends: Sequence[int]) -> np.ndarray:
    """Bytes of tokens that end at these characters of the text: each from the end of the one before; the last to the
    text's end. Of tokens that share a character the first has its bytes."""
    characters = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + (characters >= 0x80).astype(np.int32) + (characters >= 0x800) + (characters >= 0x10000)
    before = np.concatenate(([0], np.cumsum(widths, dtype=np.int64)))
    reached = np.maximum.accumulate(np.array(ends, dtype=np.int64)) if len(ends) else np.zeros(0, np.int64)
    reached[-1:] = len(text)
    return np.diff(before[reached], prepend=0).astype(np.int32)
