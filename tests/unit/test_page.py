"""Pages in a real headless browser: what a reader can do, on a wide screen, on a phone, by keyboard and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import CHROMIUM, Browser, browser
from sweep_fixture import replica, search_trial, write_sweep, write_trial

from analysis.markdown import document_text
from analysis.mlflow_runs import MlflowRuns, write_mlflow_runs
from analysis.page import render_document
from analysis.report import write_report
from analysis.section import Code, Drawing, Link, Notes, Section, Table, Text
from analysis.sections import trials
from analysis.sweep import load_sweep

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

EVIL = "<img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def shown() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep that is still running, over two tasks, with every state of a trial and an odd name."""
    directory = write_sweep(tmp_path_factory.mktemp("sweeps") / "s", tasks=("text", "maze"), finished=False)
    write_trial(directory, replace(replica("text", "hrm", 3, 0.2), state="running", result=None))
    write_trial(directory, replace(search_trial("text", "hrm", 7), key="text-hrm-search-0007%20#?", state="completed"))
    write_report(load_sweep(directory), directory)
    return directory / "report.html"


@pytest.fixture(scope="module")
def wide(shown: Browser, report: Path) -> Browser:
    """The page on a wide screen. Tests leave its arms as they were."""
    shown.open(report)
    return shown


@needs_chromium
def test_the_page_draws_its_figures_without_a_complaint(wide: Browser) -> None:
    assert wide.complaints == []
    drawn = wide.run("[...document.querySelectorAll('.js-plotly-plot')].map(p => !!p.querySelector('.main-svg'))")
    assert len(drawn) >= 4
    assert all(drawn)


@needs_chromium
def test_the_page_is_light_or_dark_as_the_reader_likes_it(wide: Browser) -> None:
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    assert wide.run(colours) == ["rgb(255, 255, 255)", "rgb(28, 33, 40)"]
    wide.prefer("dark")
    assert wide.run(colours) == ["rgb(20, 24, 29)", "rgb(228, 232, 236)"]
    wide.prefer("light")


@needs_chromium
def test_an_arm_is_hidden_in_figures_and_tables_by_keyboard_and_comes_back(wide: Browser) -> None:
    traces = """[...document.querySelectorAll('.js-plotly-plot')].map(plot =>
      plot.data.filter(trace => trace.legendgroup === 'hrm' && trace.visible !== false).length)"""
    others = traces.replace("'hrm'", "'transformer'")
    rows = "[...document.querySelectorAll('tr[data-arm=hrm]')].filter(row => row.offsetParent).length"
    before = wide.run(traces), wide.run(others), wide.run(rows)
    assert before[2] > 0
    assert any(before[0])
    wide.run("document.querySelector('.arms input[value=hrm]').focus()")
    wide.press(" ")
    assert (wide.run(traces), wide.run(rows)) == ([0] * len(before[0]), 0)
    assert wide.run(others) == before[1]
    wide.press(" ")
    assert (wide.run(traces), wide.run(others), wide.run(rows)) == before


@needs_chromium
def test_a_click_on_a_point_opens_the_entry_of_its_trial(wide: Browser) -> None:
    others = "for (const box of document.querySelectorAll('.arms input:not([value=hrm])')) box.click()"
    wide.run(others)  # so that no other point is near
    wide.run("document.getElementById('search-0').scrollIntoView({block: 'center'})")
    wide.settle()
    x, y, key = wide.run("""(() => {
      const point = document.querySelector('#search-0 .points path'), box = point.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2, point.__data__.data];
    })()""")
    entry = f"document.getElementById('trial-{key}')"
    assert wide.run(f"{entry}.open") is False
    wide.click(x, y)
    assert wide.run(f"{entry}.open") is True
    assert 0 <= wide.run(f"{entry}.getBoundingClientRect().top") < 900
    wide.run(others)


