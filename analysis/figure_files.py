"""Each figure of a report as a page of its own that needs no network: for places that show single files.

plotly.js, by far the most of a page, is packed, and unpacked by the browser: 2 MB instead of 5 in each file.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

from plotly.offline import get_plotlyjs

from analysis.section import Chart, Section

_SCRIPT = """
const packed = Uint8Array.from(atob(document.getElementById('library').textContent), sign => sign.charCodeAt(0));
const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
new Response(stream).text().then(text => {
  const script = document.createElement('script');
  script.text = text;
  document.head.append(script);
  const figure = JSON.parse(document.getElementById('figure').textContent);
  Plotly.newPlot('plot', figure.data, figure.layout, {responsive: true, displaylogo: false});
});
"""


def write_figures(sections: Sequence[Section], directory: Path) -> list[Path]:
    """Write every chart of the sections as `directory/NAME.html`; gives the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for section in sections:
        for chart in (block for block in section.blocks if isinstance(block, Chart)):
            path = directory / f"{chart.name}.html"
            path.write_text(figure_page(section.title, chart), encoding="utf-8")
            files.append(path)
    return files


def figure_page(title: str, chart: Chart) -> str:
    """The page of one figure."""
    data = str(chart.figure.to_json()).replace("<", "\\u003c")  # else a text in it could end the element
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        "<style>body { font-family: system-ui, sans-serif; margin: 1rem; background: white }</style>\n</head>\n"
        f'<body>\n<h1 style="font-size: 1.1rem">{escape(title)}</h1>\n<div id="plot"></div>\n'
        f'<script type="application/json" id="figure">{data}</script>\n'
        f'<script type="text/plain" id="library">{_library()}</script>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
    )


@cache
def _library() -> str:
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()
