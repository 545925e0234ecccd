"""What a command is, and commands whose modules are imported only when they run, so that `--help` is quick.

Also what a command says where its output cannot be written.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError

Command = Callable[[argparse.Namespace], int]
"""Runs with its options and gives the exit code."""
AddCommand = Callable[[Any, str, Command, str], argparse.ArgumentParser]
"""Adds a command of a name and a describing sentence to a group, with the options that all commands have."""


def later(place: str) -> Command:
    """The command at `MODULE:FUNCTION` in this package, imported when it runs."""
    module, name = place.split(":")

    def command(options: argparse.Namespace) -> int:
        run: Command = getattr(importlib.import_module(f"orchestrator.{module}"), name)
        return run(options)

    return command


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Raises SpecError where what is written inside is refused by the file system: a person named the place."""
    try:
        yield
    except OSError as error:
        rule = f"cannot be written: {error.strerror}"
        raise SpecError(Problem(str(output), rule, "Give another --output, or make room")) from error
