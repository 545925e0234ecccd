"""`checkpoint trace`: what is drawn is what the model did, in a page that leads through the segments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUM, browser
from conftest import MakeTrial

from analysis.markdown import document_text
from analysis.reasoning import Example, Layout, Reasoning, examples_of, findings, layout_of
from analysis.reasoning_drawing import drawn, in_words
from analysis.reasoning_page import render_reasoning, sections
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.tasks import IGNORE, TaskSpec
from hrm.tasks.arc import ArcSpec
from hrm.tasks.maze import MazeSpec
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.tasks.text import TextSpec
from hrm.trace import Trace
from hrm.train import train
from orchestrator.cli import main
from orchestrator.evaluation import Bench
from orchestrator.reasoning import reason

EVIL = "<img src=x onerror=\"document.title='broken'\">"
VOCABULARY = ["<pad>", ".", "1", "2", "3", "4", EVIL]


def hand_made() -> Trace:
    """Two rows of four cells over four segments. The first is solved at the third segment; the second was right at the
    first and second, and is wrong and sure of itself at the end. The first cell of each is given."""
    inputs = np.array([[2, 1, 1, 1], [3, 1, 1, 1]])
    labels = np.array([[2, 3, 4, 5], [3, 2, 5, 4]])
    said = np.array(
        [
            [[2, 3, 5, 4], [3, 2, 5, 4]],
            [[2, 3, 5, 5], [3, 2, 5, 4]],
            [[2, 3, 4, 5], [3, 2, 4, 4]],
            [[2, 3, 4, 5], [3, 2, 4, 6]],
        ],
        dtype=np.int32,
    )
    halt = np.array([[-4.0, -4.0], [2.0, -4.0], [3.0, -1.0], [4.0, 2.0]])
    moved = np.array([[1.4, 1.4], [0.5, 0.6], [0.1, 0.6], [0.02, 0.5]], dtype=np.float32)
    return Trace(
        rows={"inputs": inputs, "labels": labels},
        numbers=np.array([7, 9]),
        predictions=said,
        probabilities=np.full(said.shape, 0.9, np.float32),
        losses=np.linspace(4.0, 0.4, 8).reshape(4, 2),
        q=np.stack([halt, np.zeros_like(halt)], axis=-1).astype(np.float32),
        residuals={"z_H": moved},
        halts=np.array([2, 4]),
    )


def mark(token: int) -> str:
    return "" if token == 1 else VOCABULARY[token]


def made(**changes: object) -> Reasoning:
    examples = examples_of(hand_made(), mark, filled_in=True, q_continues=True)
    fields = {"checkpoint": "trm", "task": "sudoku", "split": "validation", "segments": 4, "trained_segments": 4}
    return Reasoning(**{**fields, "layout": Layout("grid", 2, (1, 2)), "examples": examples, **changes})  # type: ignore[arg-type]


def test_an_example_says_when_each_cell_was_settled_and_when_the_row_was_solved_for_good() -> None:
    first, second = made().examples
    assert (first.row, first.solved, first.halts, first.given_up) == (7, 3, 2, 0)
    assert first.settled == [1, 1, 3, 2]
    assert [step.changed for step in first.steps] == [[], [3], [2], []]
    assert [step.right for step in first.steps] == [2, 3, 4, 4]
    assert first.given == [True, False, False, False]
    assert (second.solved, second.halts, second.given_up) == (None, 4, 2)
    assert in_words(second) == "Row 9: 2 errors at the last of 4 segments, would halt at 4"
    assert first.steps[3].halt == pytest.approx(1.0 / (1.0 + np.exp(-4.0)))


def test_the_findings_name_the_rows_that_halt_early_and_those_where_the_q_is_wrong() -> None:
    said = " ".join(findings(made(trained_segments=2)))
    assert "Without an error at the end: 1 of 2 rows" in said
    assert "2 positions were right at some segment and are wrong at the last" in said
    assert "before the answer was whole in row 7" in said
    assert "takes a wrong answer for a right one in row 9" in said
    assert "z_H moves by 140 % of its size, at the last by 26 %" in said
    assert "trained with 2 segments" in said


def test_rows_that_the_rule_of_training_has_not_ended_yet_are_said_to_be_open() -> None:
    trace = replace(hand_made(), halts=np.array([2, 0]))
    some = made(examples=examples_of(trace, mark, filled_in=True, q_continues=True), trained_segments=6)
    said = findings(some)
    assert [example.halts for example in some.examples] == [2, None]
    assert "The rule of training would have ended row 7 at segment 2." in said
    assert "ended row 9: these are 4 segments, and it gives up to 6." in " ".join(said)
    assert "would halt" not in in_words(some.examples[1])
    none = replace(trace, halts=np.array([0, 0]))
    said = findings(made(examples=examples_of(none, mark, filled_in=True, q_continues=True), trained_segments=6))
    assert "It is open where the rule of training would have ended any of them" in " ".join(said)


def test_nothing_from_data_is_html_and_the_json_is_strict() -> None:
    page, text = render_reasoning(made()), document_text("Reasoning", sections(made()))
    assert EVIL not in page
    assert "&lt;img src=x" in page
    assert "segment 3 of 4: 4 of 4 right, 1 changed" in text
    losses = np.full((4, 2), np.nan)
    broken = Trace(**{**{name: getattr(hand_made(), name) for name in Trace.__slots__}, "losses": losses})
    whole = made(examples=examples_of(broken, mark, filled_in=True, q_continues=False)).to_json()
    facts = json.loads(whole, parse_constant=lambda name: pytest.fail(name))
    assert facts["examples"][0]["steps"][0]["loss"] is None
    assert facts["examples"][0]["steps"][0]["go_on"] is None


def test_a_text_shows_its_words_with_the_guess_above_a_wrong_one_and_no_padding() -> None:
    inputs, labels = np.array([[2, 3, 4, 0]]), np.array([[3, 4, IGNORE, IGNORE]])
    trace = Trace(
        rows={"inputs": inputs, "labels": labels},
        numbers=np.array([0]),
        predictions=np.array([[[3, 5, 2, 2]]], dtype=np.int32),
        probabilities=np.full((1, 1, 4), 0.25, np.float32),
        losses=np.ones((1, 1)),
    )
    (example,) = examples_of(trace, mark, filled_in=False, q_continues=False)
    html = drawn(example, layout_of("text", 4, None, next_token=True))
    assert '<span class="q">1</span>' in html
    assert "<ruby>3<rt>4</rt></ruby>" in html
    assert "pad" not in html
    assert "slider" not in html
    assert "<input" not in html


def test_only_squares_that_are_no_text_are_grids() -> None:
    assert layout_of("maze", 49, None, next_token=False) == Layout("grid", 7, None, "maze")
    assert layout_of("text", 49, None, next_token=True).kind == "text"
    assert layout_of("original_folder", 50, None, next_token=False).kind == "text"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_page_leads_through_the_segments_by_keyboard_and_prints_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render_reasoning(made()))
    shown = "[...document.querySelectorAll('.step')].filter(s => s.getClientRects().length).map(s => s.innerText)"
    with browser() as chromium:
        chromium.open(tmp_path / "page.html", width=360)
        assert chromium.complaints == []
        assert chromium.run("document.documentElement.scrollWidth") <= 360
        assert chromium.run("document.title").startswith("Reasoning")
        assert ["segment 4 of 4" in text for text in chromium.run(shown)] == [True, True]
        chromium.run("document.querySelector('.reasoning input').focus()")
        chromium.press("ArrowLeft")
        first, second = chromium.run(shown)
        assert "segment 3 of 4" in first
        assert "segment 4 of 4" in second
        chromium.run("document.querySelectorAll('.reasoning button')[0].click()")
        assert "segment 2 of 4" in chromium.run(shown)[0]
        chromium.on_paper()
        assert len(chromium.run(shown)) == 8


@pytest.fixture
def checkpoint(make_trial: MakeTrial, tmp_path: Path) -> Path:
    model = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1}
    task = SudokuSpec.smoke().model_dump(mode="json")
    trial = make_trial(task=task, model={**model, "halting": {"rule": "q_with_target", "segments": 3}}, batch_size=4)
    build_dataset(trial.task, tmp_path / "data")
    context = LocalContext(tmp_path / "trial", tmp_path / "data")
    report = next(train(trial, context))
    (tmp_path / "reported.json").write_text(json.dumps(report.validation))
    return context.trial_directory / report.checkpoint


def test_a_traced_checkpoint_ends_where_its_evaluation_did(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    try:
        base = ["checkpoint", "trace", str(checkpoint), "--storage", str(tmp_path), "--json"]
        assert main([*base, "--rows", "100", "--output", str(tmp_path / "all.html")]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert main([*base, "--row", "3", "--segments", "5", "--output", str(tmp_path / "one.html")]) == 0
        deeper = json.loads(capsys.readouterr().out)
        code = main([*base, "--row", "3", "8", "-1"])
        problems = json.loads(capsys.readouterr().out)
        assert main([*base, "--rows", "0", "--segments", "-2"]) == 2
        none = capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    examples = [Example(**{**example, "steps": []}) for example in facts["examples"]]
    last = [example["steps"][-1] for example in facts["examples"]]
    of = sum(example.of for example in examples)
    reported = json.loads((tmp_path / "reported.json").read_text())
    assert [example.row for example in examples] == list(range(8))
    assert sum(step["right"] for step in last) / of == pytest.approx(reported["token_accuracy"])
    assert sum(step["loss"] * e.of for step, e in zip(last, examples, strict=True)) / of == pytest.approx(
        reported["loss"], rel=1e-6
    )
    assert "Row 3" in (tmp_path / "one.html").read_text()
    (one,) = deeper["examples"]
    assert (one["row"], len(one["steps"])) == (3, 5)
    assert one["steps"][2]["marks"] == last[3]["marks"]
    assert none.count("must be >= 1") == 2
    assert code == 2
    assert "must be >= 0 and < 8, the rows of validation, got 8, -1" in json.dumps(problems)


@pytest.mark.parametrize("task", [MazeSpec, ArcSpec, TextSpec, RedTeamSpec])
def test_every_kind_of_row_can_be_drawn(task: type[TaskSpec], make_trial: MakeTrial, tmp_path: Path) -> None:
    model = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": task.next_token}
    halting = {"rule": "none" if task.next_token else "q", "segments": 2}
    fields = {"task": task.smoke().model_dump(mode="json"), "model": {**model, "halting": halting}}
    trial = make_trial(**fields)
    dataset = build_dataset(trial.task, tmp_path)
    context = LocalContext(tmp_path / "trial", tmp_path)
    bench = Bench(trial.model.build(dataset.shape), dataset, trial, context, "float32")
    reasoning = reason(bench, tmp_path / "step-00000001", "validation", np.array([0]), 3)
    (example,) = reasoning.examples
    assert reasoning.layout.kind == ("text" if task.next_token else "grid")
    html = drawn(example, reasoning.layout)
    assert html.count('class="step"') == 3
    cells = html.count("<i>") + html.count("<i class")
    assert any(example.given) == (task is MazeSpec)
    assert cells == (0 if task.next_token else 6 * dataset.manifest.sequence_length)
    assert json.loads(reasoning.to_json())["trained_segments"] == 2
