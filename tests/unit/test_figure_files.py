"""A figure alone in a file needs nothing else, and no text of its data can end the element that holds it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from analysis.figure_files import figure_page, write_figures
from analysis.section import Chart, Section, Text

EVIL = "</script><script>alert(1)</script>"


def inside(page: str, element: str) -> str:
    found = re.search(rf'<script type="[a-z/]+" id="{element}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_page_holds_the_figure_and_the_library() -> None:
    chart = Chart("curves-0", go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name=EVIL)))
    page = figure_page(EVIL, chart)
    assert json.loads(inside(page, "figure"))["data"][0]["name"] == EVIL
    assert gzip.decompress(base64.b64decode(inside(page, "library"))).decode() == get_plotlyjs()
    assert page.count("<script") == 3
    assert "alert(1)</script>" not in page


def test_every_chart_is_a_file_of_its_name(tmp_path: Path) -> None:
    chart = Chart("curves-0", go.Figure(go.Scatter(x=[1], y=[2])))
    sections = [Section("One", [Text("no figure")]), Section("Two", [chart, Chart("dots-0", chart.figure)])]
    files = write_figures(sections, tmp_path / "figures")
    assert [file.name for file in files] == ["curves-0.html", "dots-0.html"]
    assert all("<title>Two</title>" in file.read_text() for file in files)