@needs_chromium
def test_every_link_leads_to_a_place_of_the_page_or_to_a_file(wide: Browser, report: Path) -> None:
    links = wide.run("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert len(links) > 20
    places = set(wide.run("[...document.querySelectorAll('[id]')].map(place => place.id)"))
    for link in links:
        if link.startswith("#"):
            assert unquote(link[1:]) in places, link
        else:
            assert (report.parent / unquote(link)).exists(), link
    first = next(unquote(link[1:]) for link in links if link.startswith("#trial-") and "replica" in link)
    wide.run(f"document.querySelector('a[href=\"#{first}\"]').click()")
    wide.settle()
    assert wide.run(f"document.getElementById('{first}').open") is True


@needs_chromium
def test_the_page_prints(wide: Browser, tmp_path: Path) -> None:
    wide.printed(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert wide.complaints == []


@needs_chromium
def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_answer_comes_first(shown: Browser, report: Path) -> None:
    shown.open(report, width=360, height=800)
    assert shown.complaints == []
    assert shown.run("document.documentElement.scrollWidth") == 360
    tops = shown.run("[...document.querySelectorAll('.answer')].map(box => box.getBoundingClientRect().top)")
    assert len(tops) == 2
    assert 0 < tops[0] < 400


@needs_chromium
def test_nothing_from_data_becomes_a_part_of_the_page(shown: Browser, tmp_path: Path) -> None:
    link = Link(EVIL, href=f"{EVIL}/x"), Link("a script", href="javascript://%0Aalert(1)"), Link(EVIL, trial=EVIL)
    table = Table([EVIL], [[EVIL], *([each] for each in link)], arms=[EVIL] * 4)
    blocks = [Text(EVIL), Notes([EVIL]), Code(EVIL), table, Drawing("<b>ours</b>", EVIL)]
    page = render_document(
        EVIL, [Section(EVIL, blocks, trial=EVIL, folded=True)], lead=EVIL, arms={EVIL: EVIL, "b": ""}
    )
    (tmp_path / "x.html").write_text(page)
    shown.open(tmp_path / "x.html")
    assert shown.complaints == []
    assert shown.run("document.images.length") == 0
    assert shown.run("document.title") == EVIL
    assert not [href for href in shown.run("[...document.links].map(a => a.href)") if href.startswith("javascript")]
    assert "<img" not in document_text(EVIL, [Section(EVIL, blocks)], EVIL).replace(f"    {EVIL}", "")


def test_a_document_without_figures_carries_no_plotly(tmp_path: Path) -> None:
    page = render_document("x", [Section("y", [Text("z")])])
    assert len(page) < 20_000


def test_a_large_sweep_has_entries_for_the_trials_that_are_mentioned_and_no_link_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "MOST", 12)
    directory = write_sweep(tmp_path / "s")
    write_report(load_sweep(directory), directory)
    page = (directory / "report.html").read_text()
    assert page.count('class="trial"') == 12
    assert "12 of 27 do, those that are mentioned above first" in page
    entries = {part.split('"')[0] for part in page.split('id="trial-')[1:]}
    assert {f"text-{arm}-replica-000{seed}" for arm in ("hrm", "lstm", "transformer") for seed in range(3)} <= entries
    assert {part.split('"')[0] for part in page.split('href="#trial-')[1:]} <= entries


def test_an_entry_names_the_command_and_all_that_a_reader_needs_to_find_the_trial(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "runs/sweeps/s")
    write_mlflow_runs(directory, MlflowRuns("http://host:5000", "7", "p", {"text-hrm-replica-0001": "abc"}))
    write_report(load_sweep(directory), directory)
    page = (directory / "report.html").read_text()
    entry = page.partition('id="trial-text-hrm-replica-0001"')[2].partition("</details>")[0]
    assert "python -m orchestrator train --trial s/text-hrm-replica-0001" in entry
    assert 'href="./trials/text-hrm-replica-0001/log.txt"' in entry
    assert 'href="#trial-text-hrm-search-0000"' in entry
    assert 'href="http://host:5000/#/experiments/7/runs/abc"' in entry
    assert 'href="http://host:5000/#/experiments/7/runs/p"' in page
    for said in ("0.2060", "step-00000440", "optim.learning_rate", "480 steps"):
        assert said in entry, said
