"""`servolt demo`, whole: the main job from one command."""

import json
import subprocess
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


def test_the_demo_plans_serves_measures_and_compares(servolt: Run) -> None:
    result = servolt("demo", "--json", timeout_s=600)
    if result.returncode == 4:
        pytest.skip(f"the machine is too busy for a valid measurement: {result.stderr.splitlines()[-2]}")
    assert result.returncode == 0, result.stderr
    comparison = json.loads(result.stdout)
    assert comparison["labels"] == ["guide:f16", "guide:q8_0"]
    assert [one["field"] for one in comparison["differs"]] == ["quantization", "weights_bytes"]
    assert {one["metric"] for one in comparison["predictions"]} >= {"decode_throughput", "ttft", "resident_memory"}
    for step in ("[1/5] doctor", "[2/5] plan", "[3/5] serve", "[4/5] measure", "[5/5] compare", "Try next:"):
        assert step in result.stderr
    assert "first token" in result.stderr
    again = servolt("list", "--runs", "--json")
    assert len(json.loads(again.stdout)["items"]) == 2
