"""The text task: what is scored and counted, what is held out, how documents become rows, what is refused."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stub import running_hub, use

from hrm.data import packing, tokenizing
from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.data.packing import chunks, packed, windows
from hrm.data.sample_text import SAMPLE
from hrm.data.text_formats import Piece
from hrm.data.tokenizers import BytesTokenizerSpec
from hrm.data.tokenizing import load_tokenizer, tokenized
from hrm.errors import SpecError
from hrm.spec import parse_spec
from hrm.tasks import IGNORE, Answers
from hrm.tasks.text import TextSpec

SHARED = Path(__file__).parents[3] / "shared" / "data"
_random = random.Random(0)
LONG = "".join("🎉é" + "".join(_random.choices("abcdefgh ", k=30 + n % 40)) + "\n" for n in range(200))
TOKENIZERS: dict[str, dict[str, Any]] = {
    "bytes": {"kind": "bytes"},
    "bpe": {"kind": "bpe", "vocab_size": 300},
    "words": {"kind": "words", "min_count": 2},
}


def spec_of(**fields: Any) -> TextSpec:
    return parse_spec(TextSpec, {"sequence_length": 16, **fields}, "recipe")


def text_file(folder: Path, text: str = LONG) -> dict[str, str]:
    (folder / "text.txt").write_bytes(text.encode())
    return {"path": str(folder / "text.txt")}


def lines_file(folder: Path, records: list[dict[str, Any]], name: str = "lines.jsonl") -> dict[str, str]:
    (folder / name).write_text("\n".join(json.dumps(record) for record in records))
    return {"path": str(folder / name)}


def columns(dataset: Dataset, split: str) -> dict[str, np.ndarray]:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def scored_texts(dataset: Dataset, split: str) -> list[str]:
    """The text of a split's scored labels in order, parted at the end tokens."""
    tokenizer = load_tokenizer(dataset.directory)
    labels = columns(dataset, split)["labels"]
    scored = labels[labels != IGNORE]
    ends = np.flatnonzero(scored == tokenizer.end)
    return [tokenizer.decode(part[part != tokenizer.end].tolist()) for part in np.split(scored, ends + 1) if len(part)]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_single_text_is_cut_in_order_and_its_every_byte_is_scored_once(kind: str, tmp_path: Path) -> None:
    spec = spec_of(source=text_file(tmp_path), tokenizer=TOKENIZERS[kind], validation_fraction=0.2, test_fraction=0.1)
    dataset = build_dataset(spec, tmp_path / "data")
    parts = [scored_texts(dataset, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert "".join(part[0] for part in parts) == LONG
    for [part], share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert part.endswith("\n")
        assert len(part) / len(LONG) == pytest.approx(share, abs=75 / len(LONG))  # cut after a line
    counted = {split: int(columns(dataset, split)["num_bytes"].sum()) for split in SPLITS}
    assert counted == {split: len(part[0].encode()) for split, part in zip(SPLITS, parts, strict=True)}
    assert dataset.manifest.facts["scored_bytes_by_split"] == counted


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_the_bytes_of_a_split_are_those_of_its_documents(kind: str, packing: bool, tmp_path: Path) -> None:
    spec = spec_of(tokenizer=TOKENIZERS[kind], packing=packing, validation_fraction=0.3, test_fraction=0.3)
    dataset = build_dataset(spec, tmp_path)
    total = sum(int(columns(dataset, split)["num_bytes"].sum()) for split in SPLITS)
    assert total == sum(len(text.encode()) for text in SAMPLE)
    for split in SPLITS:
        read = columns(dataset, split)
        assert dataset.manifest.facts["scored_tokens_by_split"][split] == (read["labels"] != IGNORE).sum()
        assert (read["num_bytes"] <= 16 * max(map(len, SAMPLE))).all()


def test_a_document_starts_and_ends_with_its_token_and_short_rows_are_padded(tmp_path: Path) -> None:
    spec = spec_of(source=lines_file(tmp_path, [{"text": text} for text in ("abc", "de", "f")]), sequence_length=5)
    dataset = build_dataset(spec, tmp_path / "data")
    end, pad = 1, 0
    rows = [(read["inputs"][0].tolist(), read["labels"][0].tolist()) for read in (columns(dataset, s) for s in SPLITS)]
    expected = []
    for text in ("abc", "de", "f"):
        tokens, rest = [byte + 2 for byte in text.encode()], 4 - len(text)
        expected.append(([end, *tokens] + [pad] * rest, [*tokens, end] + [IGNORE] * rest))
    assert sorted(rows) == sorted(expected)


def test_packing_fills_rows_and_no_label_crosses_documents(tmp_path: Path) -> None:
    texts = ["x" * length for length in range(1, 15)] + ["a long document of 36 characters....."]
    source = lines_file(tmp_path, [{"text": f"{n:02}{text}"} for n, text in enumerate(texts)])
    fields = {"source": source, "validation_fraction": 0.1, "test_fraction": 0.1}
    apart = build_dataset(spec_of(**fields), tmp_path / "data")
    dataset = build_dataset(spec_of(**fields, packing=True), tmp_path / "data")
    read, end = columns(dataset, "train"), 1
    documents, labels, inputs = read["documents"], read["labels"], read["inputs"]
    assert len(labels) < len(columns(apart, "train")["labels"])
    assert sorted(scored_spans(read)) == sorted(scored_spans(columns(apart, "train")))
    padding = labels == IGNORE
    for row in range(len(labels)):
        assert (np.diff(documents[row]) >= 0).all()
        assert set(documents[row][padding[row]]) <= {documents[row][~padding[row]].max() + 1}
    last = np.diff(documents, axis=1, append=99) != 0
    follows = ~last[:, :-1] & ~padding[:, :-1]
    np.testing.assert_array_equal(labels[:, :-1][follows], inputs[:, 1:][follows])
    assert (labels[last & ~padding] == end).sum() == dataset.manifest.facts["documents_by_split"]["train"]


def scored_spans(read: dict[str, np.ndarray]) -> Iterator[tuple[list[int], list[int]]]:
    """Inputs and labels of each document of each row."""
    documents = read.get("documents", np.zeros_like(read["labels"]))
    for row, labels in enumerate(read["labels"]):
        for number in np.unique(documents[row][labels != IGNORE]):
            here = (documents[row] == number) & (labels != IGNORE)
            yield read["inputs"][row][here].tolist(), labels[here].tolist()


def test_a_span_goes_to_the_first_row_with_room_and_a_full_row_is_given_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "OPEN_ROWS", 2)

    def span(size: int) -> packing.Span:
        return packing.Span(np.zeros(size, np.int32), np.zeros(size, np.int32), size)

    rows = packing.packed(map(span, [6, 7, 3, 3, 1, 5]), 10)
    assert [[piece.num_bytes for piece in row] for row in rows] == [[7, 3], [6, 3, 1], [5]]
    rows = packing.packed(map(span, [6, 7, 8]), 10)
    assert [[piece.num_bytes for piece in row] for row in rows] == [[8], [6], [7]]


DOCUMENTS = [f"document {number} says {'so ' * (number % 5)}" for number in range(60)]


def test_documents_are_held_out_by_their_text_in_exact_numbers(tmp_path: Path) -> None:
    def build(texts: list[str], seed: int = 0) -> dict[str, set[str]]:
        folder = tmp_path / str(abs(hash((tuple(texts), seed))))
        folder.mkdir()
        source = lines_file(folder, [{"text": text} for text in texts])
        spec = spec_of(source=source, validation_fraction=0.1, test_fraction=0.2, seed=seed, sequence_length=64)
        dataset = build_dataset(spec, folder / "data")
        return {split: set(scored_texts(dataset, split)) for split in SPLITS}

    splits = build(DOCUMENTS)
    assert {split: len(texts) for split, texts in splits.items()} == {"train": 42, "validation": 6, "test": 12}
    assert set.union(*splits.values()) == set(DOCUMENTS)
    assert build(DOCUMENTS[::-1] + DOCUMENTS[:30]) == splits  # neither order nor repetition is of matter
    assert build(DOCUMENTS, seed=1) != splits


def test_every_split_gets_a_document_however_few_there_are(tmp_path: Path) -> None:
    source = lines_file(tmp_path, [{"text": text} for text in ("a", "b", "c")])
    for fraction in (0.01, 0.98):
        spec = spec_of(source=source, validation_fraction=0.01, test_fraction=fraction)
        facts = build_dataset(spec, tmp_path / "data").manifest.facts
        assert facts["documents_by_split"] == dict.fromkeys(SPLITS, 1)


def test_splits_with_sources_of_their_own_are_read_from_them(tmp_path: Path) -> None:
    sources = {
        name: lines_file(tmp_path, [{"text": f"{name} {n}"} for n in range(4)], f"{name}.jsonl")
        for name in ("source", "validation_source", "test_source")
    }
    dataset = build_dataset(spec_of(**sources), tmp_path / "data")
    assert scored_texts(dataset, "train") == [f"source {n}" for n in range(4)]
    assert scored_texts(dataset, "validation") == [f"validation_source {n}" for n in range(4)]
    sources.pop("validation_source")
    dataset = build_dataset(spec_of(**sources), tmp_path / "data")
    assert len(scored_texts(dataset, "train")) == 3
    assert scored_texts(dataset, "test") == [f"test_source {n}" for n in range(4)]


def test_rows_that_another_split_holds_are_refused_unless_allowed(tmp_path: Path) -> None:
    fields = {
        "source": lines_file(tmp_path, [{"text": f"{n} text"} for n in range(9)]),
        "validation_source": lines_file(tmp_path, [{"text": "3 text"}, {"text": "new"}], "validation.jsonl"),
    }
    with pytest.raises(SpecError, match="validation"):
        build_dataset(spec_of(**fields, seed=1), tmp_path / "data")
    dataset = build_dataset(spec_of(**fields, seed=1, allow_overlap=True), tmp_path / "data")
    assert sum(dataset.manifest.facts["rows_in_an_earlier_split"].values()) == 1


def test_the_vocabulary_is_of_train_alone_and_unknown_words_are_counted(tmp_path: Path) -> None:
    train = lines_file(tmp_path, [{"text": "red green blue"}, {"text": "blue red"}])
    held_out = [lines_file(tmp_path, [{"text": text}], f"{text[:2]}.jsonl") for text in ("red pink", "grey grey green")]
    spec = spec_of(source=train, validation_source=held_out[0], test_source=held_out[1], tokenizer={"kind": "words"})
    dataset = build_dataset(spec, tmp_path / "data")
    assert dataset.manifest.vocabulary == ["<pad>", "<end>", "<unk>", "blue", "green", "red"]
    shares = dataset.manifest.facts["unknown_fraction_by_split"]
    assert shares == {"train": 0, "validation": pytest.approx(1 / 3), "test": pytest.approx(2 / 4)}
    row = columns(dataset, "test")["inputs"][0].tolist()
    assert spec.render(row, dataset.manifest.vocabulary) == "<unk> <unk> green"


def test_an_end_that_is_the_unknown_token_too_is_not_counted_as_unknown(tmp_path: Path) -> None:
    for name, content in BytesTokenizerSpec().build([]).files().items():
        (tmp_path / name).write_bytes(content)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())  # as GPT-2's
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "unk_token": config["eos_token"]}))
    dataset = build_dataset(spec_of(tokenizer={"kind": "pretrained", "path": str(tmp_path)}), tmp_path / "data")
    facts = dataset.manifest.facts
    assert facts["special_tokens"]["unknown"] == facts["special_tokens"]["end"]
    assert set(facts["unknown_fraction_by_split"].values()) == {0}


