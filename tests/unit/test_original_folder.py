"""Dataset folders of the original code, both ways: what is read is what lies there, what is written is read the same.

`as_the_original_reads` is the reading of the original's loader in a few plain lines.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pytest

import hrm.data.original_folder
from hrm.data.dataset import SPLITS, Dataset, DatasetWriter, build_dataset
from hrm.data.order import OriginalOrder
from hrm.data.original_export import export_original_folder
from hrm.errors import SpecError
from hrm.tasks import IGNORE, TaskSpec
from hrm.tasks.original_folder import FolderSource, OriginalFolderSpec

RECORDING = Path(__file__).parents[3] / "shared" / "parity" / "upstream_checkpoints" / "loader_golden.json"
GROUPS = [[2, 1], [1], [3, 1, 1], [1, 2]]
"""Rows per puzzle of each group."""
Arrays = dict[str, np.ndarray]


def arrays_of(groups: list[list[int]], first: int = 0, dtype: Any = np.uint8) -> Arrays:
    """A set of 4 positions; the rows' inputs count on from `first`, and some labels are 0: not scored."""
    sizes = [size for group in groups for size in group]
    rows = np.arange(first, first + sum(sizes))
    inputs = np.stack([rows % 9 + 1, rows // 9 + 1, np.ones_like(rows), np.zeros_like(rows)], axis=1)
    labels = np.stack([rows % 9 + 1, (rows * 3) % 10, np.zeros_like(rows), np.zeros_like(rows)], axis=1)
    return {
        "inputs": inputs.astype(dtype),
        "labels": labels.astype(dtype),
        "puzzle_identifiers": np.arange(1, len(sizes) + 1, dtype=np.int32),
        "puzzle_indices": np.cumsum([0, *sizes]).astype(np.int32),
        "group_indices": np.cumsum([0, *map(len, groups)]).astype(np.int32),
    }


def write_split(directory: Path, sets: dict[str, Arrays], **metadata: Any) -> None:
    directory.mkdir(parents=True)
    for name, arrays in sets.items():
        for column, values in arrays.items():
            np.save(directory / f"{name}__{column}.npy", values)
    known: dict[str, Any] = {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": 20,
        "seq_len": 4,
    }
    known |= {"num_puzzle_identifiers": 10, "mean_puzzle_examples": 1.5, "sets": list(sets)}
    known["total_groups"] = sum(len(arrays["group_indices"]) - 1 for arrays in sets.values())
    (directory / "dataset.json").write_text(json.dumps(known | metadata))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four groups to train on, three to test."""
    root = tmp_path / "original"
    write_split(root / "train", {"all": arrays_of(GROUPS)})
    write_split(root / "test", {"all": arrays_of(GROUPS[:3], first=40)})
    (root / "identifiers.json").write_text(json.dumps(["<blank>", *(f"task {n}" for n in range(1, 10))]))
    return root


def recipe(root: Path, **fields: Any) -> OriginalFolderSpec:
    return OriginalFolderSpec(source=FolderSource(path=str(root)), **({"validation_groups": 1} | fields))


def columns(dataset: Dataset, split: str) -> Arrays:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def as_the_original_reads(root: Path, split: str) -> Arrays:
    """All rows with the identifier of their puzzle, and the boundaries, of the one set `all`."""
    metadata = json.loads((root / split / "dataset.json").read_text())
    assert metadata["sets"] == ["all"]
    names = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
    data = {name: np.load(root / split / f"all__{name}.npy", mmap_mode="r") for name in names}
    rows = {name: data[name].astype(np.int32) for name in ("inputs", "labels")}
    if metadata["ignore_label_id"] is not None:
        rows["labels"][rows["labels"] == metadata["ignore_label_id"]] = -100
    puzzle_of_row = [
        puzzle for puzzle, (a, b) in enumerate(zip(data["puzzle_indices"], data["puzzle_indices"][1:], strict=False))
        for _ in range(a, b)
    ]  # fmt: skip
    rows["puzzle_identifiers"] = data["puzzle_identifiers"][puzzle_of_row]
    return rows | {name: np.asarray(data[name]) for name in ("puzzle_indices", "group_indices")}


def assert_equal(dataset: Dataset, split: str, expected: Arrays) -> None:
    rows = dataset.split(split)
    found = columns(dataset, split) | {"puzzle_indices": rows.puzzle_indices, "group_indices": rows.group_indices}
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=f"{split} {name}")


# --- read -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_rows_boundaries_and_identifiers_are_those_of_the_folder(root: Path, tmp_path: Path, dtype: Any) -> None:
    shutil.rmtree(root / "train")
    write_split(root / "train", {"all": arrays_of(GROUPS, dtype=dtype)})
    dataset = build_dataset(recipe(root, validation_from="test"), tmp_path / "data")
    assert_equal(dataset, "train", as_the_original_reads(root, "train"))
    assert (columns(dataset, "train")["labels"] == IGNORE).any()
    assert dataset.shape.vocab_size == 20
    assert dataset.shape.num_puzzle_identifiers == 10
    assert json.loads((dataset.directory / "identifiers.json").read_text())[3] == "task 3"


def test_several_sets_follow_each_other(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "train")
    first, second = arrays_of(GROUPS[:2]), arrays_of(GROUPS[2:], first=20)
    write_split(root / "train", {"easy": first, "hard": second})
    dataset = build_dataset(recipe(root, validation_from="test"), tmp_path / "data")
    assert_equal(dataset, "train", {name: np.concatenate([first[name], second[name]]) for name in ("inputs",)})
    expected = arrays_of(GROUPS)
    assert_equal(dataset, "train", {name: expected[name] for name in ("puzzle_indices", "group_indices")})
    assert dataset.manifest.facts["rows_by_set"]["train"] == {"easy": 4, "hard": 8}


def test_rows_that_come_in_many_chunks_are_the_same_rows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_dataset(recipe(root, validation_groups=2), tmp_path / "whole")
    monkeypatch.setattr(hrm.data.original_folder, "CHUNK_VALUES", 8)
    parts = build_dataset(recipe(root, validation_groups=2), tmp_path / "parts")
    for split in SPLITS:
        assert_equal(parts, split, columns(whole, split))


def test_where_no_label_is_ignored_zero_is_scored(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "train")
    write_split(root / "train", {"all": arrays_of(GROUPS)}, ignore_label_id=None)
    labels = columns(build_dataset(recipe(root, validation_from="test"), tmp_path / "data"), "train")["labels"]
    assert (labels == arrays_of(GROUPS)["labels"]).all()


def test_whole_groups_are_held_out_of_train_and_only_as_they_were(root: Path, tmp_path: Path) -> None:
    dataset = build_dataset(recipe(root, validation_groups=2), tmp_path / "data")
    everything = as_the_original_reads(root, "train")
    group_of_puzzle = np.repeat(np.arange(4), np.diff(everything["group_indices"]))
    held_out = np.unique(group_of_puzzle[columns(dataset, "validation")["puzzle_identifiers"] - 1])
    kept = np.unique(group_of_puzzle[columns(dataset, "train")["puzzle_identifiers"] - 1])
    assert sorted([*held_out, *kept]) == [0, 1, 2, 3]
    assert len(held_out) == 2
    first_puzzles = everything["group_indices"][held_out] + 1
    assert np.unique(columns(dataset, "validation")["puzzle_identifiers"]).tolist() == first_puzzles.tolist()
    assert len(columns(dataset, "train")["inputs"]) == sum(sum(GROUPS[group]) for group in kept)
    assert np.diff(dataset.split("train").group_indices).tolist() == [len(GROUPS[group]) for group in kept]
    assert_equal(dataset, "test", as_the_original_reads(root, "test"))


def test_held_out_of_test_train_stays_whole_and_no_row_is_lost(root: Path, tmp_path: Path) -> None:
    dataset = build_dataset(recipe(root, validation_from="test"), tmp_path / "data")
    assert_equal(dataset, "train", as_the_original_reads(root, "train"))
    found = np.concatenate([columns(dataset, split)["inputs"] for split in ("validation", "test")])
    expected = as_the_original_reads(root, "test")["inputs"]
    assert sorted(found.tolist()) == sorted(expected.tolist())


def test_the_seed_draws_the_groups_that_are_held_out(root: Path, tmp_path: Path) -> None:
    drawn = {
        tuple(columns(build_dataset(recipe(root, seed=seed), tmp_path / "data"), "validation")["puzzle_identifiers"])
        for seed in range(6)
    }
    assert len(drawn) > 1


def test_a_validation_of_the_folders_own_is_taken_and_nothing_is_held_out(root: Path, tmp_path: Path) -> None:
    write_split(root / "validation", {"all": arrays_of(GROUPS[:1], first=60)})
    dataset = build_dataset(OriginalFolderSpec(source=FolderSource(path=str(root))), tmp_path / "data")
    for split in SPLITS:
        assert_equal(dataset, split, as_the_original_reads(root, split))
    with pytest.raises(SpecError, match="validation_groups: mean nothing where the folder has a validation"):
        build_dataset(recipe(root), tmp_path / "data")


def test_a_changed_folder_is_another_dataset_and_a_moved_one_is_not(root: Path, tmp_path: Path) -> None:
    first = build_dataset(recipe(root), tmp_path / "data")
    moved = root.rename(tmp_path / "elsewhere")
    assert build_dataset(recipe(moved), tmp_path / "data").directory == first.directory
    inputs = np.load(moved / "test" / "all__inputs.npy")
    inputs[0, 0] = 15
    np.save(moved / "test" / "all__inputs.npy", inputs)
    assert build_dataset(recipe(moved), tmp_path / "data").directory != first.directory


@pytest.mark.skipif(not RECORDING.exists(), reason="the recorded traces are not beside this checkout")
def test_the_original_order_of_a_folder_gives_the_recorded_batches(tmp_path: Path) -> None:
    recorded = json.loads(RECORDING.read_text())
    puzzles, groups = np.array(recorded["puzzle_indices"]), np.array(recorded["group_indices"])
    rows = np.arange(puzzles[-1])
    arrays = {"inputs": np.stack([rows + 1] * 4, axis=1), "labels": np.stack([rows + 1] * 4, axis=1)}
    arrays |= {"puzzle_identifiers": np.arange(1, len(puzzles)), "puzzle_indices": puzzles, "group_indices": groups}
    for split in ("train", "test"):
        write_split(tmp_path / "o" / split, {"all": arrays}, num_puzzle_identifiers=11)
    spec = recipe(tmp_path / "o", validation_from="test", allow_overlap=True)
    train = build_dataset(spec, tmp_path / "data").split("train")
    order = RecordedOrder(train.puzzle_indices, train.group_indices, 4, 3, epochs_per_iteration=4)
    for step, expected in enumerate(recorded["train_w1_r0"]):
        batch = train.gather(order.rows(step, np.zeros(4, dtype=np.int64), np.arange(4)))
        pairs = np.stack([batch["puzzle_identifiers"], batch["inputs"][:, 0] - 1], axis=1)
        assert pairs.tolist() == expected[:-1]


class RecordedOrder(OriginalOrder):
    """The order with the generator that the recording had."""

    def _example_generator(self) -> np.random.RandomState:
        return np.random.RandomState(99)


# --- refused ----------------------------------------------------------------------------------------------------------


def overwrite(column: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / "train" / f"all__{column}.npy"
        np.save(path, change(np.load(path)))

    return damage


def metadata(**fields: Any) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / "test" / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


def cut_off(root: Path) -> None:
    path = root / "train" / "all__inputs.npy"
    path.write_bytes(path.read_bytes()[:-3])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no test": (lambda root: shutil.rmtree(root / "test"), "test: is missing"),
    "no train": (lambda root: shutil.rmtree(root / "train"), "must hold one train/dataset.json, got 0"),
    "a column is missing": (lambda root: (root / "train" / "all__labels.npy").unlink(), "all__labels.npy: cannot be"),
    "cut off": (cut_off, "train/all__inputs.npy: cannot be read as an array"),
    "no json": (lambda root: (root / "test" / "dataset.json").write_text("{"), "test/dataset.json: cannot be read"),
    "fractions": (overwrite("inputs", lambda a: a.astype(np.float32)), "inputs.npy: must hold integers, got float32"),
    "one row less": (overwrite("labels", lambda a: a[1:]), r"labels.npy: must have the shape \[12, 4\], got \[11, 4\]"),
    "too short": (overwrite("inputs", lambda a: a[:, :3]), r"inputs.npy: must have the shape \[12, 4\], got \[12, 3\]"),
    "an identifier less": (overwrite("puzzle_identifiers", lambda a: a[1:]), "puzzle_identifiers.npy: must have the"),
    "falling": (overwrite("puzzle_indices", lambda a: a[::-1]), "puzzle_indices.npy: must rise from 0 to 12"),
    "an empty group": (overwrite("group_indices", lambda a: np.sort([*a, 2])), "group_indices.npy: must rise from 0"),
    "other groups": (metadata(total_groups=9), "test/dataset.json: total_groups must be 3, as the group_indices say"),
    "other vocabulary": (metadata(vocab_size=30), "test/dataset.json: vocab_size must be 20 as in train, got 30"),
    "no sets": (metadata(sets=[]), "test/dataset.json: sets: must hold at least 1"),
    "names": (lambda root: (root / "identifiers.json").write_text("[]"), "identifiers.json: must be a list of 10"),
    "a token beyond": (overwrite("inputs", lambda a: a + 19), "train: inputs must be >= 0 and < 20"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_with_the_file_and_the_rule(root: Path, tmp_path: Path, damage: str) -> None:
    change, said = DAMAGES[damage]
    change(root)
    with pytest.raises(SpecError, match=said):
        build_dataset(recipe(root), tmp_path / "data")
    assert not list((tmp_path / "data").glob("[!.]*"))


def test_more_validation_groups_than_there_are_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="validation_groups: must be < 4, the groups of train, got 4"):
        build_dataset(recipe(root, validation_groups=4), tmp_path / "data")


# --- written ----------------------------------------------------------------------------------------------------------


class ShiftedSpec(TaskSpec):
    """Puzzles of one or two rows in groups of two, each in three forms made on the fly: the tokens shifted."""

    kind: Literal["shifted"] = "shifted"
    vocab_size: int = 40
    flaw: str = ""

    def build(self, writer: DatasetWriter) -> None:
        writer.vocabulary = ["<pad>", *(f"word {token}" for token in range(1, self.vocab_size))]
        writer.num_puzzle_identifiers = 13
        puzzles, groups = np.array([0, 1, 3, 4, 6]), np.array([0, 2, 4])
        for number, split in enumerate(SPLITS):
            rows = np.arange(number * 6, number * 6 + 6)
            inputs = np.stack([rows + 1, np.full(6, 5), np.full(6, 30 if number == 0 else 31)], axis=1)
            labels = np.stack([rows + 2, np.full(6, IGNORE), np.full(6, 1)], axis=1)
            identifiers = np.repeat([1, 4, 7, 10], np.diff(puzzles))
            if self.flaw == "scores padding":
                labels[4, 0] = 0
            if self.flaw == "identifiers" and split == "test":
                identifiers[5] = 1
            further = {"prefix_lengths": np.zeros(6, dtype=np.int32)} if self.flaw == "prefixes" else {}
            rows_of_split = {"inputs": inputs, "labels": labels, "puzzle_identifiers": identifiers, "rating": rows}
            writer.write_split(split, {**rows_of_split, **further}, puzzle_indices=puzzles, group_indices=groups)

    def forms(self, split: str) -> int:
        return 3 if split == "train" else 1

    def form(self, rows: Arrays, forms: np.ndarray) -> Arrays:
        shifted = {name: np.where(rows[name] > 0, rows[name] + forms[:, None], rows[name]) for name in ("inputs",)}
        identifiers = rows["puzzle_identifiers"] + forms
        return {**rows, **shifted, "puzzle_identifiers": identifiers.astype(np.int32)}

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        return " ".join(vocabulary[token] for token in tokens)

    @classmethod
    def smoke(cls) -> Self:
        return cls()


class NextTokenSpec(ShiftedSpec):
    next_token = True


def test_the_original_reads_what_is_written_with_every_form_as_rows(tmp_path: Path) -> None:
    dataset = build_dataset(ShiftedSpec(), tmp_path / "data")
    facts = export_original_folder(dataset, tmp_path / "out")
    assert facts == {"rows": {"train": 18, "validation": 6, "test": 6}, "left_out": ["rating"]}
    for split in SPLITS:
        assert_equal(dataset, split, as_the_original_reads(tmp_path / "out", split))
    read = as_the_original_reads(tmp_path / "out", "train")
    assert read["puzzle_identifiers"].tolist() == [1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 10, 11, 11, 12, 12]
    assert read["group_indices"].tolist() == [0, 6, 12]
    assert json.loads((tmp_path / "out" / "train" / "dataset.json").read_text()) == {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": 40,
        "seq_len": 3,
        "num_puzzle_identifiers": 13,
        "total_groups": 2,
        "total_puzzles": 12,
        "mean_puzzle_examples": 1.5,
        "sets": ["all"],
    }
    assert len(json.loads((tmp_path / "out" / "identifiers.json").read_text())) == 13


def test_written_and_read_again_it_is_the_same_dataset(tmp_path: Path) -> None:
    dataset = build_dataset(ShiftedSpec(), tmp_path / "data")
    export_original_folder(dataset, tmp_path / "out")
    again = build_dataset(OriginalFolderSpec(source=FolderSource(path=str(tmp_path / "out"))), tmp_path / "data")
    for split in SPLITS:
        rows = dataset.split(split)
        boundaries = {"puzzle_indices": rows.puzzle_indices, "group_indices": rows.group_indices}
        expected = {name: values for name, values in columns(dataset, split).items() if name != "rating"}
        assert_equal(again, split, expected | boundaries)
    assert again.manifest.vocabulary == dataset.manifest.vocabulary
    assert again.shape == dataset.shape


def test_a_folder_read_and_written_is_the_same_folder(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "test", root / "validation")
    spec = OriginalFolderSpec(source=FolderSource(path=str(root)), allow_overlap=True)
    export_original_folder(build_dataset(spec, tmp_path / "data"), tmp_path / "out")
    for path in root.rglob("*.npy"):
        assert (tmp_path / "out" / path.relative_to(root)).read_bytes() == path.read_bytes(), path.name
    assert json.loads((tmp_path / "out" / "identifiers.json").read_text())[9] == "task 9"


@pytest.mark.parametrize(("vocab_size", "dtype"), [(256, np.uint8), (257, np.uint16), (70_000, np.int32)])
def test_tokens_take_as_few_bytes_as_they_can(tmp_path: Path, vocab_size: int, dtype: Any) -> None:
    dataset = build_dataset(ShiftedSpec(vocab_size=vocab_size), tmp_path / "data")
    export_original_folder(dataset, tmp_path / "out")
    for column in ("inputs", "labels"):
        assert np.load(tmp_path / "out" / "train" / f"all__{column}.npy").dtype == dtype


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (NextTokenSpec(), "its labels are the next tokens"),
        (ShiftedSpec(flaw="prefixes"), "its rows have `prefix_lengths`"),
        (ShiftedSpec(flaw="scores padding"), "train: row 12 scores token 0"),
        (ShiftedSpec(flaw="identifiers"), "test: row 5 has another puzzle identifier"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_layout_cannot_say_is_refused_and_nothing_is_left(tmp_path: Path, spec: TaskSpec, said: str) -> None:
    dataset = build_dataset(spec, tmp_path / "data")
    with pytest.raises(SpecError, match=said):
        export_original_folder(dataset, tmp_path / "out" / "folder")
    assert not list(tmp_path.glob("out/*")) + list(tmp_path.glob("out/.*"))
