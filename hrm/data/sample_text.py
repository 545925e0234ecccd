"""A small text written for this project, so that text tasks can be tried without any file."""

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
