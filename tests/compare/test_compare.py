"""Verdicts over planted truths, and refusals."""

import numpy as np
import pytest

from servolt.compare import compare
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.errors import NotComparableError
from servolt.measurement import Host, Measurement, Prediction, Validity, Window
from servolt.metrics import Estimate
from servolt.workload import Workload

HOST = Host(
    cpu="test", architecture="x86_64", physical_cores=2, usable_cores=2, memory_bytes=1, os="", kernel="", python=""
)


def measurement(
    name: str,
    throughput: list[float],
    *,
    study: str | None = "one",
    workload: Workload | None = None,
    predicted: float | None = None,
    verdict: str = "valid",
    **settings: object,
) -> Measurement:
    load = workload or Workload(concurrency=(4,), repetitions=len(throughput))
    deployment = Deployment.of("guide", **settings)
    windows = tuple(
        Window(
            index=block,
            repetition=block,
            block=block,
            position=0,
            concurrency=4,
            start_ns=0,
            end_ns=1,
            metrics={"output_throughput": value},
        )
        for block, value in enumerate(throughput)
    )
    result = Estimate(
        metric="output_throughput",
        value=float(np.mean(throughput)),
        low=min(throughput),
        high=max(throughput),
        unit="tokens/s",
        basis="measured",
        concurrency=4,
    )
    items = (result.model_copy(update={"value": predicted, "low": 1.0, "high": 1e9, "basis": "formula"}),)
    flag = Problem(code="foreign_process", severity="error", message="", remedy="")
    return Measurement(
        id=name * 64,
        tool_version="0",
        created="2026-01-01T00:00:00Z",
        study=study,
        deployment=deployment,
        deployment_digest=deployment.digest,
        engine="llamacpp",
        engine_version="1",
        model=None,
        host=HOST,
        workload=load,
        workload_digest=load.digest,
        windows=windows,
        samples=(),
        results=(result,),
        validity=Validity(verdict=verdict, flags=(flag,) if verdict == "invalid" else ()),
        prediction=Prediction(tool_version="0", basis="formula", items=items) if predicted else None,
    )


def noisy(mean: float, seed: int, blocks: int = 10) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, mean * 0.01, blocks))


def test_a_planted_gain_is_better_and_its_size_is_in_the_interval() -> None:
    comparison = compare([measurement("a", noisy(100, 1)), measurement("b", noisy(110, 2), quantization="f16")])
    (change,) = comparison.changes
    assert change.verdict == "better"
    assert change.change_low is not None
    assert change.change_high is not None
    assert change.change_low < 0.10 < change.change_high
    assert [one.field for one in comparison.differs] == ["quantization"]


def test_a_planted_loss_is_worse() -> None:
    (change,) = compare([measurement("a", noisy(100, 1)), measurement("b", noisy(90, 2))]).changes
    assert change.verdict == "worse"


def test_no_change_within_the_margin_is_the_same() -> None:
    (change,) = compare([measurement("a", noisy(100, 1)), measurement("b", noisy(100, 2))], margin=0.05).changes
    assert change.verdict == "same"


def test_few_blocks_decide_nothing_and_say_so() -> None:
    # the least two-sided exact p of 3 pairs is 2^-2 = 0.25
    (change,) = compare([measurement("a", noisy(100, 1, 3)), measurement("b", noisy(150, 2, 3))]).changes
    assert change.verdict == "undecided"
    assert change.change_low is not None
    assert change.change_low > 0
    assert change.reason == "3 blocks can't decide, even where an interval leaves 0 out: it takes at least 6"
    assert change.blocks_needed == 6  # of one sign: 2^-5 is below 0.05


def test_enough_blocks_of_a_small_effect_say_how_many_would_tell() -> None:
    # shares of +4 and -3 %, of which no eight blocks can tell the sign
    pairs = [measurement("a", [100.0] * 8), measurement("b", [104.0, 97.0] * 4)]
    (change,) = compare(pairs).changes
    assert change.verdict == "undecided"
    assert change.reason.startswith("8 blocks don't decide it (p ")
    assert change.blocks_needed is None or change.blocks_needed > 8


def test_what_is_decided_needs_no_more_blocks() -> None:
    (change,) = compare([measurement("a", noisy(100, 1)), measurement("b", noisy(110, 2))]).changes
    assert (change.verdict, change.blocks_needed) == ("better", None)


def test_one_measurement_is_not_compared_with_itself() -> None:
    with pytest.raises(NotComparableError, match="named twice"):
        compare([measurement("a", noisy(100, 1)), measurement("a", noisy(100, 1))])


def test_measurements_of_different_times_are_not_decided() -> None:
    comparison = compare([measurement("a", noisy(100, 1)), measurement("b", noisy(200, 2), study="another")])
    assert comparison.changes[0].verdict == "undecided"
    assert comparison.changes[0].change == pytest.approx(1.0, abs=0.1)
    assert [warning.code for warning in comparison.warnings] == ["not_interleaved"]


def test_different_workloads_are_refused_with_the_difference() -> None:
    other = measurement("b", noisy(100, 2), workload=Workload(concurrency=(4,), output_len=7))
    with pytest.raises(NotComparableError, match="output_len 64 and 7"):
        compare([measurement("a", noisy(100, 1)), other])


def test_an_invalid_measurement_is_refused_with_its_flag() -> None:
    with pytest.raises(NotComparableError, match="foreign_process"):
        compare([measurement("a", noisy(100, 1)), measurement("b", noisy(100, 2), verdict="invalid")])


def test_several_changed_settings_are_a_caution() -> None:
    other = measurement("b", noisy(100, 2), quantization="f16", threads=2)
    codes = [warning.code for warning in compare([measurement("a", noisy(100, 1)), other]).warnings]
    assert codes == ["several_changes"]


def test_predicted_stands_beside_measured() -> None:
    comparison = compare([measurement("a", noisy(100, 1), predicted=120.0), measurement("b", noisy(100, 2))])
    (row,) = comparison.predictions
    assert row.error == pytest.approx(0.2, abs=0.02)
    assert row.inside