def test_empty_documents_are_dropped_and_counted(tmp_path: Path) -> None:
    texts = ["a", "", " \n", "b", "c", "d"]
    dataset = build_dataset(spec_of(source=lines_file(tmp_path, [{"text": t} for t in texts])), tmp_path / "data")
    facts = dataset.manifest.facts
    assert facts["empty_documents_by_source"] == {"train": 2}
    assert sum(facts["documents_by_split"].values()) == 4


def test_joined_records_are_one_text(tmp_path: Path) -> None:
    lines = ["one\n", "", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n"]
    source = lines_file(tmp_path, [{"text": line} for line in lines])
    plain = {"kind": "plain", "join": ""}
    spec = spec_of(source=source, format=plain, validation_fraction=0.3, test_fraction=0.3)
    dataset = build_dataset(spec, tmp_path / "data")
    parts = [scored_texts(dataset, split) for split in SPLITS]
    assert parts == [["one\ntwo\nthree\n"], ["four\nfive\n"], ["six\nseven\n"]]


ALPACA = [{"instruction": f"Count to {n}.", "input": "", "output": " ".join(map(str, range(n + 1)))} for n in range(12)]
PROMPT = "### Instruction:\nCount to {}.\n\n### Response:\n"


def test_loss_on_the_response_scores_it_and_its_end_alone(tmp_path: Path) -> None:
    fields = {"source": lines_file(tmp_path, ALPACA), "format": {"kind": "instruction"}, "sequence_length": 96}
    dataset = build_dataset(spec_of(**fields, loss_on="response"), tmp_path / "data")
    found = [text for split in SPLITS for text in scored_texts(dataset, split)]
    assert sorted(found) == sorted(record["output"] for record in ALPACA)
    assert dataset.manifest.facts["scored_bytes_by_split"]["train"] == sum(map(len, scored_texts(dataset, "train")))
    everything = build_dataset(spec_of(**fields), tmp_path / "data")
    assert scored_texts(everything, "train")[0].startswith("### Instruction:\nCount to ")


def test_a_prefix_is_the_whole_prompt_and_what_does_not_fit_is_dropped(tmp_path: Path) -> None:
    long = {"instruction": "Say much.", "output": "much " * 40}
    fields = {"source": lines_file(tmp_path, [*ALPACA, long]), "format": {"kind": "instruction"}, "loss_on": "response"}
    dataset = build_dataset(spec_of(**fields, prefix=True, sequence_length=96), tmp_path / "data")
    assert sum(dataset.manifest.facts["too_long_documents_by_split"].values()) == 1
    assert sum(dataset.manifest.rows.values()) == 12
    for split in SPLITS:
        read = columns(dataset, split)
        first = (read["labels"] != IGNORE).argmax(axis=1)
        np.testing.assert_array_equal(first, read["prefix_lengths"] - 1)  # the prompt's last position says the answer
        prompts = {len(PROMPT.format(n)) + 1 for n in range(12)}
        assert set(read["prefix_lengths"].tolist()) <= prompts
    cut = build_dataset(spec_of(**fields, sequence_length=96), tmp_path / "data")
    assert sum(cut.manifest.rows.values()) > 12


def answers(rows: dict[str, np.ndarray], nats_per_token: float) -> Answers:
    losses = (rows["labels"] != IGNORE).sum(axis=1) * nats_per_token
    return Answers(rows, rows["labels"], losses.astype(np.float64), None)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_bits_per_byte_is_the_code_length_over_the_bytes(kind: str, tmp_path: Path) -> None:
    spec = spec_of(tokenizer=TOKENIZERS[kind], packing=True)
    dataset = build_dataset(spec, tmp_path)
    read = columns(dataset, "train")
    halves = [{name: column[part] for name, column in read.items()} for part in (slice(0, 7), slice(7, None))]
    sums = [spec.score(answers(half, 3.0), dataset.manifest.vocabulary)["bits_per_byte"] for half in halves]
    assert tuple(spec.score(answers(read, 3.0), [])) == spec.metrics
    tokens = dataset.manifest.facts["scored_tokens_by_split"]["train"]
    expected = tokens * 3.0 / math.log(2) / sum(len(text.encode()) for text in train_texts(dataset))
    assert sum(s for s, _ in sums) / sum(w for _, w in sums) == pytest.approx(expected, rel=1e-12)


def train_texts(dataset: Dataset) -> list[str]:
    """The sample's documents that are in train: those of which the first row is there."""
    tokenizer = load_tokenizer(dataset.directory)
    starts = {tuple(inputs[:10]) for inputs, _ in scored_spans(columns(dataset, "train"))}
    framed = {text: (tokenizer.begin, *tokenizer.encode([text])[0][0][:9].tolist()) for text in SAMPLE}
    return [text for text, start in framed.items() if start in starts]


def test_rows_are_rendered_as_text(tmp_path: Path) -> None:
    for kind in ("bytes", "bpe"):
        dataset = build_dataset(spec_of(tokenizer=TOKENIZERS[kind], sequence_length=200), tmp_path)
        read = columns(dataset, "test")
        spec = TextSpec.model_validate({"tokenizer": TOKENIZERS[kind]})
        assert spec.render(read["inputs"][0].tolist(), dataset.manifest.vocabulary) in SAMPLE
        assert spec.render(read["labels"][0].tolist(), dataset.manifest.vocabulary) in SAMPLE


def test_a_hub_dataset_in_parquet_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parquet(texts: list[str]) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": texts}), sink)
        return bytes(sink.getvalue())

    with running_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        files = {"data/train-0.parquet": DOCUMENTS[:30], "data/train-1.parquet": DOCUMENTS[30:50]}
        files["data/validation-0.parquet"] = DOCUMENTS[50:]
        hub.add("owner/text", {name: parquet(texts) for name, texts in files.items()})
        fields = {"source": {"hub": "owner/text", "files": "data/train-*"}, "packing": True}
        fields["validation_source"] = {"hub": "owner/text", "files": "data/validation-*"}
        dataset = build_dataset(spec_of(**fields, sequence_length=64), tmp_path / "data")
    assert dataset.manifest.facts["documents_by_split"] == {"train": 48, "validation": 10, "test": 2}


def test_rows_are_made_in_less_memory_than_the_text_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "BATCH", 1 << 13)
    monkeypatch.setattr(packing, "CHUNK", 1 << 13)
    tokenizer = BytesTokenizerSpec().build([])
    documents = ((Piece(f"{n:04} " * 200, True),) for n in range(1000))
    tracemalloc.start()
    spans = (span for document in tokenized(documents, tokenizer) for span in windows(document, 256))
    rows = sum(len(chunk["inputs"]) for chunk in chunks(packed(spans, 256), 256, 0, documents=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows >= 1000 * 1001 / 256
    assert peak < 800_000  # the text takes 1,000,000 bytes, its tokens as int32 four times as many


def test_the_tokenizers_files_are_part_of_the_dataset(tmp_path: Path) -> None:
    dataset = build_dataset(spec_of(tokenizer=TOKENIZERS["bpe"]), tmp_path)
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(dataset.manifest.files)
    assert load_tokenizer(dataset.directory).vocabulary == dataset.manifest.vocabulary


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"loss_on": "response", "source": {"path": "a"}}, "recipe: loss_on must be all for the format plain, got"),
        ({"validation_fraction": 0.6, "test_fraction": 0.4}, "recipe: validation_fraction + test_fraction must be < 1"),
        ({"format": {"kind": "chat"}}, "recipe: source must be given for this format or further sources, got None."),
        ({"prefix": True}, "recipe: prefix must be false but for the format instruction, loss_on response, packing"),
        ({"tokenizer": {"kind": "bpe", "vocab_size": 10}}, "recipe: tokenizer.vocab_size: must be >= 258, got 10."),
        ({"tokenizer": {"kind": "chars"}}, "recipe: tokenizer.kind: must be one of bytes, bpe, words, pretrained"),
        ({"source": {}}, "recipe: source: exactly one of path and hub must be given"),
        ({"tokenizer": {"kind": "pretrained"}}, "recipe: tokenizer: exactly one of path and hub must be given"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(**fields)
    assert str(caught.value).startswith(problem)


def test_a_source_too_small_to_part_says_what_to_give(tmp_path: Path) -> None:
    source = lines_file(tmp_path, [{"text": "a"}, {"text": "b"}, {"text": "a"}])
    rule = r"holds 2 different documents: too few to hold out test and validation. Give test_source and validation_sou"
    with pytest.raises(SpecError, match=rule):
        build_dataset(spec_of(source=source), tmp_path / "data")
    with pytest.raises(SpecError, match=r"a text of 2 characters leaves nothing for validation\. Raise"):
        build_dataset(spec_of(source=text_file(tmp_path, "ab")), tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "fields", "documents"),
    [
        ("instruct/llms_from_scratch_1100.json", {"format": {"kind": "instruction"}, "prefix": True}, 1100),
        ("instruct/openassistant_en_100_tree.jsonl", {"format": {"kind": "chat", "shape": "tree"}, "packing": True}, 0),
    ],
)
def test_real_instructions_and_conversations_are_built(
    name: str, fields: dict[str, Any], documents: int, tmp_path: Path
) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"there is no {SHARED / name}")
    tokenizer = {"kind": "bpe", "vocab_size": 1000}
    spec = spec_of(
        source={"path": str(SHARED / name)}, tokenizer=tokenizer, loss_on="response", sequence_length=512, **fields
    )
    dataset = build_dataset(spec, tmp_path)
    facts = dataset.manifest.facts
    assert sum(facts["documents_by_split"].values()) >= max(documents, 100)
    assert 2 < facts["bytes_per_token_by_split"]["train"] < 5
