"""Built datasets: what is written is read, what is half-made never appears, what is damaged is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pytest

from hrm.data.dataset import SPLITS, Dataset, DatasetWriter, Rows, build_dataset, open_dataset
from hrm.errors import SpecError
from hrm.tasks import IGNORE, TaskShape, TaskSpec

SPAWN = multiprocessing.get_context("spawn")


class CountingSpec(TaskSpec):
    """A recipe that logs each build in `scratch` and waits there, half-built, while a file `hold` exists."""

    kind: Literal["counting"] = "counting"
    scratch: str
    rows: int = 5

    def build(self, writer: DatasetWriter) -> None:
        scratch = Path(self.scratch)
        writer.vocabulary = [str(token) for token in range(100)]
        writer.num_puzzle_identifiers = 3
        writer.write_split("train", columns(self.rows, 0))
        with (scratch / "builds").open("a") as log:
            log.write("built\n")
        while (scratch / "hold").exists():
            time.sleep(0.01)
        writer.write_split("validation", columns(self.rows, 1))
        writer.write_split("test", columns(self.rows, 2))

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        return " ".join(vocabulary[token] for token in tokens)

    @classmethod
    def smoke(cls) -> Self:
        return cls(scratch=".")


def columns(rows: int, identifier: int) -> dict[str, np.ndarray]:
    inputs = np.arange(rows * 7, dtype=np.int64).reshape(rows, 7)
    labels = inputs.copy()
    labels[:, 3:] = IGNORE
    return {
        "inputs": inputs,
        "labels": labels,
        "puzzle_identifiers": np.full(rows, identifier, dtype=np.int32),
    }


def counting_writer(path: Path, **recipe: Any) -> DatasetWriter:
    writer = DatasetWriter(path, {"kind": "counting", **recipe})
    writer.vocabulary, writer.num_puzzle_identifiers = ["x"] * 100, 3
    return writer


@pytest.fixture
def spec(tmp_path: Path) -> CountingSpec:
    return CountingSpec(scratch=str(tmp_path))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def files(dataset: Dataset) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in dataset.directory.iterdir()}


def test_what_is_written_is_read(spec: CountingSpec, root: Path) -> None:
    dataset = build_dataset(spec, root)
    assert dataset.shape == TaskShape(100, 7, 3, False)
    assert dataset.manifest.rows == dict.fromkeys(SPLITS, 5)
    for identifier, split in enumerate(SPLITS):
        rows, written = dataset.split(split), columns(5, identifier)
        assert len(rows) == 5
        read = rows.gather(np.array([3, 0, 3]))
        assert set(read) == set(written)
        for name, values in read.items():
            assert values.dtype == np.int32
            np.testing.assert_array_equal(values, written[name][[3, 0, 3]])


def test_reading_maps_the_file_and_loads_no_row_into_arrow(spec: CountingSpec, root: Path) -> None:
    dataset = build_dataset(spec.model_copy(update={"rows": 14}), root)
    before = pa.total_allocated_bytes()
    rows = dataset.split("train")
    rows.gather(np.array([0]))
    assert pa.total_allocated_bytes() == before
    assert str(dataset.directory / "train.arrow") in Path("/proc/self/maps").read_text()


def test_gathered_rows_are_copies_that_may_be_changed(spec: CountingSpec, root: Path) -> None:
    rows = build_dataset(spec, root).split("train")
    rows.gather(np.array([0]))["inputs"][:] = 99
    np.testing.assert_array_equal(rows.gather(np.array([0]))["inputs"][0], np.arange(7))


def test_a_row_beyond_the_end_is_an_error(spec: CountingSpec, root: Path) -> None:
    rows = build_dataset(spec, root).split("train")
    for beyond in (5, -1):
        with pytest.raises(IndexError, match="rows must be >= 0 and < 5"):
            rows.gather(np.array([0, beyond]))


def test_building_again_builds_nothing(spec: CountingSpec, root: Path, tmp_path: Path) -> None:
    first = build_dataset(spec, root)
    assert build_dataset(spec, root).manifest == first.manifest
    assert (tmp_path / "builds").read_text() == "built\n"


def test_two_builds_in_two_places_are_equal_bytes(spec: CountingSpec, tmp_path: Path) -> None:
    one, two = build_dataset(spec, tmp_path / "one"), build_dataset(spec, tmp_path / "two")
    assert files(one) == files(two)
    assert one.manifest.fingerprint == two.manifest.fingerprint


def test_another_vocabulary_or_other_rows_are_another_fingerprint(spec: CountingSpec, root: Path) -> None:
    five, four = build_dataset(spec, root), build_dataset(spec.model_copy(update={"rows": 4}), root)
    assert five.manifest.fingerprint != four.manifest.fingerprint
    renamed = DatasetWriter(_folder(root / "renamed"), spec.canonical())
    renamed.vocabulary, renamed.num_puzzle_identifiers = [f"word {token}" for token in range(100)], 3
    for identifier, split in enumerate(SPLITS):
        renamed.write_split(split, columns(5, identifier))
    manifest = renamed.finish(next_token=False)
    assert manifest.files == five.manifest.files
    assert manifest.fingerprint != five.manifest.fingerprint


def test_an_unbuilt_dataset_is_refused_with_the_way_out(spec: CountingSpec, root: Path) -> None:
    with pytest.raises(SpecError, match="not built"):
        open_dataset(spec, root)


def test_an_unknown_split_names_the_known(spec: CountingSpec, root: Path) -> None:
    with pytest.raises(SpecError, match=r"no split 'holdout'\. The splits here are train, validation, test"):
        build_dataset(spec, root).split("holdout")


def test_verify_finds_one_changed_byte_that_the_size_hides(spec: CountingSpec, root: Path) -> None:
    dataset = build_dataset(spec, root)
    dataset.verify()
    path = dataset.directory / "test.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    open_dataset(spec, root)
    with pytest.raises(SpecError, match=r"test.arrow: is damaged: sha256.*Delete the folder"):
        dataset.verify()


def test_opening_finds_a_truncated_and_a_missing_file_and_names_both(spec: CountingSpec, root: Path) -> None:
    directory = build_dataset(spec, root).directory
    os.truncate(directory / "train.arrow", 100)
    (directory / "test.arrow").unlink()
    with pytest.raises(SpecError) as caught:
        build_dataset(spec, root)
    assert [Path(problem.place).name for problem in caught.value.problems] == ["train.arrow", "test.arrow"]


def test_a_torn_or_altered_manifest_is_refused(spec: CountingSpec, root: Path) -> None:
    path = build_dataset(spec, root).directory / "manifest.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(SpecError, match="cannot be read as a manifest"):
        open_dataset(spec, root)
    path.write_text(json.dumps({**json.loads(whole), "vocab_size": 7}))
    with pytest.raises(SpecError, match="does not match its own fingerprint"):
        open_dataset(spec, root)
    path.write_text(json.dumps({**json.loads(whole), "schema": 99}))
    with pytest.raises(SpecError, match="must have schema 2, got 99"):
        open_dataset(spec, root)


def test_a_folder_of_another_recipe_is_refused(spec: CountingSpec, root: Path) -> None:
    other = spec.model_copy(update={"rows": 4})
    build_dataset(other, root).directory.rename(root / f"counting-{spec.hash()}")
    with pytest.raises(SpecError, match="must be of the recipe"):
        open_dataset(spec, root)


def test_a_build_that_raises_leaves_nothing_half_made(spec: CountingSpec, root: Path) -> None:
    with pytest.raises(SpecError, match="inputs must be >= 0 and < 100"):
        build_dataset(spec.model_copy(update={"rows": 40}), root)
    assert [path for path in root.iterdir() if path.is_dir()] == []


def _build(spec: CountingSpec, root: Path, answers: Any = None) -> None:
    fingerprint = build_dataset(spec, root).manifest.fingerprint
    if answers is not None:
        answers.put(fingerprint)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_killed_build_leaves_nothing_half_made(spec: CountingSpec, root: Path, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    builder = SPAWN.Process(target=_build, args=(spec, root))
    builder.start()
    assert builder.pid is not None
    _wait_for(tmp_path / "builds")
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    with pytest.raises(SpecError, match="not built"):
        open_dataset(spec, root)
    (tmp_path / "hold").unlink()
    build_dataset(spec, root).verify()
    assert [path.name for path in root.iterdir() if path.is_dir()] == [f"counting-{spec.hash()}"]


def test_of_two_builders_at_once_one_builds_and_both_read(spec: CountingSpec, root: Path, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    answers = SPAWN.Queue()
    builders = [SPAWN.Process(target=_build, args=(spec, root, answers)) for _ in range(2)]
    for builder in builders:
        builder.start()
    _wait_for(tmp_path / "builds")
    builders[1].join(timeout=2)
    assert all(builder.is_alive() for builder in builders), "one holds the lock, half-built, and the other waits"
    (tmp_path / "hold").unlink()
    assert answers.get(timeout=60) == answers.get(timeout=60)
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    assert (tmp_path / "builds").read_text() == "built\n"


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"inputs": np.zeros((0, 7), int), "labels": np.zeros((0, 7), int)}, "at least one row"),
        ({"labels": np.zeros((5, 6), int)}, "of one shape"),
        ({"labels": np.full((5, 7), IGNORE)}, "every row must score a position; 5 do not, the first is 0"),
        ({"inputs": np.full((5, 7), 2**31)}, "must fit 32 bits"),
        ({"inputs": np.zeros((5, 7), float)}, "must hold integers"),
        ({"puzzle_identifiers": np.zeros(4, int)}, r"every column must be \[N\]"),
        ({"puzzle_identifiers": np.zeros((5, 1), int)}, r"`puzzle_identifiers` must be \[N\]"),
        ({"prefix_lengths": np.zeros((5, 1), int)}, r"`prefix_lengths` must be \[N\]"),
        ({"prefix_lengths": np.full(5, 8)}, r"`prefix_lengths` must be \[N\], >= 0 and <= 7"),
        ({"prefix_lengths": np.arange(5)}, "must not be scored: .* 3 rows score one, the first is 2"),
        ({"documents": np.zeros(5, int)}, r"`documents` must be \[N, S\] like `inputs`"),
        ({"documents": np.tile([0, 0, 1, 1, 0, 2, 2], (5, 1))}, "must rise along a row; in 5 rows .* the first is 0"),
        ({"documents": np.zeros((5, 7), int), "prefix_lengths": np.zeros(5, int)}, "have no prompt"),
    ],
)
def test_rows_that_would_train_nonsense_are_refused(tmp_path: Path, change: dict[str, np.ndarray], rule: str) -> None:
    writer = counting_writer(tmp_path)
    with pytest.raises(SpecError, match=rule):
        writer.write_split("train", {**columns(5, 0), **change})


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("inputs", 100, "validation: inputs must be >= 0 and < 100, got 0..100"),
        ("inputs", IGNORE, "validation: inputs must be >= 0 and < 100, got -100..33"),
        ("labels", 100, "validation: labels must be >= 0 and < 100, got 0..100"),
        ("labels", -1, "validation: labels must be >= 0 and < 100, got -1..30"),
        ("puzzle_identifiers", 3, "validation: puzzle_identifiers must be >= 0 and < 3, got 1..3"),
    ],
)
def test_values_out_of_range_are_refused_before_the_manifest(
    tmp_path: Path, column: str, value: int, rule: str
) -> None:
    writer = counting_writer(tmp_path)
    for identifier, split in enumerate(SPLITS):
        rows = columns(5, identifier)
        if split != "validation":
            writer.write_split(split, rows)
            continue
        rows[column].flat[-1 if column != "labels" else 2] = value
        with pytest.raises(SpecError, match=rule):
            writer.write_split(split, rows)
    with pytest.raises(SpecError, match="this one was not written"):
        writer.finish(next_token=False)
    assert not (tmp_path / "manifest.json").exists()


PUZZLES, GROUPS = np.array([0, 2, 3, 5]), np.array([0, 1, 3])


def grouped_folder(path: Path) -> Dataset:
    """Three splits of five rows; only train has boundaries."""
    writer = counting_writer(_folder(path))
    writer.write_split("train", columns(5, 0), PUZZLES, GROUPS)
    writer.write_split("validation", columns(5, 1))
    writer.write_split("test", columns(5, 2))
    return Dataset(path, writer.finish(next_token=False), CountingSpec.smoke())


def test_the_boundaries_of_puzzles_and_groups_are_read_as_written_and_mapped(tmp_path: Path) -> None:
    rows = grouped_folder(tmp_path / "data").split("train")
    np.testing.assert_array_equal(rows.puzzle_indices, PUZZLES)
    np.testing.assert_array_equal(rows.group_indices, GROUPS)
    assert str(tmp_path / "data" / "train.boundaries.arrow") in Path("/proc/self/maps").read_text()
    assert set(rows.gather(np.array([0]))) == set(columns(5, 0))


def test_without_boundaries_each_row_is_a_puzzle_and_a_group_and_no_file_is_written(tmp_path: Path) -> None:
    dataset = grouped_folder(tmp_path / "data")
    rows = dataset.split("test")
    np.testing.assert_array_equal(rows.puzzle_indices, np.arange(6))
    np.testing.assert_array_equal(rows.group_indices, np.arange(6))
    boundaries = [name for name in dataset.manifest.files if "boundaries" in name]
    assert boundaries == ["train.boundaries.arrow"]


def test_boundaries_are_part_of_what_is_verified(tmp_path: Path) -> None:
    dataset = grouped_folder(tmp_path / "data")
    path = tmp_path / "data" / "train.boundaries.arrow"
    content = bytearray(path.read_bytes())
    content[content.index(PUZZLES.astype("<i4").tobytes()) + 4] = 1
    path.write_bytes(content)
    assert dataset.split("train").puzzle_indices.tolist() == [0, 1, 3, 5]
    with pytest.raises(SpecError, match=r"train.boundaries.arrow: is damaged: sha256"):
        dataset.verify()


@pytest.mark.parametrize(
    ("puzzles", "groups", "rule"),
    [
        ([0, 2, 4], GROUPS, r"`puzzle_indices` must rise from 0 to 5, got \[0 2 4\]"),
        ([0, 2, 2, 5], GROUPS, "`puzzle_indices` must rise"),
        ([1, 3, 5], GROUPS, "`puzzle_indices` must rise"),
        (PUZZLES, [0, 2], r"`group_indices` must rise from 0 to 3, got \[0 2\]"),
        (PUZZLES, None, "`group_indices` is missing"),
        (None, GROUPS, "`puzzle_indices` is missing"),
    ],
)
def test_boundaries_that_do_not_part_the_rows_are_refused(tmp_path: Path, puzzles: Any, groups: Any, rule: str) -> None:
    writer = counting_writer(tmp_path)
    given = [None if value is None else np.asarray(value) for value in (puzzles, groups)]
    with pytest.raises(SpecError, match=rule):
        writer.write_split("train", columns(5, 0), *given)


def test_a_row_in_two_splits_is_refused_but_a_repeated_row_in_one_is_not(tmp_path: Path) -> None:
    writer = counting_writer(tmp_path)
    repeated = {name: values[[0, 0, 1]] for name, values in columns(5, 0).items()}
    writer.write_split("train", repeated)
    with pytest.raises(SpecError, match="row 1 is in 'train' too"):
        writer.write_split("test", {name: values[[4, 0]] for name, values in columns(5, 0).items()})


def test_a_split_that_is_missing_or_of_another_length_is_refused(tmp_path: Path) -> None:
    writer = counting_writer(tmp_path)
    writer.write_split("train", columns(5, 0))
    writer.write_split("validation", columns(5, 1))
    with pytest.raises(SpecError, match="test: every dataset has the splits"):
        writer.finish(next_token=False)
    writer.write_split("test", {"inputs": np.ones((1, 3), int), "labels": np.ones((1, 3), int)})
    with pytest.raises(SpecError, match="must have one sequence length"):
        writer.finish(next_token=False)


def test_a_row_in_two_splits_is_counted_where_the_recipe_allows_it(tmp_path: Path) -> None:
    writer = counting_writer(tmp_path, allow_overlap=True)
    for split in SPLITS:
        writer.write_split(split, columns(5, 0))
    assert writer.finish(next_token=False).facts == {"rows_in_an_earlier_split": {"validation": 5, "test": 5}}


@pytest.mark.parametrize(("batch_bytes", "batches"), [(1, 3), (50, 2), (2**25, 1)])
def test_rows_that_come_in_chunks_are_one_split_of_few_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int, batches: int
) -> None:
    monkeypatch.setattr("hrm.data.writer.BATCH_BYTES", batch_bytes)
    writer, whole = counting_writer(tmp_path), columns(7, 0)
    cuts = [slice(0, 3), slice(3, 4), slice(4, 7)]
    writer.write_split("train", ({name: values[cut] for name, values in whole.items()} for cut in cuts))
    writer.write_split("validation", columns(5, 1))
    writer.write_split("test", columns(5, 2))
    rows = Dataset(tmp_path, writer.finish(next_token=False), CountingSpec.smoke()).split("train")
    assert pa.ipc.open_file(tmp_path / "train.arrow").num_record_batches == batches
    assert len(rows) == 7
    order = np.array([6, 0, 3, 3, 2, 5])
    for name, values in rows.gather(order).items():
        np.testing.assert_array_equal(values, whole[name][order], name)
    with pytest.raises(IndexError):
        rows.gather(np.array([2, 7]))


def test_what_is_wrong_with_a_later_chunk_is_said_with_the_rows_number_in_the_split(tmp_path: Path) -> None:
    good, bad = columns(5, 0), columns(5, 0)
    bad["labels"][2] = IGNORE
    with pytest.raises(SpecError, match="1 do not, the first is 7"):
        counting_writer(tmp_path).write_split("train", iter([good, bad]))
    shorter = {name: values[:, :5] if values.ndim == 2 else values for name, values in good.items()}
    with pytest.raises(SpecError, match="one sequence length, got 7 and then 5"):
        counting_writer(tmp_path).write_split("train", iter([good, shorter]))


@pytest.mark.parametrize(("words", "size"), [(128, 1), (129, 2), (2**15, 2), (2**15 + 1, 4)])
def test_tokens_take_as_few_bytes_as_the_vocabulary_allows(tmp_path: Path, words: int, size: int) -> None:
    writer = DatasetWriter(tmp_path, {"kind": "counting"})
    writer.vocabulary = ["x"] * words
    inputs = np.array([[words - 1, 0, 1]])
    writer.write_split("train", {"inputs": inputs, "labels": np.array([[IGNORE, words - 1, 0]])})
    stored = pa.ipc.open_file(tmp_path / "train.arrow").schema
    assert [stored.field(name).type.value_type.bit_width for name in ("inputs", "labels")] == [8 * size] * 2
    read = Rows(tmp_path / "train.arrow").gather(np.array([0]))
    np.testing.assert_array_equal(read["labels"], [[IGNORE, words - 1, 0]])
    np.testing.assert_array_equal(read["inputs"], inputs)


def test_a_file_of_the_tasks_own_is_part_of_what_is_verified(tmp_path: Path) -> None:
    writer = counting_writer(tmp_path)
    writer.write_file("tokenizer.json", b"{}")
    for identifier, split in enumerate(SPLITS):
        writer.write_split(split, columns(5, identifier))
    dataset = Dataset(tmp_path, writer.finish(next_token=False), CountingSpec.smoke())
    dataset.verify()
    (tmp_path / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(SpecError, match=r"tokenizer.json: is damaged"):
        dataset.verify()


def test_a_recipe_that_names_its_rows_accepts_no_others(spec: CountingSpec, root: Path) -> None:
    built = build_dataset(spec, root)
    named = spec.model_copy(update={"fingerprint": built.manifest.fingerprint})
    assert built.task == named
    assert open_dataset(named, root).directory == built.directory
    assert named.hash() != spec.hash()
    with pytest.raises(SpecError, match="must have the fingerprint abc, as the recipe says, got"):
        open_dataset(spec.model_copy(update={"fingerprint": "abc"}), root)


def shifted(rows: dict[str, np.ndarray], forms: np.ndarray) -> dict[str, np.ndarray]:
    return {**rows, "inputs": rows["inputs"] + 100 * forms[:, None]}


def test_each_stored_puzzle_stands_for_its_forms_one_after_another(tmp_path: Path) -> None:
    dataset = grouped_folder(tmp_path / "data")
    stored = dataset.split("train").gather(np.arange(5))["inputs"][:, 0]
    rows = Rows(tmp_path / "data" / "train.arrow", tmp_path / "data" / "train.boundaries.arrow", 3, shifted)
    read = rows.gather(np.arange(len(rows)))["inputs"][:, 0]
    by_puzzle = [[stored[list(puzzle)] + 100 * form for form in range(3)] for puzzle in ([0, 1], [2], [3, 4])]
    np.testing.assert_array_equal(read, np.concatenate([rows for puzzle in by_puzzle for rows in puzzle]))
    np.testing.assert_array_equal(rows.puzzle_indices, [0, 2, 4, 6, 7, 8, 9, 11, 13, 15])
    np.testing.assert_array_equal(rows.group_indices, [0, 3, 9])


def test_without_boundaries_the_forms_of_a_row_are_a_group(tmp_path: Path) -> None:
    grouped_folder(tmp_path / "data")
    rows = Rows(tmp_path / "data" / "test.arrow", None, 4, shifted)
    assert len(rows) == 20
    np.testing.assert_array_equal(rows.group_indices, np.arange(0, 21, 4))
    np.testing.assert_array_equal(rows.puzzle_indices, np.arange(21))
    np.testing.assert_array_equal(rows.gather(np.array([6]))["inputs"][0], np.arange(7, 14) + 200)
