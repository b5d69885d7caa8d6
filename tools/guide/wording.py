"""Ways to ask: generic wordings per kind of topic, those held out of training, and the noise of real typing."""

import random
import re
from collections.abc import Sequence

from tools.guide.topics import Topic

__all__ = [
    "COMMAND",
    "REVERSED",
    "TERM",
    "held_out_wordings",
    "loose_wording",
    "normalised",
    "reversed_wording",
    "training_wordings",
    "typed_by_a_person",
]

TERM = (
    "What is {x}?",
    "What is a {x}?",
    "What is the {x}?",
    "What's {x}?",
    "What are {x}?",
    "What does {x} mean?",
    "What does {x} stand for?",
    "What is meant by {x}?",
    "What do you mean by {x}?",
    "What do you know about {x}?",
    "What is the meaning of {x}?",
    "What is the definition of {x}?",
    "What kind of thing is {x}?",
    "Define {x}.",
    "Definition of {x}",
    "Meaning of {x}",
    "Explain {x}.",
    "Explain {x} to me.",
    "Explain the term {x}.",
    "Explain what {x} is.",
    "Describe {x}.",
    "Describe {x} in a sentence.",
    "Tell me about {x}.",
    "Tell me what {x} is.",
    "Tell me what {x} means.",
    "Can you explain {x}?",
    "Can you explain {x} to me?",
    "Can you tell me what {x} is?",
    "Could you tell me about {x}?",
    "Could you define {x}?",
    "I don't understand {x}.",
    "I don't know what {x} is.",
    "I want to know what {x} is.",
    "I keep reading about {x}. What is it?",
    "I have a question about {x}.",
    "Do you know what {x} is?",
    "Do you know {x}?",
    "Have you heard of {x}?",
    "How do you define {x}?",
    "How would you explain {x}?",
    "How does {x} work?",
    "Why does {x} matter?",
    "Where does the word {x} come up?",
    "Someone asked me about {x}.",
    "Say something about {x}.",
    "Teach me about {x}.",
    "What about {x}?",
    "And {x}?",
    "{x}",
    "{x}?",
    "{x} meaning",
    "{x} definition",
    "{x} explained",
    "{x}, please.",
)
TERM_HELD_OUT = (
    "How would you describe {x}?",
    "Give me the definition of {x}.",
    "What exactly is {x}?",
    "Help me understand {x}.",
    "In simple words, what is {x}?",
    "What should I know about {x}?",
    "What do people mean by {x}?",
    "I never got what {x} is about.",
    "Please give a short explanation of {x}.",
    "My colleague talks about {x}, what does that mean?",
)
COMMAND = (
    "What does {x} do?",
    "What does servolt {x} do?",
    "What does the {x} command do?",
    "What does the command {x} do?",
    "What is {x}?",
    "What is servolt {x}?",
    "What is the {x} command?",
    "What is {x} for?",
    "What is servolt {x} for?",
    "What is the {x} command for?",
    "What happens when I run servolt {x}?",
    "What can I do with {x}?",
    "What can servolt {x} do?",
    "When do I use {x}?",
    "When do I need servolt {x}?",
    "When should I run servolt {x}?",
    "Why would I use {x}?",
    "How does {x} work?",
    "How does servolt {x} work?",
    "How do I use {x}?",
    "How do I use servolt {x}?",
    "Explain {x}.",
    "Explain servolt {x}.",
    "Explain the {x} command.",
    "Describe {x}.",
    "Describe servolt {x}.",
    "Tell me about {x}.",
    "Tell me about servolt {x}.",
    "Tell me about the {x} command.",
    "Tell me what {x} does.",
    "Can you explain {x}?",
    "Can you explain servolt {x} to me?",
    "I don't understand the {x} command.",
    "I don't know what {x} does.",
    "Do you know what servolt {x} does?",
    "Help with {x}",
    "Help for servolt {x}",
    "servolt {x}",
    "servolt {x}?",
    "{x}",
    "{x}?",
    "the {x} command",
    "And {x}?",
    "What about {x}?",
)
COMMAND_HELD_OUT = (
    "What exactly does {x} do?",
    "What is the purpose of servolt {x}?",
    "Help me understand the {x} command.",
    "In simple words, what does {x} do?",
    "Give me a short description of servolt {x}.",
    "What will servolt {x} do for me?",
    "What should I know about servolt {x}?",
)
REVERSED = (
    "What do you call {x}?",
    "What is the word for {x}?",
    "What is the name for {x}?",
    "Which term means {x}?",
    "Which word stands for {x}?",
    "Which thing is {x}?",
    "What is it called: {x}?",
    "What is {x} called?",
    "{x}, what is that?",
    "What has to do with {x}?",
    "Which one is about {x}?",
)
TRAINING = {"term": TERM, "command": COMMAND, "plain": ()}
HELD_OUT = {"term": TERM_HELD_OUT, "command": COMMAND_HELD_OUT, "plain": ()}

