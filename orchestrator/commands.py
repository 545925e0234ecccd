"""What a command is, and commands whose modules are imported only when they run, so that `--help` is quick.

Also what a command says where its output cannot be written.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError

CHECKPOINT = "a checkpoint: its folder or URI; a trial's folder, SWEEP/KEY or SWEEP:ARM: its best one"
"""The help of what `orchestrator.checkpoint_places.best_checkpoint` finds."""
Command = Callable[[argparse.Namespace], int]
"""Runs with its options and gives the exit code."""
AddCommand = Callable[[Any, str, Command, str], argparse.ArgumentParser]
"""Adds a command of a name and a describing sentence to a group, with the options that all commands have."""


class Parser(argparse.ArgumentParser):
    """Names the option that a misspelt one may have been, and shows the usage of its command."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; it exits with 2 where something is left over."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name for action in self._actions for name in action.option_strings]
            near = [close[0] for word in unknown if (close := get_close_matches(word.split("=")[0], options, 1))]
            hint = f". Did you mean {', '.join(near)}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown


def sentence(text: str) -> str:
    """With a capital and a full stop; names keep theirs."""
    return f"{text[0].upper()}{text[1:]}."


def later(place: str) -> Command:
    """The command at `MODULE:FUNCTION` in this package, imported when it runs."""
    module, name = place.split(":")

    def command(options: argparse.Namespace) -> int:
        run: Command = getattr(importlib.import_module(f"orchestrator.{module}"), name)
        return run(options)

    return command


def too_small(options: argparse.Namespace, **least: int) -> list[Problem]:
    """A problem for each option below the least number that means something; those that were not given are fine."""
    given = {name: getattr(options, name) for name in least}
    return [
        Problem(f"--{name.replace('_', '-')}", f"must be >= {least[name]}, got {value}", "Give how many")
        for name, value in given.items()
        if value is not None and value < least[name]
    ]


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Raises SpecError where what is written inside is refused by the file system: a person named the place."""
    try:
        yield
    except OSError as error:
        rule = f"cannot be written: {error.strerror}"
        raise SpecError(Problem(str(output), rule, "Give another --output, or make room")) from error
