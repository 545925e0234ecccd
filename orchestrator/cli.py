"""The commands. Each returns its exit code: 0 done, 1 some trials failed, 2 the input is wrong, 3 the cluster failed.

A sweep stopped by Ctrl-C or `stop` ends with 130. Heavy imports happen inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrm.errors import InfrastructureError, Problem, SpecError, TrialError
from orchestrator.checkpoint_options import add_checkpoint_commands
from orchestrator.commands import Command, Parser, later, sentence
from orchestrator.compare_options import add_compare_command
from orchestrator.data_options import add_data_commands
from orchestrator.generate_options import add_generate_command
from orchestrator.look_options import add_look_commands
from orchestrator.render_options import add_render_commands
from orchestrator.signals import STOPPED

DONE, TRIALS_FAILED, WRONG_INPUT, CLUSTER_FAILED = 0, 1, 2, 3

_TOP = """\
examples:
  python -m orchestrator sweep experiments/text_adapt.yaml            ask the question, get the answer
  python -m orchestrator sweep experiments/text_adapt.yaml --smoke    the same in seconds, to see that it runs
  python -m orchestrator status text_adapt                            look at it while it runs
  python -m orchestrator train experiments/text_adapt.yaml --arm transformer    one trial, no search

exit codes: 0 done, 1 some trials failed, 2 the input is wrong, 3 the cluster failed, 130 stopped (run again to go on)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except SpecError as error:
        _say_problems(options, error.problems)
        return WRONG_INPUT
    except InfrastructureError as error:
        _say_error(options, str(error))
        return CLUSTER_FAILED
    except TrialError as error:
        _say_error(options, str(error))
        return TRIALS_FAILED
    except (MemoryError, RuntimeError) as error:
        from orchestrator.failures import describe

        failure = describe(error)
        if failure.origin != "trial":
            raise
        _say_error(options, failure.reason)
        return TRIALS_FAILED
    except KeyboardInterrupt:
        _say_error(options, "ended at once; the same command goes on from the newest checkpoints")
        return STOPPED
    except BrokenPipeError:
        return DONE
    except OSError as error:
        _say_error(options, f"{error}; everything up to here is saved, and the same command goes on")
        return CLUSTER_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m orchestrator",
        description="Sweeps over the Hierarchical Reasoning Model and its relatives: one YAML question, one answer.",
        epilog=_TOP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    sweep = _command(commands, "sweep", _sweep, "run or resume the sweep that an experiment file asks for")
    _experiment_options(sweep)
    sweep.add_argument("--name", help="the sweep's name (default: the file's); another name is another sweep")
    sweep.add_argument("--address", help="of a running Ray cluster: auto, or host:port of its head (default: our own)")
    sweep.add_argument("--store", help="where checkpoints, data and copies of the log go too: a path, or such as "
                       "s3://bucket/prefix (default: nowhere; the storage is all there is)")  # fmt: skip
    sweep.add_argument("--nodes", type=int, default=1, help="wait until the cluster at --address has so many")
    sweep.add_argument("--no-dashboard", action="store_false", dest="dashboard",
                       help="do not start a Ray dashboard with our own cluster: some seconds less")  # fmt: skip
    sweep.add_argument("--dry-run", action="store_true",
                       help="measure some steps of every arm, say what the sweep will take, run nothing")  # fmt: skip

    train = _command(commands, "train", later("single:train_one"), "train one trial, without a search")
    _experiment_options(train, required=False)
    train.add_argument("--trial", metavar="SWEEP/KEY", help="exactly this trial of a sweep again, instead of a file's")
    train.add_argument("--arm", help="which arm (default: the first)")
    train.add_argument("--task", help="on which task (default: the first)")
    train.add_argument("--seed", type=int, default=0)

    validate = _command(
        commands, "validate", later("validation:validate"), "check an experiment file, show what its arms cost"
    )
    _experiment_options(validate)

    add_look_commands(commands, _command)
    add_compare_command(commands, _command)
    for name, command, text in (
        ("stop", _stop, "end a running sweep cleanly; the same sweep command goes on"),
        ("clean", _clean, "remove a sweep's checkpoints but the best of each arm"),
    ):
        look = _command(commands, name, command, text)
        look.add_argument("name")
        if name != "stop":
            look.add_argument("--store", help="look at the copies in this store: the storage is elsewhere, or lost")

    add_generate_command(commands, _command)
    add_checkpoint_commands(commands, _command)
    add_data_commands(commands, _command)
    add_render_commands(commands, _command, _experiment_options)
    _command(commands, "list", _list, "list the sweeps of the storage")
    doctor = _command(commands, "doctor", _doctor, "examine this machine or a cluster: lines with verdict and fix")
    doctor.add_argument("--address", help="of a running Ray cluster: every node of it is examined, too")
    doctor.add_argument("--store", help="URI of a store to try, such as s3://bucket/prefix")
    doctor.add_argument("--tracker", help="URI of an MLflow server to try, such as http://host:5000")
    schema = _command(commands, "schema", _schema, "print the JSON schema of a file, for editors")
    schema.add_argument("--of", choices=("experiment", "trial", "recipe"), default="experiment")
    return parser


