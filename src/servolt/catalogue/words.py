"""What is in a device's name as a driver, a log, a vendor or a person writes it."""

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["TELLING", "Name", "read_name", "split_names", "words_of"]

GIB = 2**30

# Words that name no device. What is left decides; a number or one of TELLING left over means another device.
_SAID_OF_ALL = """
    nvidia amd intel apple google aws amazon ati corporation inc geforce tesla instinct radeon gpu gpus graphics card
    cards class generation edition accelerator accelerators virtualized virtual only under wsl visible total unknown
    about the with before load of one two dies processor tm r c oam vf and integrated discrete cores core
"""
# Words that make another device of a name: the rest of what vendors and makers add (Turbo, Gaming, FE ...) does not.
_SAID_OF_SOME = """
    ti super d s g x xt xtx gre max pro ultra mini nano nx laptop sxm pcie pci nvl ada server q a m e k h v u le gt
    rtx gtx rx arc titan quadro spark thor orin se ws workstation hs hx xe sff dual lite gb mi tpu mig
"""
_NOISE = frozenset(_SAID_OF_ALL.split())
TELLING = frozenset(_SAID_OF_SOME.split())

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*-?\s*(tib|tb|gib|gb|gig|g|mib|mb)(?![a-z0-9])")
_SCALE = {"tib": 2**40, "tb": 2**40, "gib": GIB, "gb": GIB, "gig": GIB, "g": GIB, "mib": 2**20, "mb": 2**20}
_COUNT = (
    re.compile(r"^\W*(\d{1,3})\s*[x×*]\s*(?=[a-z\[])"),
    re.compile(r"[\s(]\(?[x×*]\s*(\d{1,3})\)?\s*$"),
    re.compile(r"(?<=[a-z0-9])\s*:\s*(\d{1,3})\s*$"),
    re.compile(r"(?<=\d)[x×](\d{1,2})\s*$"),
)
_CORES = re.compile(r"(\d+)[\s-]*cores?\s*(gpu|cpu|processor)?|\b(\d{1,3})c\b")
_MEMORY = re.compile(r"\b(?:hbm|gddr|lpddr|ddr|mrdimm)-?\d*[a-z]*\b")
_CLOCK = re.compile(r"@?\s*\d+(?:\.\d+)?\s*[gm]hz")
_ASIDE = re.compile(
    r"\([^)]*\bfree\b[^)]*\)|\bmacbook (?:pro|air)\b|\bmac (?:studio|mini|pro)\b|\bimac(?: pro)?\b|"
    r"\bw/.*$|\bwsl\s*2?\b|\(tm\)|\(r\)|\d+th gen\b|[®™]"
)
_WORD = re.compile(r"[a-z]+|\d+")
_FORMS = {"mobile": "laptop", "notebook": "laptop", "qmax": "maxq"}


@dataclass(frozen=True)
class Name:
    """`words` are what tells devices apart, in order; the rest is what was said beside them."""

    words: tuple[str, ...]
    count: int = 1
    memory_bytes: float | None = None
    visible: bool = False  # the memory is what a driver or an engine printed, not a label
    cores: int | None = None


def words_of(text: str) -> list[str]:
    """Letters and digits apart: `RTX4090D` and `rtx 4090 d` are the same."""
    return _WORD.findall(text.lower())


def split_names(text: str) -> list[str]:
    """The devices of a machine that holds several kinds.

    >>> split_names("NVIDIA GeForce RTX 4090; NVIDIA GeForce RTX 5090")
    ['NVIDIA GeForce RTX 4090', 'NVIDIA GeForce RTX 5090']
    """
    return [part for part in (one.strip() for one in re.split(r"(?:;|,\s|\s\+\s|\n)(?![^(]*\))", text)) if part]


def read_name(text: str) -> Name:
    """Labels count memory in GiB whatever they call it: an "80 GB" H100 has 80 GiB.

    >>> read_name("8x NVIDIA H100 80GB HBM3")
    Name(words=('h', '100'), count=8, memory_bytes=85899345920.0, visible=False, cores=None)
    """
    rest = unicodedata.normalize("NFKC", text).lower()
    rest = re.sub(r"(?<=\d),(?=\d{3})", "", _ASIDE.sub(" ", rest))
    count, rest = _taken_count(rest)
    rest = _CLOCK.sub(" ", rest)
    size = _SIZE.search(rest)
    visible = size is not None and re.search(r"\b(visible|total|usable)\b", rest) is not None
    rest = _MEMORY.sub(" ", _SIZE.sub(" ", rest))
    cores = _cores(rest)
    words = _words(_CORES.sub(" ", rest))
    return Name(
        words=words,
        count=count,
        memory_bytes=float(size[1]) * _SCALE[size[2]] if size else None,
        visible=visible,
        cores=cores,
    )


def _taken_count(text: str) -> tuple[int, str]:
    for form in _COUNT:
        found = form.search(text)
        rest = form.sub(" ", text, count=1)
        if found and re.search(r"[a-z]", rest):
            return max(1, int(found[1])), rest
    return 1, text


def _cores(text: str) -> int | None:
    """Of the graphics part: a processor's cores say nothing about it."""
    found = [(int(match[1] or match[3]), match[2]) for match in _CORES.finditer(text)]
    graphics = [number for number, of in found if of == "gpu"] or [number for number, of in found if of is None]
    return graphics[0] if graphics else None


def _words(text: str) -> tuple[str, ...]:
    cut = text.rstrip().endswith(("...", "…"))
    words = [_FORMS.get(word, word) for word in _WORD.findall(text)]
    if cut and words and words[-1].isalpha() and "generation".startswith(words[-1]):
        words.pop()
    kept = [word for word in words if word not in _NOISE]
    for length in (3, 2, 1):  # "Apple M1 M1 Max"
        if len(kept) > length and kept[:length] == kept[length : 2 * length]:
            kept = kept[length:]
    return tuple(kept)
