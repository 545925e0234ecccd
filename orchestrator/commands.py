"""What a command is, and commands whose modules are imported only when they run, so that `--help` is quick."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

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
