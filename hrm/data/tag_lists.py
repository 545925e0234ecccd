"""Lists of tags, as people put them under pictures: the tags of a list are of one topic, in any order, none twice.

What comes next is open but for the topic and what was already named, so that they ask for something else than prose.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

TOPICS = (
    ("harbour", "ferry", "pier", "gull", "anchor", "net", "rope", "tide", "lighthouse", "mast"),
    ("bread", "oven", "flour", "yeast", "crust", "baker", "dough", "basket", "breakfast", "rye"),
    ("winter", "snow", "frost", "sledge", "scarf", "ice", "candle", "stove", "mitten", "fog"),
    ("orchard", "apple", "pear", "ladder", "bee", "blossom", "hedge", "grass", "cider", "autumn"),
    ("school", "chalk", "map", "bell", "bench", "pupil", "ink", "lesson", "ruler", "globe"),
    ("mountain", "ridge", "goat", "hut", "trail", "boots", "summit", "cloud", "pine", "stream"),
    ("market", "stall", "cheese", "honey", "scales", "crowd", "coin", "umbrella", "flowers", "fish"),
    ("music", "violin", "choir", "drum", "piano", "stage", "score", "dance", "trumpet", "waltz"),
)
FEWEST, MOST = 5, 8
"""Tags of a list."""


def tag_lists(count: int, seed: int, topics: Sequence[Sequence[str]] = TOPICS, between: str = ", ") -> Iterator[str]:
    """So many lists, a function of the seed."""
    # Of Python's generator only `random()` is promised to give the same numbers in every version.
    rng = random.Random(seed)
    for _ in range(count):
        tags = list(topics[int(rng.random() * len(topics))])
        most = min(MOST, len(tags))
        length = min(FEWEST, most) + int(rng.random() * (most - min(FEWEST, most) + 1))
        yield between.join(tags.pop(int(rng.random() * len(tags))) for _ in range(length))
