"""The options of the `checkpoint` commands, which are imported when one runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from orchestrator.adapt_options import adapt_options, solve_options
from orchestrator.commands import CHECKPOINT, AddCommand, Command, later, sentence


def add_checkpoint_commands(commands: Any, add_command: AddCommand) -> None:
    """Add `checkpoint` and what is below it. `add_command` gives a command the options that all have."""
    solve_options(
        add_command(
            commands, "solve", _of_folder("solving:solve"), "solve a Sudoku, a maze or an ARC task with a checkpoint"
        )
    )
    text = "take weights from the original code or Transformers, give them back, look at them"
    parser = commands.add_parser("checkpoint", help=text, description=sentence(text))
    inside = parser.add_subparsers(required=True, metavar="command")
    bring = add_command(
        inside,
        "import",
        _of_folder("checkpoints:import_checkpoint"),
        "make a checkpoint of a state dict of the original code, or of a folder of Transformers",
    )
    _original_options(
        bring,
        "a file of original HRM, TRM or URM code, such as step_1234; a folder that Transformers wrote; hub:owner/name",
    )
    bring.add_argument("--output", type=Path, help="the checkpoint's folder (default: imported/ in the storage)")
    give = add_command(
        inside, "export", _of_folder("checkpoints:export_checkpoint"), "write a checkpoint's weights for others"
    )
    give.add_argument("path", help=CHECKPOINT)
    give.add_argument("--output", type=Path, required=True, help="the file, or the folder for Transformers")
    give.add_argument("--format", choices=("original", "safetensors", "transformers"), default="original",
                      help="the original code's state dict, plain safetensors, or a folder that Transformers loads "
                      "(default: original)")  # fmt: skip
    give.add_argument("--weights", choices=("ema", "raw"),
                      help="averaged or as trained (default: those that evaluations use)")  # fmt: skip
    _folder_options(give)
    show = add_command(
        inside,
        "show",
        _of_folder("checkpoints:show_checkpoint"),
        "show what is in a checkpoint, ours, an original state dict, or a folder of Transformers",
    )
    _original_options(
        show,
        "the folder of a checkpoint, its URI, a file of the original code, a folder of Transformers, hub:owner/name",
    )
    look = add_command(
        inside, "evaluate", _of_folder("evaluation:evaluate_checkpoint"), "measure a checkpoint on a split of a task"
    )
    look.add_argument("path", help=CHECKPOINT)
    look.add_argument("--task", help="a recipe in datasets/, or the path of one (default: what it was trained on)")
    look.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    look.add_argument("--predictions", type=Path, help="keep what the model said in this file, for `judge`")
    _report_options(
        add_command(
            inside,
            "report",
            later("checkpoint_report:report_checkpoints"),
            "examine the weights of checkpoints, how they changed, and what they do on data",
        )
    )
    _trace_options(
        add_command(
            inside,
            "trace",
            _of_folder("reasoning:trace_checkpoint"),
            "draw how a checkpoint comes to its answers, segment by segment",
        )
    )
    adapt_options(
        add_command(
            inside,
            "adapt",
            _of_folder("adapting:adapt_checkpoint"),
            "measure what halting by row saves, by thresholds that validation chooses",
        )
    )
    _harness_options(
        add_command(
            inside,
            "harness",
            _of_folder("harnessing:score_checkpoint"),
            "score a checkpoint on tasks of the lm-evaluation-harness",
        )
    )
    _states_options(
        add_command(
            inside,
            "states",
            later("states:compare_checkpoint_states"),
            "compare states that start anew with each token with carried ones, on its rows and on lists of tags",
        )
    )
    judge = add_command(
        inside, "judge", later("evaluation:judge_predictions"), "measure stored predictions, several files as one"
    )
    judge.add_argument("files", type=Path, nargs="+", help="files of `checkpoint evaluate --predictions`")


def _folder_options(give: argparse.ArgumentParser) -> None:
    """Of `export --format transformers`."""
    give.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights (default: float32)")
    give.add_argument("--task", help="the recipe whose tokenizer goes with it (default: what it was trained on)")
    give.add_argument("--license", help="the weights' license, such as apache-2.0, for the model card")
    give.add_argument("--license-file", type=Path, metavar="FILE", help="its text, to go with them")


def _harness_options(score: argparse.ArgumentParser) -> None:
    score.add_argument("path", help="the folder of a checkpoint or of Transformers, a URI, hub:owner/name")
    score.add_argument("--tasks", nargs="+", required=True, metavar="NAME", help="such as lambada_openai hellaswag")
    score.add_argument("--include-path", type=Path, metavar="DIR", help="a folder with tasks of your own (YAML)")
    score.add_argument("--limit", type=int, metavar="N", help="the first N examples of each task only: a try")
    score.add_argument(
        "--num-fewshot", type=int, metavar="N", help="so many examples before each (default: the task's)"
    )
    score.add_argument("--batch-size", type=int, default=8, metavar="N", help="texts at a time (default: 8)")
    score.add_argument("--device", help="such as cpu or cuda:1 (default: a GPU where there is one)")
    score.add_argument("--task", help="the recipe whose tokenizer it needs (default: what it was trained on)")


def _report_options(report: argparse.ArgumentParser) -> None:
    report.add_argument("paths", nargs="+", metavar="PATH",
                        help="folders of checkpoints, of a trial, URIs, files of the original code")  # fmt: skip
    report.add_argument("--output", type=Path, help="the folder to write to (default: reports/NAME in the storage)")
    report.add_argument("--no-behaviour", action="store_true", help="look at the weights alone")
    report.add_argument("--task", help="a recipe in datasets/, or the path of one (default: what they were trained on)")
    report.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    rows = "measure on so many rows of the split, drawn once (default: as many as take minutes)"
    report.add_argument("--rows", type=int, metavar="N", help=rows)
    _configuration_options(report)


def _trace_options(trace: argparse.ArgumentParser) -> None:
    trace.add_argument("path", help=CHECKPOINT)
    trace.add_argument("--task", help="a recipe in datasets/, or the path of one (default: what it was trained on)")
    trace.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    trace.add_argument("--rows", type=int, default=6, help="so many rows, evenly spread (default: 6)")
    trace.add_argument("--row", type=int, nargs="+", metavar="N", help="these rows instead")
    trace.add_argument("--segments", type=int, help="so many segments (default: as it was trained)")
    trace.add_argument("--output", type=Path, help="the HTML file (default: in reports/ of the storage)")


def _states_options(states: argparse.ArgumentParser) -> None:
    states.add_argument("checkpoint", help=CHECKPOINT)
    states.add_argument("--task", help="a recipe in datasets/, or the path of one (default: what it was trained on)")
    states.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    states.add_argument("--rows", type=int, default=64, help="so many rows, evenly spread, and lists (default: 64)")
    states.add_argument("--prefix", type=int, default=8, metavar="N", help="tokens that are read at once (default: 8)")
    states.add_argument("--tokens", type=int, default=64, metavar="N",
                        help="so many tokens of each after these, at most (default: 64)")  # fmt: skip
    states.add_argument("--segments", type=int, metavar="N", help="so many of each pass (default: as it was trained)")


def _original_options(parser: argparse.ArgumentParser, path: str) -> None:
    parser.add_argument("path", help=path)
    _configuration_options(parser)


def _configuration_options(parser: argparse.ArgumentParser) -> None:
    """What is said of a file of the original code."""
    parser.add_argument("--config", type=Path, help="its configuration (default: all_config.yaml beside it)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="fields",
                        help="a field of that configuration, such as num_heads=8 (again for more)")  # fmt: skip


def _of_folder(place: str) -> Command:
    """The command at `place` with its path as a checkpoint's folder here, as `best_checkpoint` finds it."""
    run = later(place)

    def command(options: argparse.Namespace) -> int:
        from orchestrator.checkpoint_places import best_checkpoint

        options.path = best_checkpoint(options.path, options.storage)
        return run(options)

    return command
