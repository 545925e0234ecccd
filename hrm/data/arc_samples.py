"""Six tiny tasks of our own in the manner of ARC, so that a recipe without sources builds anywhere: for trying out."""

from __future__ import annotations

import numpy as np

from hrm.data.arc_tasks import ArcTask, Pair

_TRAINING = {
    "recolour": ("101/010 202/020", "011/100/010 022/200/020", "1101/0010 2202/0020", "010/111 020/222"),
    "mirror": ("300/330 003/033", "340/000/430 043/000/034", "5003/0500 3005/0050", "034/530 430/035"),
    "outline": ("000/060/000 666/666/666", "0000/0700/0000 7770/7770/7770", "080/000 888/888", "000/090 999/999"),
}
_EVALUATION = {
    "upside_down": ("120/000 000/120", "500/050/005 005/050/500", "1234/0000 0000/1234", "670/007 007/670"),
    "exchange": ("12/21 21/12", "112/020/211 221/010/122", "0122/1000 0211/2000", "121/002 212/001"),
    "fall": ("40/00 00/40", "303/030/000 000/000/333", "5050/0500 0000/5550", "080/800/000 000/000/880"),
}


def sample_tasks() -> list[ArcTask]:
    """Three training and three evaluation tasks: three demonstrations and one test pair each."""
    return [
        ArcTask(name, subset, tuple(_pair(text) for text in texts[:-1]), (_pair(texts[-1]),), subset == "evaluation")
        for subset, tasks in (("training", _TRAINING), ("evaluation", _EVALUATION))
        for name, texts in tasks.items()
    ]


def _pair(text: str) -> Pair:
    first, second = (
        np.array([[int(colour) for colour in row] for row in grid.split("/")], dtype=np.int8) for grid in text.split()
    )
    return first, second
