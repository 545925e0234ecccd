"""Tokenizers: every text comes back, its bytes are counted exactly, a vocabulary is of the given texts alone."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hub_stub import running_hub, use

from hrm.data import tokenizing
from hrm.data.sample_text import SAMPLE
from hrm.data.tokenizers import (
    BpeTokenizerSpec,
    BytesTokenizerSpec,
    PretrainedTokenizerSpec,
    WordsTokenizerSpec,
)
from hrm.data.tokenizing import TextTokenizer, byte_alphabet, bytes_of, load_tokenizer
from hrm.errors import SpecError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
AWKWARD = [
    "Héllo, wörld! 🎉🎉 \u200b漢字\r\n\r\n  two  spaces\t",
    "<pad> <end> </s> <|endoftext|>",
    "e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\x00\x7f\ufeff",
]
OWN = {"bytes": BytesTokenizerSpec(), "bpe": BpeTokenizerSpec(vocab_size=400)}


def gpt2_folder(folder: Path, vocabulary: str) -> Path:
    """The files of a shared vocabulary under their usual names."""
    if not SHARED.is_dir():
        pytest.skip(f"there are no tokenizer files at {SHARED}")
    folder.mkdir()
    (folder / "vocab.json").symlink_to(SHARED / vocabulary)
    (folder / "merges.txt").symlink_to(SHARED / "gpt2/vocab.bpe")
    return folder


@pytest.mark.parametrize("kind", OWN)
def test_every_text_comes_back_and_its_bytes_are_counted(kind: str) -> None:
    tokenizer = OWN[kind].build(SAMPLE)
    for text, (tokens, sizes) in zip(AWKWARD, tokenizer.encode(AWKWARD), strict=True):
        assert tokenizer.decode(tokens.tolist()) == text
        assert bytes_of("".join(tokenizer.vocabulary[token] for token in tokens)) == text.encode()
        assert sizes.sum() == len(text.encode())
        assert sizes.min() > 0
        assert not set(tokens.tolist()) & {tokenizer.pad, tokenizer.end}


def test_a_byte_is_a_token() -> None:
    tokenizer = BytesTokenizerSpec().build([])
    assert len(tokenizer.vocabulary) == 258
    for text, (tokens, sizes) in zip(AWKWARD, tokenizer.encode(AWKWARD), strict=True):
        np.testing.assert_array_equal(tokens, np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 2)
        assert (sizes == 1).all()


def test_the_bytes_of_a_character_split_over_tokens_are_counted_by_token() -> None:
    tokenizer = BpeTokenizerSpec(vocab_size=300).build(SAMPLE)
    [(tokens, sizes)] = tokenizer.encode(["a🎉"])
    assert sizes.tolist() == [1, 1, 1, 1, 1]
    assert len(tokens) == 5


def test_a_bpe_is_learnt_from_its_texts_and_is_the_same_each_time() -> None:
    texts = ["low lower lowest newest widest"] * 5
    one, two = (BpeTokenizerSpec(vocab_size=270).build(texts) for _ in range(2))
    assert one.vocabulary == two.vocabulary
    assert one.files() == two.files()
    assert len(one.vocabulary) == 270
    assert one.vocabulary[:2] == ["<pad>", "<end>"]
    assert set(one.vocabulary[2:258]) == set(byte_alphabet())
    assert "low" in "".join(one.vocabulary[258:])
    assert len(one.encode(["lowest"])[0][0]) < 6


def test_words_are_those_met_often_enough_and_others_are_unknown() -> None:
    tokenizer = WordsTokenizerSpec(min_count=2).build(["the cat, the dog,", "the end"])
    assert tokenizer.vocabulary == ["<pad>", "<end>", "<unk>", ",", "the"]
    [(tokens, sizes)] = tokenizer.encode(["the  café, <end> "])
    assert [tokenizer.vocabulary[token] for token in tokens] == ["the", "<unk>", ",", "<unk>", "<unk>", "<unk>"]
    assert tokenizer.decode(tokens[:3].tolist()) == "the <unk> ,"
    assert sizes.tolist() == [3, 7, 1, 2, 3, 2]  # each with the white space before it, the last with what follows


def test_a_long_text_is_tokenised_in_blocks_as_if_it_were_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(0)
    lines = [" ".join(random.choice(SAMPLE).split()[: random.randrange(1, 9)]) for _ in range(2000)]
    text = "\n".join(lines).replace("the", "\n\nthé")
    for spec in (*OWN.values(), WordsTokenizerSpec()):
        tokenizer = spec.build(SAMPLE)
        whole = tokenizer.encode([text])
        monkeypatch.setattr(tokenizing, "BLOCK", 1000)
        parts = tokenizer.encode([text])
        monkeypatch.undo()
        np.testing.assert_array_equal(parts[0][0], whole[0][0])
        assert parts[0][1].sum() == whole[0][1].sum() == len(text.encode())


def test_gpt2_and_roberta_give_their_published_tokens(tmp_path: Path) -> None:
    gpt2 = PretrainedTokenizerSpec(path=str(gpt2_folder(tmp_path / "gpt2", "gpt2/encoder.json"))).build([])
    assert [tokens.tolist() for tokens, _ in gpt2.encode(["Hello world"])] == [[15496, 995]]
    assert (gpt2.begin, gpt2.end, len(gpt2.vocabulary)) == (50256, 50256, 50257)
    roberta = PretrainedTokenizerSpec(path=str(gpt2_folder(tmp_path / "roberta", "roberta/vocab.json"))).build([])
    [(tokens, sizes)] = roberta.encode(["Hello, my dog is cute"])
    assert [roberta.begin, *tokens.tolist(), roberta.end] == [0, 31414, 6, 127, 2335, 16, 11962, 2]
    assert (roberta.pad, roberta.unknown, len(roberta.vocabulary)) == (1, 3, 50265)
    assert sizes.sum() == len("Hello, my dog is cute")
    direct = PretrainedTokenizerSpec(path=str(SHARED / "gpt2"))  # under OpenAI's names
    assert direct.build([]).vocabulary == gpt2.vocabulary


@pytest.mark.parametrize("kind", [*OWN, "words"])
def test_what_is_stored_is_the_same_tokenizer(kind: str, tmp_path: Path) -> None:
    tokenizer = (OWN | {"words": WordsTokenizerSpec()})[kind].build(SAMPLE)
    again = stored(tokenizer, tmp_path)
    assert again.vocabulary == tokenizer.vocabulary
    for one, two in zip(again.encode(AWKWARD), tokenizer.encode(AWKWARD), strict=True):
        np.testing.assert_array_equal(one, two)
    names = ("begin", "end", "pad", "unknown")
    assert [getattr(again, name) for name in names] == [getattr(tokenizer, name) for name in names]


def stored(tokenizer: TextTokenizer, folder: Path) -> TextTokenizer:
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return load_tokenizer(folder)


def test_stock_transformers_reads_what_is_stored(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = OWN["bpe"].build(SAMPLE)
    stored(tokenizer, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = AWKWARD[0]
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode([text])[0][0].tolist()
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 1)


def test_a_tokenizer_that_changes_the_text_counts_the_bytes_of_the_text() -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[SEP]": 1, "[UNK]": 2, "hello": 3, "e": 4}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(["[PAD]", "[SEP]"])
    tokenizer = TextTokenizer(backend, begin=1, end=1, pad=0, unknown=2)
    text = " HELLO É  漢字! [SEP]"
    [(tokens, sizes)] = tokenizer.encode([text])
    assert tokens.tolist()[:2] == [3, 4]
    assert 1 not in tokens
    assert sizes.sum() == len(text.encode())


def test_a_tokenizer_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OWN["bpe"].build(SAMPLE)
    extra = {"model.safetensors": b"large", "README.md": b""}
    with running_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        hub.add("owner/model", own.files() | extra, kind="model")
        fetched = PretrainedTokenizerSpec(hub="owner/model").build([])
        asked = [request for request in hub.requests if "model.safetensors" in request]
    assert fetched.vocabulary == own.vocabulary
    assert (fetched.begin, fetched.end, fetched.pad) == (1, 1, 0)
    assert not asked


def test_the_cuts_and_the_padding_of_a_fine_tuning_are_none_of_a_texts(tmp_path: Path) -> None:
    own = BytesTokenizerSpec().build([])
    stored(own, tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    text = "In winter the days are short."
    [(tokens, sizes)] = PretrainedTokenizerSpec(path=str(tmp_path)).build([]).encode([text])
    np.testing.assert_array_equal(tokens, own.encode([text])[0][0])
    assert sizes.sum() == len(text)


def test_special_tokens_are_those_named_by_the_recipe_its_config_or_custom(tmp_path: Path) -> None:
    own = WordsTokenizerSpec().build(["a b c"])
    (tmp_path / "tokenizer.json").write_bytes(own.files()["tokenizer.json"])
    with pytest.raises(SpecError, match=r"it has no token that ends a document. Name one with end_token"):
        PretrainedTokenizerSpec(path=str(tmp_path)).build([])
    named = PretrainedTokenizerSpec(path=str(tmp_path), begin_token="b", end_token="<end>").build([])
    assert [named.vocabulary[token] for token in (named.begin, named.end, named.pad)] == ["b", "<end>", "<pad>"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "c"}, "bos_token": None}))
    configured = PretrainedTokenizerSpec(path=str(tmp_path)).build([])
    assert [configured.vocabulary[token] for token in (configured.begin, configured.end)] == ["c", "c"]
    with pytest.raises(SpecError, match=r"its vocabulary has no token 'x'\. Name one that it has"):
        PretrainedTokenizerSpec(path=str(tmp_path), end_token="x").build([])


def test_what_is_no_tokenizer_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SpecError, match=r"cannot be read as a tokenizer: .* Give a tokenizer\.json, or a folder"):
        PretrainedTokenizerSpec(path=str(tmp_path)).build([])
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(SpecError, match=r"no file is of a known format; there is vocab\.json"):
        PretrainedTokenizerSpec(path=str(tmp_path)).build([])