def _command(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=sentence(text))
    parser.set_defaults(command=command)
    parser.add_argument("--storage", type=Path, default=Path("runs"), help="where everything is kept (default: runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON value for programs")
    return parser


def _experiment_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    number = None if required else "?"
    parser.add_argument("experiment", type=Path, nargs=number, help="such as experiments/text_adapt.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", dest="overrides",
                        help="change a field of the file, such as search.trials=4 (again for more)")  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="lay the file's smoke: section over it: seconds")


def _sweep(options: argparse.Namespace) -> int:
    from orchestrator.cluster.connect import Where
    from orchestrator.experiment import load_experiment
    from orchestrator.progress import view_for
    from orchestrator.sweep import run_sweep

    experiment = load_experiment(options.experiment, options.overrides, options.smoke, options.name, options.storage)
    where = Where(options.address, options.nodes, options.dashboard)
    if options.dry_run:
        from orchestrator.dry_run import dry_run

        return dry_run(experiment, where, options)
    view = view_for(options.json)
    outcome = run_sweep(experiment, options.storage, where, view, options.store)
    report = outcome.report.to_json()
    if options.json:
        print(report)
    else:
        view.answer(outcome)
    if not outcome.complete:
        return TRIALS_FAILED if outcome.gave_up else STOPPED
    return TRIALS_FAILED if outcome.failed_trials else DONE


def _stop(options: argparse.Namespace) -> int:
    from orchestrator.upkeep import stop

    return _say(options, stop(_store(options)))


def _clean(options: argparse.Namespace) -> int:
    from orchestrator.upkeep import clean

    return _say(options, clean(_store(options)))


def _list(options: argparse.Namespace) -> int:
    from orchestrator.status import show_list

    show_list(options.storage, options.json)
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    from orchestrator.doctor import as_json, examine, render, worst

    findings = examine(options.storage, options.store, options.tracker, options.address)
    if options.json:
        print(as_json(findings))
    else:
        render(findings)
    return CLUSTER_FAILED if worst(findings) == "fail" else DONE


def _schema(options: argparse.Namespace) -> int:
    from orchestrator.schema import schema_of

    print(json.dumps(schema_of(options.of), indent=1))
    return DONE


def _store(options: argparse.Namespace) -> Any:
    from orchestrator.sweep_names import named_sweep

    return named_sweep(options.storage, options.name, getattr(options, "store", None))


def _say(options: argparse.Namespace, facts: dict[str, Any]) -> int:
    print(json.dumps(facts) if options.json else facts["message"])
    return DONE


def _say_problems(options: argparse.Namespace, problems: Sequence[Problem]) -> None:
    if options.json:
        items = [{"place": p.place, "rule": p.rule, "way_out": p.way_out} for p in problems]
        print(json.dumps({"problems": items}))
        return
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


def _say_error(options: argparse.Namespace, message: str) -> None:
    if options.json:
        print(json.dumps({"error": message}))
    print(f"error: {message}", file=sys.stderr)
