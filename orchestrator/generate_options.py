"""The options of `generate`, which is imported when it runs."""

from __future__ import annotations

from typing import Any

from orchestrator.commands import CHECKPOINT, AddCommand, later

NEW_TOKENS = 100
"""The most tokens of a continuation where nobody says how many."""


def add_generate_command(commands: Any, add_command: AddCommand) -> None:
    """Add it. `add_command` gives a command the options that all have."""
    text = "let a checkpoint of a causal model go on with texts, and show them as they come"
    generate = add_command(commands, "generate", later("generating:generate_texts"), text)
    generate.add_argument("checkpoint", help=CHECKPOINT)
    generate.add_argument("--prompt", action="append", default=[], help="what to go on from (again for more)")
    generate.add_argument("--file", help="a file with a prompt on each line; -: standard input")
    generate.add_argument("--raw", action="store_true",
                          help="take prompts as they are, outside the recipe's template")  # fmt: skip
    generate.add_argument("--task", help="a recipe in datasets/, or the path of one (default: what it was trained on)")
    generate.add_argument("--max-new-tokens", type=int, default=NEW_TOKENS, metavar="N",
                          help=f"at most (default: {NEW_TOKENS})")  # fmt: skip
    generate.add_argument("--top", type=int, default=0, metavar="N",
                          help="first show the N most likely next tokens with their probabilities")  # fmt: skip
    generate.add_argument("--temperature", type=float, default=0.0,
                          help="0: the most likely token; 1: as likely as the model says (default: 0)")  # fmt: skip
    generate.add_argument("--top-p", type=float, default=1.0, metavar="P",
                          help="only of the most likely tokens that together reach P (default: 1)")  # fmt: skip
    generate.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    generate.add_argument("--segments", type=int, metavar="N", help="so many of each pass (default: as it was trained)")
    generate.add_argument("--state", choices=("reset", "carry"), default="reset",
                          help="start each new token from the initial state, or from where the states of the "
                          "earlier positions ended (default: reset)")  # fmt: skip
    generate.add_argument("--precision", choices=("float32", "bfloat16", "float16"),
                          help="compute in this one; float32 gives the tokens of an exported folder (default: as it "
                          "was trained)")  # fmt: skip
    generate.add_argument("--no-cache", action="store_true", help="compute the whole text for each token: the same, "
                          "slower")  # fmt: skip
    generate.add_argument("--allow-unknown", action="store_true",
                          help="go on where the vocabulary lacks a prompt's words")  # fmt: skip
