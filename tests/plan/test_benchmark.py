"""What `benchmarks/plan` calls reached."""

import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "plan" / "__main__.py"
reached_by = runpy.run_path(str(BENCHMARK), run_name="benchmark")["_reached"]


def row(metric: str, values: list[float], inside: int, quiet: int) -> dict[str, Any]:
    counts = {"runs": len(values), "inside": inside, "quiet_runs": quiet, "quiet_inside": min(quiet, inside)}
    return {"metric": metric, "predicted": 100.0, "values": values, **counts}


MEMORY = row("resident_memory", [100.0] * 10, 10, 10)


@pytest.mark.parametrize(
    ("decode", "reached"),
    [
        ([row("decode_throughput", [100.0] * 10, 9, 0)], True),
        ([row("decode_throughput", [100.0] * 10, 8, 8)], False),  # all 8 quiet ones are inside, 2 others are not
        ([row("decode_throughput", [100.0] * 10, 9, 5), row("decode_throughput", [], 0, 0)], False),
        ([], False),
    ],
)
def test_all_runs_of_every_row_decide(decode: list[dict[str, Any]], reached: bool) -> None:
    assert reached_by([*decode, MEMORY]) is reached


def test_memory_that_is_far_off_or_was_never_seen_is_not_reached() -> None:
    decode = row("decode_throughput", [100.0] * 10, 10, 10)
    assert not reached_by([decode, row("resident_memory", [100.0, 80.0], 1, 2)])
    assert not reached_by([decode, row("resident_memory", [], 0, 0)])
    assert not reached_by([decode])
