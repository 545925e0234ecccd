"""The options of `data build`, `list`, `show`, `verify`, `export`. The commands are imported when one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.commands import AddCommand, later, sentence


def add_data_commands(commands: Any, add_command: AddCommand) -> None:
    """Add `data` and what is below it. `add_command` gives a command the options that all have."""
    text = "build datasets, look at their rows, verify them, give them to the original code"
    parser = commands.add_parser("data", help=text, description=sentence(text))
    inside = parser.add_subparsers(required=True, metavar="command")
    named = "a recipe in datasets/, the path of one, or a built folder"
    build = add_command(
        inside, "build", later("data_commands:build"), "build the dataset of a recipe, unless it is there"
    )
    build.add_argument("recipe", help="a recipe in datasets/, or the path of one")
    add_command(inside, "list", later("data_commands:list_built"), "list the built datasets of the storage")
    show = add_command(inside, "show", later("data_rows:show"), "show a row: a puzzle as a grid, text as text")
    show.add_argument("name", help=named)
    show.add_argument("--split", choices=("train", "validation", "test"), default="train")
    show.add_argument("--row", type=int, default=0, help="counted from 0, augmentations included (default: 0)")
    verify = add_command(
        inside, "verify", later("data_commands:verify"), "compare every file of built datasets with its SHA-256"
    )
    verify.add_argument("name", nargs="?", help=f"{named} (default: all)")
    export = add_command(
        inside, "export", later("data_commands:export"), "write a dataset as a folder of the original code"
    )
    export.add_argument("name", help=f"{named}; a recipe is built where it is not")
    export.add_argument("--output", type=Path, required=True, help="the folder")
