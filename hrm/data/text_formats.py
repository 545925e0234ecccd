"""From a record of a source to documents: texts in pieces, of which some are scored and some are prompt.

`plain` takes a field as it is, `instruction` fills a template, `chat` writes conversations. A record may give several
documents (the threads of a tree); they always are in one split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hrm.errors import Problem, SpecError
from hrm.spec import Spec

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a document."""

    text: str
    scored: bool


Document = tuple[Piece, ...]
LossOn = Literal["all", "response"]


def _template(value: str) -> str:
    try:
        names = [name for _, name, _, _ in Formatter().parse(value) if name is not None]
    except ValueError as error:
        raise ValueError(f"must be a template, got {value!r}: {error}. Write {{{{ and }}}} for braces") from error
    if wrong := [name for name in names if not name.isidentifier()]:
        raise ValueError(f"must name fields in braces, got {{{wrong[0]}}}. Name a field of the records")
    return value


Template = Annotated[str, AfterValidator(_template)]


class PlainFormat(Spec):
    """The text of one field, all of it scored."""

    kind: Literal["plain"] = "plain"
    field: str = "text"
    join: str | None = None
    """Records are lines or pages of one text: they are joined by this. null: each is a document."""

    def documents(self, record: Record, place: str, loss_on: LossOn) -> Iterator[Document]:
        """One document. Raises SpecError for a record without the field."""
        yield (Piece(_text(record, (self.field,), place), True),)

    def prompt(self, text: str) -> str:
        """What a model goes on from: the text itself."""
        return text


class InstructionFormat(Spec):
    """A prompt made of the record's fields, and the response.

    A template names fields of the record in braces; `{instruction}` and `{input}` are those that the recipe says.
    """

    kind: Literal["instruction"] = "instruction"
    instruction: str = "instruction"
    input: str | None = None
    """null: `input` (Alpaca) or `context` (Dolly), whichever the record has, or none."""
    response: str | None = None
    """null: `output` (Alpaca) or `response` (Dolly)."""
    template: Template = "### Instruction:\n{instruction}\n\n### Response:\n"
    template_with_input: Template = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    """For records whose input is not empty."""

    def documents(self, record: Record, place: str, loss_on: LossOn) -> Iterator[Document]:
        """The prompt and the response. Raises SpecError for a field that the record lacks."""
        instruction = _text(record, (self.instruction,), place)
        response = _text(record, (self.response,) if self.response else ("output", "response"), place)
        names = (self.input,) if self.input else tuple(name for name in ("input", "context") if name in record)[:1]
        given = _text(record, names, place) if names else ""
        fields = {**record, "instruction": instruction, "input": given}
        try:
            prompt = (self.template_with_input if given.strip() else self.template).format_map(fields)
        except KeyError as error:
            raise _lacks(record, (str(error.args[0]),), place) from error
        # Without a response nothing is scored: the document is dropped as empty.
        yield (Piece(prompt, loss_on == "all" and bool(response.strip())), Piece(response, True))

    def prompt(self, text: str) -> str:
        """An instruction without input, up to where the response starts. Raises SpecError for a template that names
        further fields."""
        try:
            return self.template.format_map({"instruction": text, "input": ""}) if text.strip() else ""
        except KeyError as error:
            rule = f"its template names the field {error.args[0]}, which a prompt does not have"
            raise SpecError(Problem("format", rule, "Write the whole prompt yourself and say --raw")) from error


ROLES = {
    "system": ("system",),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "bot", "model"),
}
"""Our name of a role, and the names that it has in data."""
Message = tuple[str, str]
"""Role and text."""


