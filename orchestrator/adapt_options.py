"""The options of `checkpoint adapt` and of `solve`, which are imported when one runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.commands import CHECKPOINT


def adapt_options(adapt: argparse.ArgumentParser) -> None:
    """Add those of `checkpoint adapt`."""
    adapt.add_argument("path", help=CHECKPOINT)
    adapt.add_argument("--task", help="a recipe in datasets/, or the path of one (default: what it was trained on)")
    adapt.add_argument("--rows", type=int, default=1000, metavar="N",
                       help="so many rows of validation and of test, drawn once (default: 1000)")  # fmt: skip
    adapt.add_argument("--rules", nargs="+", choices=("fixed", "q", "margin", "residual"),
                       help="which rules (default: all that mean something for the model)")  # fmt: skip
    adapt.add_argument("--segments", type=int, metavar="N", help="full depth (default: as it was trained)")
    adapt.add_argument("--metric", default="exact_accuracy",
                       help="what counts as right: exact_accuracy, or a yes or no by row of the task, such as "
                       "valid_shortest_path (default: exact_accuracy; of text, the next token)")  # fmt: skip
    adapt.add_argument("--margin", type=float, metavar="M",
                       help="choose thresholds that cannot lose more than this, by the interval of the difference "
                       "(default: those that lose nothing on the validation rows, whatever the interval)")  # fmt: skip
    adapt.add_argument("--retry-below", type=float, default=0.5, metavar="P",
                       help="retry rows whose confidence is below this (default: 0.5; 0 for none)")  # fmt: skip
    adapt.add_argument("--retry-segments", type=int, metavar="N",
                       help="further segments of such a row, at most (default: as many as full depth)")  # fmt: skip
    adapt.add_argument("--retry-restarts", type=int, metavar="N",
                       help="then further random starts (default: 2 for a model that has them)")  # fmt: skip
    adapt.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="run each so often for its time (default: 3)"
    )
    adapt.add_argument("--output", type=Path,
                       help="the folder to write to (default: reports/NAME-adaptive in the storage)")  # fmt: skip


def solve_options(solve: argparse.ArgumentParser) -> None:
    """Add those of `solve`."""
    solve.add_argument("path", help=CHECKPOINT)
    solve.add_argument("grid", nargs="?", help="a Sudoku as 16, 36 or 81 characters, or a maze as lines; `-` reads the "
                       "standard input")  # fmt: skip
    solve.add_argument("--file", type=Path,
                       help="a file instead: a grid, a list of one puzzle a line, a CSV with a header "
                       "(source,question,answer,rating), ARC's JSON")  # fmt: skip
    solve.add_argument("--task", help="a recipe in datasets/, or the path of one (default: what it was trained on)")
    solve.add_argument(
        "--limit", type=int, default=10, metavar="N", help="so many puzzles, the first ones (default: 10)"
    )
    solve.add_argument("--halt", choices=("q", "margin", "residual", "fixed"),
                       help="what ends a puzzle (default: q for a model that has one, else fixed)")  # fmt: skip
    solve.add_argument("--threshold", type=float, metavar="X",
                       help="of its score, 0 to 1 for q and margin (default: 0.5), > 0 for residual (default: "
                       "0.01)")  # fmt: skip
    solve.add_argument("--segments", type=int, metavar="N", help="at most (default: as it was trained)")
    solve.add_argument("--retry-below", type=float, metavar="P",
                       help="give a puzzle whose confidence is below this as many segments again, and four further "
                       "starts where the model has random ones")  # fmt: skip
