"""Curves in a terminal: lines of braille dots, four by two in a character, in the colours of their arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.text import Text

from analysis.numbers import count, significant

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille character, by row and column."""
_FAR = 4.0
"""Values that fall by more than this factor get a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve; not finite values are left out."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    colour: str


def plot(lines: Sequence[Line], width: int, height: int, x_title: str) -> Text:
    """The lines in `width` x `height` characters, axes included; later lines are drawn over earlier ones."""
    lines = [_finite(line) for line in lines]
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return Text("no report yet", style="dim")
    x, y = (np.concatenate([getattr(line, axis) for line in lines]) for axis in ("x", "y"))
    logarithmic = bool(y.min() > 0 and y.max() > _FAR * y.min())
    right, low, high = max(float(x.max()), 1e-12), *_scaled(np.array([y.min(), y.max()]), logarithmic)
    labels = [significant(float(y.max())), significant(float(y.min()))]
    margin = max(map(len, labels)) + 1
    canvas = _Canvas(max(width - margin - 1, 8), max(height - 2, 2))
    for line in lines:
        across = line.x / right
        up = (_scaled(line.y, logarithmic) - low) / (high - low or 1.0)
        canvas.draw(across, up, line.colour)
    return _framed(canvas, labels, margin, f"{x_title}, to {count(right)}{', logarithmic' if logarithmic else ''}")


class _Canvas:
    """Characters of eight dots each."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._bits = np.zeros((rows, columns), dtype=np.int64)
        self._colours = np.full((rows, columns), "", dtype=object)

    def draw(self, across: npt.NDArray[np.float64], up: npt.NDArray[np.float64], colour: str) -> None:
        """A line through points given as shares of the width and of the height."""
        column, row = across * (2 * self.columns - 1), (1.0 - up) * (4 * self.rows - 1)
        self._dot(column[0], row[0], colour)
        for i in range(1, len(column)):
            n = math.ceil(max(abs(column[i] - column[i - 1]), abs(row[i] - row[i - 1]), 1.0))
            for share in np.arange(1, n + 1) / n:
                self._dot(
                    column[i - 1] + share * (column[i] - column[i - 1]),
                    row[i - 1] + share * (row[i] - row[i - 1]),
                    colour,
                )

    def _dot(self, column: float, row: float, colour: str) -> None:
        i, j = round(row), round(column)
        self._bits[i // 4, j // 2] |= _DOTS[i % 4][j % 2]
        self._colours[i // 4, j // 2] = colour

    def row(self, number: int) -> Text:
        """A line of characters."""
        text = Text()
        for bits, colour in zip(self._bits[number], self._colours[number], strict=True):
            text.append(chr(0x2800 + int(bits)) if bits else " ", style=colour or None)
        return text


def _framed(canvas: _Canvas, labels: Sequence[str], margin: int, x_title: str) -> Text:
    """The canvas with its axes: the highest and the lowest value at the left, what is across below."""
    text = Text()
    for number in range(canvas.rows):
        label = {0: labels[0], canvas.rows - 1: labels[1]}.get(number, "")
        text.append(f"{label:>{margin - 1}} ").append("│", style="dim").append(canvas.row(number)).append("\n")
    text.append(" " * margin).append("└" + "─" * canvas.columns + "\n", style="dim")
    return text.append(" " * margin + f"{x_title:>{canvas.columns + 1}}", style="dim")


def _scaled(values: npt.NDArray[np.float64], logarithmic: bool) -> npt.NDArray[np.float64]:
    return np.log(values) if logarithmic else values


def _finite(line: Line) -> Line:
    keep = np.isfinite(line.x) & np.isfinite(line.y)
    return Line(line.x[keep], line.y[keep], line.colour)
