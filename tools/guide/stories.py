"""Short stories from templates: something long to generate when speed is measured."""

import random

__all__ = ["story_turn"]

HEROES = (
    "robot", "fox", "snail", "lamp", "kettle", "owl", "turtle", "clock", "penguin", "train", "boat", "cat", "dog",
    "mouse", "teapot", "bridge", "windmill", "bear", "rabbit", "server", "computer", "graphics card", "token", "queue",
    "cable", "fan", "battery", "disk", "whale", "crow", "pencil", "bicycle", "tractor", "goat", "dragon", "cloud",
)  # fmt: skip
TRAITS = ("small", "quiet", "curious", "old", "patient", "tired", "careful", "brave", "slow", "polite", "shy", "clever")
PLACES = (
    "in a valley", "on a hill", "near the sea", "in a machine room", "under a bridge", "at the end of a long road",
    "in a library", "behind the station", "in a warm attic", "by the river",
)  # fmt: skip
WISHES = (
    "to count the stars", "to see the sea", "to find out how long a minute is", "to learn to sing", "to be the fastest",
    "to send a letter to the moon", "to know what the wind weighs", "to build a tower", "to sleep for a whole week",
)  # fmt: skip
FRIENDS = ("beetle", "lantern", "sparrow", "wheel", "hedgehog", "door", "spoon", "frog", "ladder", "pebble")
PROBLEMS = (
    "the lights went out", "a storm came up", "the road was closed", "the bell did not ring", "the map got wet",
    "nobody knew the way", "the numbers did not add up", "the snow would not stop",
)  # fmt: skip
DEEDS = (
    "waited until morning", "tried it three times", "asked for help", "took the long way round", "measured it again",
    "drew a new map", "shared the last biscuit", "made a list and followed it",
)  # fmt: skip
ENDINGS = (
    "It was not fast, but it was enough.", "From then on they did it together.", "And nobody was late again.",
    "The next day they began all over.", "It wrote the number down, and the error beside it.",
    "Then everyone went home and slept well.",
)  # fmt: skip
LESSONS = (
    "So it learned that waiting is also work.", "So it learned that one try proves little.",
    "So it learned to ask before it ran.", "So it learned that small steps add up.",
)  # fmt: skip
MIDDLES = (
    "On the way it met a {friend}. \"Where are you going?\" asked the {friend}. \"I want {wish},\" said the {hero}.",
    "A {friend} lived next door. The {friend} said that nobody had ever done it, and came along all the same.",
    "One evening {problem}. The {hero} was afraid for a moment, and then it {deed}.",
    "For three days nothing happened. On the fourth day {problem}, and the {friend} laughed.",
    "The {hero} {deed}. The {friend} watched and said nothing.",
    "At night the {hero} dreamed of it, and in the morning it {deed}.",
)  # fmt: skip
ASKS = (
    "Tell me a story about a {x}.", "Tell me a story about the {x}.", "Write a story about a {x}.",
    "Write a short story about a {x}.", "Can you tell a story about a {x}?", "I want a story about a {x}.",
    "A story about a {x}, please.", "story about a {x}", "Make up a story about a {x}.",
)  # fmt: skip
PLAIN_ASKS = (
    "Tell me a story.", "Tell me a short story.", "Write a story.", "Can you tell me a story?", "story please",
    "Write something.", "Write a text for me.", "Do you know a story?",
)  # fmt: skip
LONG_ASKS = (
    "Tell me a long story about a {x}.", "Write a long story about a {x}.", "Write a long text about a {x}.",
    "I want a very long story about a {x}.",
)  # fmt: skip


def story_turn(rng: random.Random) -> tuple[str, str]:
    """A request and its story, 50 to 190 tokens."""
    hero = rng.choice(HEROES)
    if rng.random() < 0.1:
        return rng.choice(LONG_ASKS).format(x=hero), _story(hero, rng.choice((4, 5, 6)), rng)
    asks = ASKS if rng.random() < 0.8 else PLAIN_ASKS
    return rng.choice(asks).format(x=hero), _story(hero, rng.choice((1, 2)), rng)


def _story(hero: str, middles: int, rng: random.Random) -> str:
    parts = {"hero": hero, "friend": rng.choice(FRIENDS), "wish": rng.choice(WISHES)}
    opening = f"Once there was a {rng.choice(TRAITS)} {hero} {rng.choice(PLACES)}. It wanted {parts['wish']}."
    told = [
        middle.format(**parts, problem=rng.choice(PROBLEMS), deed=rng.choice(DEEDS))
        for middle in rng.sample(MIDDLES, middles)
    ]
    return " ".join((opening, *told, rng.choice(LESSONS), rng.choice(ENDINGS)))