FILLERS = (
    "again", "also", "am", "and", "answer", "ask", "because", "book", "boss", "but", "day", "do", "ever", "few",
    "find", "first", "for", "friend", "from", "good", "heard", "here", "idea", "if", "is", "it", "just", "last",
    "learn", "like", "little", "long", "made", "me", "more", "my", "need", "new", "now", "of", "often", "on", "one",
    "our", "paper", "person", "please", "point", "quick", "read", "really", "right", "saw", "say", "see",
    "sentence", "some", "talk", "team", "tell", "text", "that", "the", "their", "then", "there", "thing", "think",
    "this", "to", "today", "use", "want", "was", "way", "we", "week", "were", "what", "when", "which", "who", "why",
    "with", "word", "work", "would", "write", "yesterday", "you", "your",
)  # fmt: skip
OPENERS = (
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "Please: ",
    "Ok, ",
    "So, ",
    "Sorry, ",
    "Quick question: ",
    "One more thing: ",
    "I read this today. ",
    "My boss asked me: ",
    "Next: ",
    "Another one: ",
    "Good. ",
    "Thanks. ",
    "Now ",
)
CLOSERS = (" Thanks.", " Thank you!", " Please.", " I am new to this.", " Keep it short.")


def training_wordings(topic: Topic) -> list[str]:
    """Every wording of a topic that may be trained on; the first is its canonical question."""
    generic = [template.format(x=name) for name in topic.names for template in TRAINING[topic.kind]]
    return [*generic, *topic.ask] if topic.kind != "plain" else list(topic.ask)


def reversed_wording(topic: Topic, rng: random.Random) -> str:
    """A question that names a part of the answer and asks what it belongs to."""
    words = re.findall(r"[^\s:;,.]+", topic.answer)
    length = min(len(words), rng.randrange(4, 11))
    start = rng.randrange(len(words) - length + 1)
    return rng.choice(REVERSED).format(x=" ".join(words[start : start + length]))


def loose_wording(name: str, others: Sequence[str], rng: random.Random) -> str:
    """A name between common words in no order: what is asked about is the name, whatever stands around it."""

    def filler() -> str:
        return rng.choice(FILLERS if rng.random() < 0.8 else others)

    before = [filler() for _ in range(rng.randrange(7))]
    after = [filler() for _ in range(rng.randrange(5))]
    sentence = " ".join((*before, name, *after)) + rng.choice(("?", ".", ""))
    return sentence[0].upper() + sentence[1:]


def held_out_wordings(topic: Topic) -> list[str]:
    """The topic's own held-out questions, then the generic ones for each of its names."""
    generic = [template.format(x=name) for name in topic.names for template in HELD_OUT[topic.kind]]
    return [*topic.held_out, *generic]


def normalised(question: str) -> str:
    """Lower-case words only, so that a comma or a capital does not make a held-out question count as another one."""
    return " ".join(re.findall(r"[a-z0-9]+", question.lower()))


def typed_by_a_person(question: str, rng: random.Random) -> str:
    """The question as people type it: other case, no punctuation, a greeting, now and then a slip of a finger."""
    roll = rng.random
    if roll() < 0.12:
        question = rng.choice(OPENERS) + question
    if roll() < 0.06:
        question = question + rng.choice(CLOSERS)
    if roll() < 0.30:
        question = question.rstrip("?.!")
    if roll() < 0.35:
        question = question.lower()
    elif roll() < 0.03:
        question = question.upper()
    if roll() < 0.08:
        question = _slip(question, rng)
    if roll() < 0.03:
        question += rng.choice(("??", "!", "...", " ?"))
    return question


def _slip(text: str, rng: random.Random) -> str:
    if len(text) < 12:
        return text
    at = rng.randrange(1, len(text) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
