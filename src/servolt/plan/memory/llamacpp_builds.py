"""What changed from build to build of llama.cpp and its fork."""

import re
from functools import cache
from typing import Literal, NamedTuple

from servolt.plan.memory.profiles import Profile, profile_of

__all__ = ["Build", "build_of"]

# The first word that is b6895, or numbers and dots such as xllamacpp's 2026.10.11549. "2026" is a year, and no build.
BUILD = re.compile(r"b(\d{3,6})|v?(?:\d+\.)*(\d{4,6})")
YEARS = range(2023, 2040)


class Build(NamedTuple):
    """How one build keeps its memory. `number` is None where it is not known: the newest stands in for it."""

    number: int | None
    flash_by_default: bool
    window_cells: bool  # sliding layers keep a window of cells only
    latent: Literal["expanded", "keys_and_values", "keys"]  # of MLA
    half_mask: bool  # 16 bits where flash attention runs
    all_logits: bool  # room for the logits of every token of a pass
    counts_output: bool  # the output layer is the first to go to the devices
    input_rows: int  # of the model's width, that the host hands to the first device
    has_mla_modes: bool
    moves_large_batches: bool  # weights on the host are copied to a device to multiply long batches


@cache
def build_of(engine: str, version: str | None) -> Build:
    """By build number: b6895, 6895, or the last part of xllamacpp's 2026.10.11549."""
    number = _number(version) if engine == "llamacpp" else None
    profile = profile_of(engine, None if number is None else f"b{number}")
    assert profile is not None, engine
    return _made(number, profile)


def _number(version: str | None) -> int | None:
    for word in re.findall(r"[\w.]+", version or ""):
        match = BUILD.fullmatch(word)
        if match is not None and (match[1] or int(match[2]) not in YEARS):
            return int(match[1] or match[2])
    return None


def _made(number: int | None, profile: Profile) -> Build:
    return Build(
        number=number,
        flash_by_default=profile.flag("flash_by_default"),
        window_cells=profile.flag("window_cells"),
        latent=profile.value("latent"),
        half_mask=profile.flag("half_mask"),
        all_logits=profile.flag("all_logits"),
        counts_output=profile.flag("counts_output"),
        input_rows=int(profile.number("input_rows")),
        has_mla_modes=profile.flag("has_mla_modes"),
        moves_large_batches=profile.flag("moves_large_batches"),
    )
