import tomllib
from importlib.resources import files
from typing import Any

import pytest

from servolt.plan.memory.profiles import Profile, profile_of, profiled_engines, version_key


def profile(engine: str, version: str | None) -> Profile:
    found = profile_of(engine, version)
    assert found is not None
    return found


@pytest.mark.parametrize("engine", profiled_engines())
def test_every_entry_says_where_it_is_from_and_when_it_was_read(engine: str) -> None:
    text = files("servolt").joinpath("data", "engines", f"{engine}.toml").read_text(encoding="utf-8")
    plain = tomllib.loads(text)

    assert {"read", "alike", "entry"} <= plain.keys()
    for entry in plain["entry"]:
        assert entry.keys() <= {"name", "value", "since", "source", "date"}
        assert len(entry["source"]) > 10
        assert str(entry["date"]).startswith("20")
    keys = [(entry["name"], entry.get("since", "0")) for entry in plain["entry"]]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("version", "name", "value"),
    [
        ("0.19.0", "gpu_memory_utilization", 0.90),
        ("0.33.0", "gpu_memory_utilization", 0.92),
        ("0.19.0", "graphs_subtracted", False),
        ("0.20.2", "graphs_subtracted", True),
        ("0.16.0", "sampler_bytes", 32),
        ("0.17.0", "sampler_bytes", 8),
        ("0.8.5.post1", "hybrid_groups", False),
        ("0.19.0", "kv_tokens", "blocks"),
        ("0.24.0", "kv_tokens", "concurrency"),
    ],
)
def test_the_newest_entry_that_is_not_above_the_version_holds(version: str, name: str, value: Any) -> None:
    assert profile("vllm", version).value(name) == value


def test_a_known_version_widens_nothing() -> None:
    assert profile("vllm", "0.19.0").width == 1.0
    assert profile("vllm", "0.19.1").notes == ()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.34.0", "vllm 0.34.0 is not known: planned as 0.33.0, the nearest older one."),
        ("0.22.1", "vllm 0.22.1 is not known: planned as 0.20.2, the nearest older one."),
        ("0.6.0", "vllm 0.6.0 is not known: planned as 0.8.5, the oldest one."),
        ("nightly", "'nightly' names no version of vllm: planned as 0.33.0, the newest one known."),
        (None, "No version of vllm is stated: planned as 0.33.0, the newest one known."),
    ],
)
def test_an_unknown_version_is_planned_as_a_known_one_and_wider(version: str | None, said: str) -> None:
    found = profile("vllm", version)

    assert found.notes == (said,)
    assert found.width > 1


def test_a_version_beyond_all_known_ones_is_the_least_certain() -> None:
    assert profile("vllm", "0.40.0").width > profile("vllm", "0.22.0").width


def test_patch_releases_of_sglang_differ() -> None:
    assert profile("sglang", "0.5.16").width > 1
    assert profile("sglang", "0.5.17").value("tiers") != profile("sglang", "0.5.23").value("tiers")


def test_an_engine_without_a_file_has_no_profile() -> None:
    assert profile_of("an-engine-of-tomorrow", "1.0") is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1", (1,)), ("v0.9.2+cu128", (0, 9, 2)), ("main of July 2026 (0.5.15 or so)", (0, 5, 15)), ("x", None)],
)
def test_a_version_is_found_in_what_is_written_around_it(text: str, numbers: tuple[int, ...] | None) -> None:
    assert version_key(text) == numbers
