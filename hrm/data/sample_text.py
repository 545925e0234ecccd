"""A small text written for this project, and questions about it, so that text tasks can be tried without any file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from hrm.data.tag_lists import tag_lists

SampleName = Literal["prose", "tags"]
NUM_LISTS = 600
"""Lists of tags in the sample."""

SAMPLE = (
    "The ferry leaves the island at six in the morning, when the harbour is still dark and the gulls are asleep.",
    "Marta keeps a notebook of the weather. Wind from the west means rain by noon; wind from the north means fish.",
    "Nobody remembers who built the stone stair. It has ninety-one steps, and the last one is higher than the rest.",
    "In winter the baker heats two ovens: one for bread, and one for the people who come in to warm their hands.",
    "The old lamp in the tower burned oil, then gas, then nothing at all. Now a small machine blinks in its place.",
    "A map on the wall of the school shows the bay before the storm. The children look for the house that is gone.",
    "When the tide is low you can walk to the wreck. Take boots, take a friend, and be back before the bell rings.",
    "The post comes twice a week. Letters are read aloud in the shop, unless the envelope says otherwise.",
    "My grandfather counted boats. He never said why, but in forty years he did not miss an evening.",
    "There is one road, and it goes round. Whoever walks long enough meets everybody, and finally himself.",
    "On the first of May the nets are washed and hung between the houses, and the whole village smells of salt.",
    "The doctor rows over from the mainland. If the sea is rough she shouts her advice from the boat.",
    "A good knot holds when it must and opens when you ask it to. The same is true of a promise, said the sailmaker.",
    "They planted apple trees behind the church, against all advice. Four of them live, and one bears fruit.",
    "At night the water in the bay glows where the oars touch it. Visitors think that it is a trick.",
    "The teacher asks: how far is the horizon? As far as you can see, says Jonas, and then a little more.",
    "Every house has a bucket by the door. It is for fire, for rain, and for the dog of the neighbour.",
    "The café closes when the last guest has finished the story, which may be at nine or at two.",
    "Fog arrives like a guest who does not knock. First the far rocks are gone, then the pier, then your own feet.",
    "In the year of the long frost people crossed to the mainland on foot, with sledges, singing so as not to be lost.",
    "The clock of the church is eleven minutes slow. The ferry knows this and waits; the train does not.",
    "Sheep know the paths better than we do. If you are lost, sit down until one walks past, and follow it.",
    "Two brothers share a boat and have not spoken since spring. They fish very well together.",
    "What the sea takes in autumn it brings back in March: planks, bottles, once a piano with nine keys.",
)
"""Documents."""
INSTRUCTIONS = (
    {"instruction": "When does the ferry leave the island?", "output": "At six in the morning."},
    {"instruction": "What does wind from the west mean?", "output": "Rain by noon."},
    {"instruction": "What does wind from the north mean?", "output": "Fish."},
    {"instruction": "How many steps has the stone stair?", "output": "Ninety-one."},
    {"instruction": "Who built the stone stair?", "output": "Nobody remembers."},
    {"instruction": "How many ovens does the baker heat in winter?", "output": "Two."},
    {"instruction": "What did the lamp in the tower burn first?", "output": "Oil."},
    {"instruction": "What did the lamp in the tower burn after oil?", "output": "Gas."},
    {"instruction": "What does the map on the wall of the school show?", "output": "The bay before the storm."},
    {"instruction": "When can you walk to the wreck?", "output": "When the tide is low."},
    {"instruction": "How often does the post come?", "output": "Twice a week."},
    {"instruction": "Where are letters read aloud?", "output": "In the shop."},
    {"instruction": "What did my grandfather count?", "output": "Boats."},
    {"instruction": "How many roads are there?", "output": "One, and it goes round."},
    {"instruction": "On which day are the nets washed?", "output": "On the first of May."},
    {"instruction": "Where does the doctor row over from?", "output": "From the mainland."},
    {"instruction": "When does a good knot open?", "output": "When you ask it to."},
    {"instruction": "How many of the apple trees live?", "output": "Four."},
    {"instruction": "What glows where the oars touch it?", "output": "The water in the bay."},
    {"instruction": "What stands by the door of every house?", "output": "A bucket."},
    {"instruction": "When does the café close?", "output": "When the last guest has finished the story."},
    {"instruction": "How slow is the clock of the church?", "output": "Eleven minutes."},
    {"instruction": "Who knows the paths better than we do?", "output": "Sheep."},
    {"instruction": "What does the sea bring back in March?", "output": "Planks, bottles, a piano with nine keys."},
)
"""Records in Alpaca's columns, about these documents."""


def sample_texts(name: SampleName) -> Iterator[str]:
    """The documents of a sample: prose, or lists of tags."""
    return iter(SAMPLE) if name == "prose" else tag_lists(NUM_LISTS, 0)
