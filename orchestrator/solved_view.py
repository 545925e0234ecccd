"""What `solve` shows: a puzzle and its answer beside each other, with colours where there is a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from hrm.adaptive import Adapted, Retry
from hrm.halting_scores import Halt
from hrm.puzzles import Cell, Puzzle, PuzzleKind

GAP = "     "
STYLES = {"given": "bold", "filled": "cyan", "wrong": "bold red", "wall": "dim", "end": "bold yellow", "path": "green"}
ARC_COLOURS = (
    "#000000",
    "#0074d9",
    "#ff4136",
    "#2ecc40",
    "#ffdc00",
    "#aaaaaa",
    "#f012be",
    "#ff851b",
    "#7fdbff",
    "#870c25",
)
SURE = {
    "q": "the Q's probability that it is right",
    "least": "the least probability of a cell",
    "mean": "the mean probability of a cell",
}


def show(
    kind: PuzzleKind,
    puzzles: Sequence[Puzzle],
    found: Adapted,
    solved: Sequence[dict[str, Any]],
    halt: Halt,
    retry: Retry | None,
) -> None:
    """All of them, one below the other."""
    console = Console(highlight=False)
    for number, (puzzle, facts) in enumerate(zip(puzzles, solved, strict=True)):
        for line in side_by_side(kind.question(puzzle), kind.drawn(puzzle, found.tokens[number])):
            console.print(line, soft_wrap=True)
        console.print()
        style = {True: "green", False: "red", None: ""}[facts["valid"]]
        console.print(Text(f"{puzzle.place}: {facts['verdict']}", style), soft_wrap=True)
        console.print(_course(facts, halt, retry), markup=False, soft_wrap=True)
        for note in puzzle.notes:
            console.print(note, markup=False, soft_wrap=True)
        console.print()


def side_by_side(question: Sequence[Sequence[Cell]], answer: Sequence[Sequence[Cell]]) -> list[Text]:
    """Lines of both, the answer to the right."""
    width = max((sum(len(cell.mark) for cell in line) for line in question), default=0)
    lines = []
    for number in range(max(len(question), len(answer))):
        left = _line(question[number]) if number < len(question) else Text()
        right = _line(answer[number]) if number < len(answer) else Text()
        left.pad_right(width - len(left.plain))
        line = Text.assemble(left, GAP, right)
        line.rstrip()
        lines.append(line)
    return lines


def _line(cells: Sequence[Cell]) -> Text:
    return Text.assemble(*((cell.mark, _style(cell.role)) for cell in cells))


def _style(role: str) -> str:
    if role.startswith("colour "):
        return f"white on {ARC_COLOURS[int(role[7:])]}"
    return STYLES.get(role, "")


def _course(facts: dict[str, Any], halt: Halt, retry: Retry | None) -> str:
    more = facts["segments_computed"] - facts["segments"]
    extra = f", {facts['segments_computed']} computed" if more else ""
    starts = f", {facts['restarts']} further starts" if facts["restarts"] else ""
    sure = f"confidence {facts['confidence']:.3f} ({SURE[facts['confidence_is']]})"
    most = f"{halt.segments} + {retry.segments}" if retry is not None else str(halt.segments)
    return f"{facts['segments']} of at most {most} segments (halting by {halt}{extra}{starts}); {sure}"