class ChatFormat(Spec):
    """Conversations: lists of messages, trees of them as OASST exports them, or transcripts in one text."""

    kind: Literal["chat"] = "chat"
    shape: Literal["messages", "tree", "transcript"] = "messages"
    field: str | None = None
    """Where the conversation is; null: `messages`, `prompt` (of a tree) or `transcript`."""
    role: str = "role"
    content: str = "content"
    """The names in a message; in a tree `text` is the content."""
    human_mark: str = "\n\nHuman:"
    assistant_mark: str = "\n\nAssistant:"
    """What starts a turn in a transcript."""
    system: Template = "\n\nSystem: {content}"
    user: Template = "\n\nHuman: {content}"
    assistant: Template = "\n\nAssistant: {content}"
    """How a turn is written. What comes before the content is never a response; what comes after it is."""

    @model_validator(mode="after")
    def _templates_hold_the_content(self) -> Self:
        for name in ROLES:
            if (template := getattr(self, name)).count("{content}") != 1:
                raise ValueError(f"{name} must hold {{content}} once, got {template!r}. Put it where the text goes")
        return self

    def documents(self, record: Record, place: str, loss_on: LossOn) -> Iterator[Document]:
        """The conversations of a record. Raises SpecError for a record of another shape."""
        name = self.field or {"messages": "messages", "tree": "prompt", "transcript": "transcript"}[self.shape]
        if name not in record:
            raise _lacks(record, (name,), place)
        match self.shape:
            case "messages":
                yield self._written(self._listed(record[name], f"{place}: {name}"), loss_on)
            case "transcript":
                yield self._written(self._transcribed(_text(record, (name,), place), place), loss_on)
            case "tree":
                for messages, known in _threads(record[name], f"{place}: {name}"):
                    yield self._written(messages, loss_on, known)

    def prompt(self, text: str) -> str:
        """A conversation of one user's turn, up to where the assistant's words start."""
        if not text.strip():
            return ""
        mark = self.assistant.split("{content}")[0].rstrip(" ")
        return "".join(piece.text for piece in self._written([("user", text)], "all")) + mark

    def _written(self, messages: list[Message], loss_on: LossOn, known: int = 0) -> Document:
        """Pieces of the turns; the first `known` messages are context only."""
        pieces: list[Piece] = []
        for number, (role, content) in enumerate(messages):
            before, after = getattr(self, role).split("{content}")
            mark = before.rstrip(" ")  # tokens of words hold the space before them
            new = number >= known
            pieces.append(Piece(mark, new and loss_on == "all"))
            text = before[len(mark) :] + content.strip() + after
            pieces.append(Piece(text, new and (loss_on == "all" or role == "assistant")))
        return tuple(pieces)

    def _listed(self, messages: Any, place: str) -> list[Message]:
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise SpecError(Problem(place, "must be a list of messages", "Correct format.field or format.shape"))
        return [
            (
                _role(_text(m, (self.role,), f"{place}[{n}]"), f"{place}[{n}]"),
                _text(m, (self.content,), f"{place}[{n}]"),
            )
            for n, m in enumerate(messages)
        ]

    def _transcribed(self, transcript: str, place: str) -> list[Message]:
        marks = {self.human_mark.strip(): "user", self.assistant_mark.strip(): "assistant"}
        pattern = "|".join(re.escape(mark) for mark in (self.human_mark, self.assistant_mark))
        # The first turn may stand without the line ends that its mark starts with.
        first = f"^(?:{'|'.join(map(re.escape, marks))})"
        parts = re.split(f"({first}|{pattern})", transcript.strip())
        if len(parts) == 1 and parts[0]:
            rule = f"a transcript must hold a turn that starts with one of {', '.join(marks)}, got {parts[0][:40]!r}"
            raise SpecError(Problem(place, rule, "Correct format.human_mark and format.assistant_mark"))
        turns = zip(parts[1::2], parts[2::2], strict=True)
        return [(marks[mark.strip()], text) for mark, text in turns if text.strip()]


def _threads(root: Any, place: str) -> Iterator[tuple[list[Message], int]]:
    """The threads from the root to an assistant's message without a later one, and how many of its first messages an
    earlier thread held too: each message is scored once."""
    if not isinstance(root, dict) or "replies" not in root:
        raise SpecError(Problem(place, "must be a message with `replies`", "Correct format.field or format.shape"))
    written: set[int] = set()
    stack = [[root]]
    while stack:
        thread = stack.pop()
        replies = [reply for reply in thread[-1].get("replies") or [] if not reply.get("deleted")]
        if replies:
            stack += [[*thread, reply] for reply in reversed(replies)]
            continue
        roles = [_role(_text(message, ("role",), place), place) for message in thread]
        while roles and roles[-1] != "assistant":  # nobody answered
            roles.pop()
        thread = thread[: len(roles)]
        known = sum(id(message) in written for message in thread)
        if known < len(thread):
            written.update(id(message) for message in thread)
            yield [(role, _text(message, ("text",), place)) for role, message in zip(roles, thread, strict=True)], known


def _role(name: str, place: str) -> str:
    for role, names in ROLES.items():
        if name.lower() in names:
            return role
    known = ", ".join(name for names in ROLES.values() for name in names)
    raise SpecError(Problem(place, f"a role must be one of {known}, got {name!r}", "Correct the data"))


def _text(record: Mapping[str, Any], names: tuple[str, ...], place: str) -> str:
    """The first of these fields that the record has; null is empty."""
    for name in names:
        if name in record:
            value = record[name]
            if value is not None and not isinstance(value, str):
                rule = f"{name} must be text, got {type(value).__name__}"
                raise SpecError(Problem(place, rule, "Name another field in the recipe's format"))
            return value or ""
    raise _lacks(record, names, place)


def _lacks(record: Mapping[str, Any], names: tuple[str, ...], place: str) -> SpecError:
    rule = f"has no field {' or '.join(names)}; its fields are {', '.join(map(str, record)) or 'none'}"
    return SpecError(Problem(place, rule, "Name the field in the recipe's format"))


FormatSpec = Annotated[PlainFormat | InstructionFormat | ChatFormat, Field(discriminator="kind")]
