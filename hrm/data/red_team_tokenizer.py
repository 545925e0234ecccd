"""The red-team conversations' words as a tokenizer, so that a person can write one and a model can go on with it.

A turn is written as it is shown, `user: text` on a line of its own; `<user> text` is the same. What is decoded is what
`RedTeamSpec.render` shows, and encodes to the same tokens again.
"""

from __future__ import annotations

from hrm.data.red_team_turns import END, PAD, ROLES, UNKNOWN
from hrm.data.tokenizing import TextTokenizer

_WORD = r"<\w+>|\w+|[^\w\s]"
"""A role or a special token as it is stored, a word, or one character of punctuation."""


def conversation_tokenizer(vocabulary: list[str]) -> TextTokenizer:
    """The tokenizer of a built dataset's vocabulary. A conversation starts with a role: no token is before it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.WordLevel({word: token for token, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(rf"^\s*{name}\s*:"), f" {token} ") for token, name in ROLES.items()]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    backend.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # a space between two tokens; no word starts with ##
            *(decoders.Replace(f" {token}", f"\n{name}:") for token, name in ROLES.items()),
            *(decoders.Replace(token, f"{name}:") for token, name in ROLES.items()),
        ]
    )
    backend.add_special_tokens([PAD, END])
    by_word = {word: token for token, word in enumerate(vocabulary)}
    return TextTokenizer(backend, None, by_word[END], by_word[PAD], by_word[UNKNOWN])
