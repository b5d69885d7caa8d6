"""A comparison, as people and scripts read it."""

from typing import Any

from rich.console import Console

from servolt.cli.compared import comparison_shown, verdict_lines
from servolt.compare import Change, Comparison

REASON = "3 blocks can't decide among 4 changes, even where an interval leaves 0 out: it takes at least 8"


def change(metric: str, concurrency: int, verdict: str, **more: Any) -> Change:
    plain = {
        "metric": metric,
        "statistic": None,
        "concurrency": concurrency,
        "request_rate": None,
        "unit": "s",
        "other": "b" * 64,
        "baseline_value": 1.0,
        "value": 1.1,
        "verdict": verdict,
        "reason": REASON,
        "blocks": 3,
    }
    return Change.model_validate({**plain, **more})


def comparison(*changes: Change, labels: tuple[str, ...] = ("guide:q8_0", "guide:f16")) -> Comparison:
    return Comparison(
        tool_version="0",
        measurements=tuple(letter * 64 for letter in "abc"[: len(labels)]),
        labels=labels,
        workload_digest="0",
        interleaved=True,
        margin=0.02,
        alpha=0.05,
        differs=(),
        same=("engine",),
        changes=changes,
        predictions=(),
    )


def shown(found: Comparison) -> str:
    console = Console(width=1000, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        for part in comparison_shown(found):
            console.print(part)
    return capture.get()


CHANGES = (
    change("ttft", 1, "undecided", blocks_needed=9),
    change("ttft", 4, "undecided", blocks_needed=20),
    change("tpot", 1, "undecided", blocks_needed=9),
    change("tpot", 4, "worse", reason="p 0.010 (Holm over 4)"),
    change("energy_per_output_token", 1, "undecided", value=None, baseline_value=None, reason="no counter", blocks=0),
)


def test_a_script_gets_the_verdicts_and_nothing_else() -> None:
    assert verdict_lines(comparison(*CHANGES)) == [
        "undecided ttft c=1",
        "undecided ttft c=4",
        "undecided tpot c=1",
        "worse tpot c=4",
    ]


def test_of_more_than_two_each_verdict_says_whose_it_is() -> None:
    three = comparison(*CHANGES[:1], CHANGES[3].model_copy(update={"other": "c" * 64}), labels=("one", "two", "three"))
    assert verdict_lines(three) == ["undecided ttft c=1 two", "worse tpot c=4 three"]


def test_what_is_undecided_is_said_once_with_how_many_blocks_would_tell() -> None:
    text = shown(comparison(*CHANGES))
    assert text.count(REASON) == 1
    assert "about 9 for ttft c=1, tpot c=1; 20 for ttft c=4." in text
    assert "missing     energy_per_output_token c=1: no counter." in text


def test_two_measurements_of_one_deployment_are_told_apart() -> None:
    text = shown(comparison(*CHANGES, labels=("guide:f16", "guide:f16")))
    assert "guide:f16 aaaaaa" in text
    assert "guide:f16 bbbbbb" in text
