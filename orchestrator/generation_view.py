"""What a person sees of `generate`: the next tokens as a table, and texts, of which one alone appears as it is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.numbers import plural
from hrm.data.tokenizing import TextTokenizer
from hrm.generate import Continuation, Ending, Step, continuations
from hrm.prompts import Prompt


class GenerationView:
    """Shows steps on the terminal."""

    def __init__(self, tokenizer: TextTokenizer, prompts: Sequence[Prompt], most: int) -> None:
        """most: tokens that were asked for."""
        self._tokenizer, self._prompts, self._most = tokenizer, prompts, most
        self._console = Console(highlight=False, soft_wrap=True)

    def show(self, steps: Iterable[Step]) -> None:
        """All of them."""
        if len(self._prompts) == 1:
            self._as_they_come(steps)
        else:
            self._blocks(list(steps))

    def _as_they_come(self, steps: Iterable[Step]) -> None:
        prompt, tokens, shown = self._prompts[0], list[int](), ""
        for step in steps:
            if step.number == 0:
                self._next_tokens(step.top[0])
                shown = self._tokenizer.decode(prompt.tokens)
                self._write(shown, "dim")
            ended = step.ended.get(0)
            if ended != "end":
                tokens.append(step.tokens[0])
            text = self._tokenizer.decode([*prompt.tokens, *tokens])
            # A character of several bytes may be half there.
            if ended or not text.endswith("\N{REPLACEMENT CHARACTER}"):
                self._write(text[len(shown) :])
                shown = text
            if ended:
                self._end(len(tokens), ended)

    def _blocks(self, steps: Sequence[Step]) -> None:
        first = {row: step for step in reversed(steps) for row in step.rows}
        for row, (prompt, found) in enumerate(zip(self._prompts, continuations(steps), strict=True)):
            self._console.rule(f"prompt {row + 1}", align="left")
            self._next_tokens(first[row].top[first[row].rows.index(row)])
            self._block(prompt, found)

    def _block(self, prompt: Prompt, found: Continuation) -> None:
        start = self._tokenizer.decode(prompt.tokens)
        self._write(start, "dim")
        self._write(self._tokenizer.decode([*prompt.tokens, *found.tokens])[len(start) :])
        self._end(len(found.tokens), found.ending)

    def _next_tokens(self, top: Sequence[tuple[int, float]]) -> None:
        if not top:
            return
        table = Table("next token", "probability", box=None, pad_edge=False)
        for token, probability in top:
            table.add_row(Text(repr(_safe(self._tokenizer.written(token)))), f"{probability:.4f}")
        self._console.print(table)
        self._console.print()

    def _end(self, count: int, ending: Ending) -> None:
        full = "as many as were asked for" if count == self._most else "all that the model has room for"
        why = "then the end" if ending == "end" else full
        self._console.print(f"\n\n[dim]{plural(count, 'token')}, {why}[/]")

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(Text(_safe(text), style=style), end="")
        self._console.file.flush()


def _safe(text: str) -> str:
    """Without what would move a terminal's cursor: a model of bytes may say anything."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
