"""Examples of reasoning as HTML: a grid being filled or a text being foretold, a picture for each segment.

A slider (which the arrow keys move) and buttons lead through the segments; without a script, and on paper, all are
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from analysis.numbers import percent, plural, significant
from analysis.reasoning import Example, Layout, Step


def drawn(example: Example, layout: Layout) -> str:
    """The question, the answer, when each position was settled, and what was said at each segment."""
    steps = "".join(
        f'<figure class="step"><figcaption>{escape(caption(example, number))}</figcaption>'
        f"{_cells(example, step, layout) if layout.kind == 'grid' else _text(example, step, layout)}</figure>"
        for number, step in enumerate(example.steps, 1)
    )
    controls = (
        '<div class="controls"><button type="button" aria-label="a segment back">&#9664;</button>'
        '<button type="button">play</button><button type="button" aria-label="a segment on">&#9654;</button>'
        f'<input type="range" min="1" max="{len(example.steps)}" value="{len(example.steps)}" '
        f'aria-label="segment of row {example.row}"></div>'
    )
    around = _around(example, layout) if layout.kind == "grid" else ""
    several = len(example.steps) > 1
    return f'<div class="reasoning">{controls if several else ""}<div class="panels">{steps}{around}</div></div>'


def caption(example: Example, number: int) -> str:
    """`segment 3 of 16: 71 of 81 right, 5 changed, Q halt 12 %, loss 0.31`."""
    step = example.steps[number - 1]
    parts = [f"{step.right} of {example.of} right"]
    parts += [f"{len(step.changed)} changed"] if number > 1 else []
    parts += [f"Q halt {percent(step.halt)}"] if step.halt is not None else []
    parts += [f"loss {significant(step.loss, 2)}"]
    parts += ["here it would halt"] if example.halts == number else []
    return f"segment {number} of {len(example.steps)}: {', '.join(parts)}"


def in_words(example: Example) -> str:
    """One line for a title."""
    end = f"solved from segment {example.solved} on" if example.solved is not None else _errors(example)
    halts = "" if example.halts is None else f", would halt at {example.halts}"
    return f"Row {example.row}: {end}{halts}"


def as_text(example: Example, layout: Layout) -> str:
    """What stands for the drawing where there is no HTML."""
    lines = [caption(example, number) for number in range(1, len(example.steps) + 1)]
    marks = example.steps[-1].marks
    if layout.kind == "grid":
        n = layout.columns
        lines += [" ".join(mark or "." for mark in marks[at : at + n]) for at in range(0, len(marks), n)]
    return "\n".join(lines)


def _errors(example: Example) -> str:
    wrong = plural(example.of - example.steps[-1].right, "error")
    return f"{wrong} at the last of {len(example.steps)} segments" if len(example.steps) > 1 else wrong


def _around(example: Example, layout: Layout) -> str:
    """What does not change with the segments."""
    blank = [""] * len(example.question)
    question = _grid(example.question, ["g" if given else "" for given in example.given], layout)
    answer = _grid(example.answer, blank, layout)
    last = len(example.steps)
    shades = ["" if given else f"s{min(9, 9 * (at - 1) // max(last - 1, 1))}" for at, given in _open(example)]
    numbers = ["" if given else str(at) for at, given in _open(example)]
    settled = _grid(numbers, shades, Layout("grid", layout.columns, layout.boxes), "settled")
    parts = [("the question", question), ("the answer", answer)]
    parts += [("settled at segment", settled)] if last > 1 else []
    return "".join(f"<figure><figcaption>{name}</figcaption>{grid}</figure>" for name, grid in parts)


def _open(example: Example) -> list[tuple[int, bool]]:
    known = [given or not scored for given, scored in zip(example.given, example.scored, strict=True)]
    return list(zip(example.settled, known, strict=True))


def _cells(example: Example, step: Step, layout: Layout) -> str:
    changed = set(step.changed)
    kinds = []
    for at, (mark, sure) in enumerate(zip(step.marks, step.sure, strict=True)):
        right = mark == example.answer[at]
        if not example.scored[at]:
            kinds.append("")
        elif example.given[at] and right:
            kinds.append("g")
        else:
            kinds.append(f"v {'r' if right else 'w'} {_shade(sure)}{' c' if at in changed else ''}")
    return _grid(step.marks, kinds, layout)


def _grid(marks: Sequence[str], kinds: Sequence[str], layout: Layout, name: str = "") -> str:
    """Cells of equal size; `kinds` are their classes."""
    n, cells = layout.columns, []
    for at, (mark, kind) in enumerate(zip(marks, kinds, strict=True)):
        classes = " ".join(part for part in (kind, _colour(mark, layout), _edge(at, layout)) if part)
        cells.append(f'<i class="{classes}">{escape(mark)}</i>' if classes else f"<i>{escape(mark)}</i>")
    picture = f" picture {layout.palette}" if layout.palette else ""
    return f'<div class="cells{picture}{f" {name}" if name else ""}" style="--n:{n}">{"".join(cells)}</div>'


def _colour(mark: str, layout: Layout) -> str:
    if layout.palette == "maze":
        return {"#": "kwall", "o": "kpath", "S": "kend", "G": "kend"}.get(mark, "")
    return f"k{mark}" if layout.palette == "arc" and mark.isdigit() else ""


def _edge(at: int, layout: Layout) -> str:
    """Where a box of a Sudoku begins."""
    if layout.boxes is None:
        return ""
    height, width = layout.boxes
    row, column = divmod(at, layout.columns)
    edges = ["x"] if column and column % width == 0 else []
    return " ".join(edges + (["y"] if row and row % height == 0 else []))


def _text(example: Example, step: Step, layout: Layout) -> str:
    """The words up to the last that is scored; above one that is wrong stands what the model said."""
    changed = set(step.changed)
    last = max((at for at, kept in enumerate(example.scored) if kept), default=-1)
    parts = [_quiet(example.question[0])] if layout.shifted else []
    for at in range(last + 1):
        if not example.scored[at]:
            parts.append(_quiet(example.question[at + layout.shifted]))
            continue
        mark, sure, answer = step.marks[at], step.sure[at], example.answer[at]
        right = mark == answer
        kind = f"v {'r' if right else 'w'} {_shade(sure)}{' c' if at in changed else ''}"
        word = escape(answer) if right else f"<ruby>{escape(answer)}<rt>{escape(mark)}</rt></ruby>"
        parts.append(f'<span class="{kind}" title="{escape(f"{mark} {percent(sure)}")}">{word}</span>')
    between = "<wbr>" if any(" " in mark for mark in example.question) else " "
    return f'<p class="says">{between.join(parts)}</p>'


def _quiet(word: str) -> str:
    return f'<span class="q">{escape(word)}</span>'


def _shade(sure: float) -> str:
    return f"s{min(9, int(10 * sure))}"
