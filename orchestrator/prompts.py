"""The prompts that a person gives to a text model, by the command line or in a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hrm.errors import Problem, SpecError


def given_prompts(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Each prompt and where it is from: --prompt, then the lines of --file that are not blank. Raises SpecError."""
    prompts = [(text, f"--prompt {number}") for number, text in enumerate(options.prompt, 1)]
    if options.file is not None:
        lines = list(enumerate(_read(options.file).splitlines(), 1))
        prompts += [(line, f"--file {options.file}: line {number}") for number, line in lines if line.strip()]
    if not prompts:
        rule = "there is no prompt" if options.file is None else f"{options.file} holds no prompt"
        raise SpecError(Problem("--prompt", rule, "Give --prompt TEXT, or --file with a prompt on each line"))
    return prompts


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        rule = f"cannot be read: {error}"
        raise SpecError(Problem(f"--file {name}", rule, "Give a text file with a prompt on each line")) from error
