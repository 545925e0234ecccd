"""The data engine against its limits: augmentation, the loader, memory.

    python -m benchmarks.data [--puzzles 1000] [--augmentations 1000]

(a) The augmentations of Sudoku puzzles in a built dataset: at least 20 times as fast as a plain loop that makes one row
after the other. (b) The loader (order of rows, gather, tensors) gives at least 10 times the rows that the fastest model
takes, on stored rows and on rows augmented as they are read; a step is timed without its loader, not compiled. (c) A
dataset four times as large as the memory that a process may have is built and read at random: RLIMIT_DATA, which counts
what a process allocates and not the pages of files that the kernel can drop. Each beside what it is compared with, in
one run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from hrm.data.dataset import DatasetWriter, Rows, build_dataset, open_dataset
from hrm.tasks import TaskSpec
from hrm.tasks.sudoku import SudokuSpec

TIMES_THE_LOOP, TIMES_THE_MODEL, TIMES_THE_MEMORY = 20.0, 10.0, 4.0
LOOP_ROWS = 20_000
"""The loop is timed on so many rows and scaled."""
MEMORY_LIMIT = 320 << 20
FORMS_PER_CHUNK = 1024
CHUNK_ROWS, ROW_TOKENS = 1024, 1024
MODELS = ("transformer", "trm")
"""The fastest two of the small size of `benchmarks.arms`."""


def main() -> None:
    """Measure and print ratios against limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puzzles", type=int, default=1000)
    parser.add_argument("--augmentations", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_in:
        print(json.dumps(memory_of_this_process(options.memory_in)))
        return
    print("what                                              measured      beside        ratio   limit")
    with tempfile.TemporaryDirectory() as folder:
        puzzles = SudokuSpec(
            num_train=options.puzzles, num_test=8, num_validation=8, augmentations=options.augmentations
        )
        stored = augmentation(puzzles, Path(folder))
        loader(stored, Path(folder), options.threads)
        loader(puzzles, Path(folder), options.threads)
        memory(Path(folder))


def line(what: str, measured: str, beside: str, ratio: float, limit: float) -> None:
    """One line of the table."""
    verdict = "" if ratio >= limit else "  MISSED"
    print(f"{what:46}{measured:>14}{beside:>14}{ratio:>9.1f}{limit:>8.0f}{verdict}", flush=True)


# --- (a) augmentation -------------------------------------------------------------------------------------------------


class StoredFormsSpec(TaskSpec):
    """The puzzles of a built dataset with all their forms as stored rows."""

    kind: Literal["stored_forms"] = "stored_forms"
    puzzles: SudokuSpec
    data_root: str

    def build(self, writer: DatasetWriter) -> None:
        dataset = open_dataset(self.puzzles, Path(self.data_root))
        writer.vocabulary, writer.num_puzzle_identifiers = dataset.manifest.vocabulary, 1
        for split in dataset.manifest.rows:
            rows = dataset.split(split)
            places = (np.arange(n, min(n + FORMS_PER_CHUNK, len(rows))) for n in range(0, len(rows), FORMS_PER_CHUNK))
            writer.write_split(split, map(rows.gather, places), rows.puzzle_indices, rows.group_indices)

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        return self.puzzles.render(tokens, vocabulary)

    @classmethod
    def smoke(cls) -> Self:
        return cls(puzzles=SudokuSpec.smoke(), data_root=".")


def augmentation(puzzles: SudokuSpec, folder: Path) -> StoredFormsSpec:
    """Rows made, checked, written and digested, against the loop that makes and saves them."""
    rows = build_dataset(puzzles, folder).split("train")
    stored = StoredFormsSpec(puzzles=puzzles, data_root=str(folder))
    began = time.perf_counter()
    build_dataset(stored, folder)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    pairs = list(loop(rows, puzzles.augmentations, min(LOOP_ROWS, len(rows))))
    for name, column in zip(("inputs", "labels"), zip(*pairs, strict=True), strict=True):
        np.save(folder / f"{name}.npy", np.array(column))
    theirs = (time.perf_counter() - began) / len(pairs) * len(rows)
    what = f"(a) s for {len(rows):,} Sudoku rows; the loop"
    line(what, f"{ours:.2f}", f"{theirs:.1f}", theirs / ours, TIMES_THE_LOOP)
    return stored


def loop(rows: Rows, augmentations: int, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows, one after the other: random digits, bands, stacks, rows, columns and transposition of each."""
    rng, made = np.random.RandomState(0), 0
    columns = rows.gather(np.arange(0, len(rows), augmentations + 1))
    for puzzle, answer in zip(columns["inputs"], columns["labels"], strict=True):
        for form in range(augmentations + 1):
            if made == limit:
                return
            yield one_form(puzzle, answer, rng) if form else (puzzle, answer)
            made += 1


def one_form(puzzle: np.ndarray, answer: np.ndarray, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """A random form of a puzzle [81] in tokens: 1 blank, 2 to 10 the digits."""
    names = np.concatenate(([0, 1], rng.permutation(9) + 2))
    rows, columns = ([band * 3 + line for band in rng.permutation(3) for line in rng.permutation(3)] for _ in range(2))
    places = [row * 9 + column for row in rows for column in columns]
    if rng.random_sample() < 0.5:
        puzzle, answer = (grid.reshape(9, 9).T.ravel() for grid in (puzzle, answer))
    return names[puzzle[places]], names[answer[places]]


# --- (b) the loader ---------------------------------------------------------------------------------------------------


def loader(task: TaskSpec, folder: Path, threads: int) -> None:
    """Rows per second of the loader over those of the model that takes most."""
    import torch

    from benchmarks.arms import SIZES, specs

    torch.set_num_threads(threads)
    build_dataset(task, folder)
    models = specs(SIZES["small"])
    rates = {kind: rates_of(models[kind], task, folder, threads) for kind in MODELS}
    kind = max(rates, key=lambda kind: rates[kind][1])
    way = "stored" if isinstance(task, StoredFormsSpec) else "augmented as read"
    ours, theirs = rates[kind]
    line(f"(b) rows/s, {way}; {kind}", f"{ours:,.0f}", f"{theirs:,.0f}", ours / theirs, TIMES_THE_MODEL)


def rates_of(model: Any, task: TaskSpec, folder: Path, threads: int) -> tuple[float, float]:
    """Rows per second: the loader's, and what is left for a model's step without it."""
    import torch

    from benchmarks.arms import SIZES
    from hrm.context import LocalContext
    from hrm.evaluate import to_device
    from hrm.optim.adam_atan2 import AdamATan2Spec
    from hrm.train import Training
    from hrm.trial import BudgetSpec, TrialSpec

    size, device = SIZES["small"].batch_size, torch.device("cpu")
    # model_construct: the stored rows' spec is of no kind that YAML knows, and a trial that is validated refuses it.
    trial = TrialSpec.model_construct(
        task=task, model=model, optimizer=AdamATan2Spec(), budget=BudgetSpec(amount=1e12), batch_size=size
    )
    directory = folder / f"trial-{model.kind}-{task.hash()}"
    training = Training(trial, LocalContext(directory, folder, device, threads, "never"))
    slots, step = np.arange(size), 0

    def load() -> None:
        nonlocal step
        step += 1
        to_device(training.rows.gather(training.order.rows(step, np.full(size, step), slots)), device)

    for call in (load, training.step):
        call()  # the first shuffle, the first allocations
    rounds = [(seconds_of(load, 0.3), seconds_of(training.step, 0.7)) for _ in range(3)]
    loading, stepping = (statistics.median(times) for times in zip(*rounds, strict=True))
    return size / loading, size / (stepping - loading)


def seconds_of(call: Any, at_least: float) -> float:
    """The mean over as many calls as take `at_least` seconds."""
    began, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < at_least:
        call()
        calls += 1
    return spent / calls


# --- (c) memory -------------------------------------------------------------------------------------------------------


class NumberedRowsSpec(TaskSpec):
    """Rows that say their own number, in chunks, so many that they do not fit into memory."""

    kind: Literal["numbered_rows"] = "numbered_rows"
    num_rows: int

    def build(self, writer: DatasetWriter) -> None:
        writer.vocabulary = [str(token) for token in range(100)]
        writer.write_split(
            "train", (numbered(np.arange(n, n + CHUNK_ROWS)) for n in range(0, self.num_rows, CHUNK_ROWS))
        )
        for number, split in enumerate(("validation", "test")):
            writer.write_split(split, numbered(np.arange(8) + self.num_rows + 8 * number))

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        return " ".join(vocabulary[token] for token in tokens)

    @classmethod
    def smoke(cls) -> Self:
        return cls(num_rows=CHUNK_ROWS)


def numbered(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Row n: the four last pairs of n's decimal digits, again and again."""
    pairs = rows[:, None] // 100 ** np.arange(4) % 100
    tokens = np.tile(pairs, (1, ROW_TOKENS // 4)).astype(np.int32)
    return {"inputs": tokens, "labels": 99 - tokens}


def memory(folder: Path) -> None:
    """A process of its own, since its limit cannot be lifted again."""
    command = [sys.executable, "-m", "benchmarks.data", "--memory-in", str(folder)]
    measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    size, limit = (f"{value / 1e6:,.0f}" for value in (measured["bytes"], MEMORY_LIMIT))
    line("(c) MB built and read; RLIMIT_DATA, MB", size, limit, measured["bytes"] / MEMORY_LIMIT, TIMES_THE_MEMORY)
    print(f"    own memory, MB: {measured['early']:.0f} after a tenth, {measured['late']:.0f} at most after it; "
          f"{measured['rows_per_second']:,.0f} rows/s read at random")  # fmt: skip


def memory_of_this_process(folder: Path) -> dict[str, float]:
    """Build and read under the limit."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    chunks = -(-int(MEMORY_LIMIT * (TIMES_THE_MEMORY + 0.1)) // (2 * ROW_TOKENS * CHUNK_ROWS))
    size, seen = chunks * CHUNK_ROWS, [own_memory()]
    try:
        np.ones(2 * size * ROW_TOKENS, dtype=np.int8)
    except MemoryError:
        pass
    else:
        raise SystemExit("RLIMIT_DATA does not limit this process: nothing is shown")
    dataset = build_dataset(NumberedRowsSpec(num_rows=size), folder, lambda *_: seen.append(own_memory()))
    rate = read_at_random(dataset.split("train"), seen)
    tenth = len(seen) // 10
    data = sum(file["bytes"] for file in dataset.manifest.files.values())
    return {"bytes": data, "early": max(seen[:tenth]), "late": max(seen[tenth:]), "rows_per_second": rate}


def read_at_random(rows: Rows, seen: list[float]) -> float:
    """Rows per second; every row must be the one that was asked for."""
    rng = np.random.default_rng(0)
    began, count = time.perf_counter(), 0
    for _ in range(1000):
        numbers = rng.integers(0, len(rows), 32)
        read, expected = rows.gather(numbers), numbered(numbers)
        if any((read[name] != expected[name]).any() for name in expected):
            raise SystemExit("a row is not the one that was asked for")
        count += len(numbers)
        seen.append(own_memory())
    return count / (time.perf_counter() - began)


def own_memory() -> float:
    """Megabytes that are this process's own and no file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
