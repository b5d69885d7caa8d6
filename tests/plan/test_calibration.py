import math
from collections.abc import Callable

import pytest

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.measurement import Host, Measurement, Validity
from servolt.metrics import METRICS, Estimate, Metrics
from servolt.model import Model
from servolt.plan import Calibration, Constants, Plan, make_plan, recalibrated, update
from servolt.workload import Workload

WORKLOAD = Workload(concurrency=(1, 4))
OVERHEAD = 40_000_000
DEPLOYMENT = Deployment.of("made-up.gguf")
OTHER = Deployment.of("made-up.gguf", max_num_seqs=8)
HOST = Host(
    cpu=None, architecture="x", physical_cores=2, usable_cores=2, memory_bytes=1, os="x", kernel="x", python="3.11"
)


@pytest.fixture
def plan(machine: Accelerator, llama_100m: Model) -> Callable[..., Plan]:
    def make(calibration: Calibration, deployment: Deployment = DEPLOYMENT, workload: Workload = WORKLOAD) -> Plan:
        return make_plan(deployment, llama_100m, machine, workload, calibration, overhead=lambda _: OVERHEAD)

    return make


@pytest.fixture
def measure(
    machine: Accelerator, llama_100m: Model, plan: Callable[..., Plan], constants: Constants
) -> Callable[..., Measurement]:
    """A measurement whose every value is this many times what the uncorrected plan says."""

    def make(ratio: float, name: str = "a", deployment: Deployment = DEPLOYMENT, verdict: str = "valid") -> Measurement:
        base = plan(Calibration(constants=(constants,)), deployment)
        return Measurement(
            id=name,
            tool_version="0",
            created="2026-01-01T00:00:00Z",
            deployment=deployment,
            deployment_digest=deployment.digest,
            engine="llamacpp",
            engine_version=None,
            model=llama_100m,
            accelerators=(machine,),
            host=HOST,
            workload=WORKLOAD,
            workload_digest=WORKLOAD.digest,
            windows=(),
            samples=(),
            results=tuple(
                Estimate(
                    metric=one.metric,
                    statistic=one.statistic,
                    concurrency=one.concurrency,
                    value=one.value * ratio if one.value is not None else None,
                    unit=METRICS[one.metric].unit,
                    basis="measured",
                )
                for one in base.estimates
            ),
            validity=Validity(verdict=verdict, flags=()),
        )

    return make


def decode(plan: Plan, concurrency: int = 1) -> Estimate:
    found = Metrics(items=plan.estimates).get("decode_throughput", concurrency=concurrency)
    assert found is not None
    return found


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return math.log(estimate.high / estimate.low)


def test_a_measurement_moves_the_next_plan_towards_itself_and_narrows_it(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    before = Calibration(constants=(constants,))
    after = update(before, measure(1.5), overhead_bytes=OVERHEAD)
    first, second = decode(plan(before)), decode(plan(after))
    assert 1.35 < value(second) / value(first) < 1.5
    assert width(second) < 0.75 * width(first)
    assert (first.basis, second.basis) == ("calibrated", "measured")


def test_the_next_plan_says_what_it_learnt_from(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    after = update(Calibration(constants=(constants,)), measure(1.5), overhead_bytes=OVERHEAD)
    made = plan(after)
    assert "corrected by 1 measurement" in made.calibration
    assert made.basis == "measured"
    assert decode(made).n == 2  # of both load points
    assert "1 at this very point" in (decode(made).reason or "")


def test_measurements_of_other_engines_and_machines_are_not_counted(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    after = update(Calibration(constants=(constants,)), measure(1.5), overhead_bytes=OVERHEAD)
    others: list[dict[str, object]] = [{"engine": "vllm"}, {"accelerator": "another"}, {"threads": 64}]
    elsewhere = tuple(
        one.model_copy(update={"measurement": f"{one.measurement} {number}", **other})
        for one in after.observations
        for number, other in enumerate(others)
    )
    both = after.model_copy(update={"observations": (*after.observations, *elsewhere)})
    assert both.measurements == 4
    assert "corrected by 1 measurement," in plan(both).calibration


def test_another_deployment_of_the_model_gains_less_and_is_called_calibrated(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    before = Calibration(constants=(constants,))
    after = update(before, measure(1.5), overhead_bytes=OVERHEAD)
    shifts = [value(decode(plan(after, one))) / value(decode(plan(before, one))) for one in (DEPLOYMENT, OTHER)]
    assert 1 < shifts[1] < shifts[0] < 1.5
    assert decode(plan(after, OTHER)).basis == "calibrated"
    assert width(decode(plan(after, OTHER))) > width(decode(plan(after)))


def test_more_measurements_come_closer_and_narrow_further_but_never_below_the_noise(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    calibration = Calibration(constants=(constants,))
    base, widths, errors = value(decode(plan(calibration))), [], []
    for number in range(6):
        calibration = update(calibration, measure(1.5, str(number)), overhead_bytes=OVERHEAD)
        widths.append(width(decode(plan(calibration))))
        errors.append(abs(math.log(value(decode(plan(calibration))) / base / 1.5)))
    assert widths == sorted(widths, reverse=True)
    assert errors == sorted(errors, reverse=True)
    assert calibration.measurements == 6
    assert widths[-1] > 2 * 1.645 * 0.17


def test_one_measurement_counts_once(measure: Callable[..., Measurement], constants: Constants) -> None:
    once = update(Calibration(constants=(constants,)), measure(1.5), overhead_bytes=OVERHEAD)
    assert update(once, measure(1.5), overhead_bytes=OVERHEAD) == once


def test_nothing_is_learnt_from_one_that_is_not_valid(
    measure: Callable[..., Measurement], constants: Constants
) -> None:
    before = Calibration(constants=(constants,))
    assert update(before, measure(1.5, verdict="invalid"), overhead_bytes=OVERHEAD) == before


def test_a_value_that_is_off_beyond_belief_teaches_nothing(
    measure: Callable[..., Measurement], constants: Constants
) -> None:
    before = Calibration(constants=(constants,))
    assert update(before, measure(30.0), overhead_bytes=OVERHEAD) == before


def test_a_value_that_was_not_measured_teaches_nothing(
    measure: Callable[..., Measurement], constants: Constants
) -> None:
    whole = measure(1.5)
    unknown = tuple(one.model_copy(update={"value": None}) if one.metric == "ttft" else one for one in whole.results)
    found = update(
        Calibration(constants=(constants,)), whole.model_copy(update={"results": unknown}), overhead_bytes=OVERHEAD
    )
    assert found.observations
    assert "ttft" not in {one.metric for one in found.observations}


def test_resident_memory_is_learnt_too(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    before = Calibration(constants=(constants,))
    after = update(before, measure(1.04), overhead_bytes=OVERHEAD)
    first, second = (
        Metrics(items=plan(one).estimates).get("resident_memory", concurrency=4) for one in (before, after)
    )
    assert first is not None
    assert second is not None
    assert value(second) / value(first) == pytest.approx(1.04, rel=0.01)
    assert (first.basis, second.basis) == ("formula", "measured")
    assert not [one for one in update(before, measure(1.04)).observations if one.metric == "resident_memory"]


def test_a_new_calibration_drops_what_was_observed_against_the_old_one(
    measure: Callable[..., Measurement], constants: Constants
) -> None:
    learnt = update(Calibration(constants=(constants,)), measure(1.5), overhead_bytes=OVERHEAD)
    again = recalibrated(learnt, constants.model_copy(update={"step_s": 1e-4}))
    assert again.observations == ()
    assert [one.step_s for one in again.constants] == [1e-4]
    other = recalibrated(learnt, constants.model_copy(update={"accelerator": "another"}))
    assert other.observations == learnt.observations
    assert len(other.constants) == 2


def test_a_calibration_reads_back_as_it_was_written(measure: Callable[..., Measurement], constants: Constants) -> None:
    learnt = update(Calibration(constants=(constants,)), measure(1.5), overhead_bytes=OVERHEAD)
    assert Calibration.from_json(learnt.to_json()) == learnt
    assert Calibration.from_yaml(learnt.to_yaml()) == learnt


def test_a_flagged_but_not_invalid_measurement_still_teaches(
    measure: Callable[..., Measurement], constants: Constants
) -> None:
    flagged = measure(1.5).model_copy(
        update={
            "validity": Validity(
                verdict="degraded", flags=(Problem(code="x", severity="warning", message="x", remedy="x"),)
            )
        }
    )
    assert update(Calibration(constants=(constants,)), flagged).measurements == 1


def test_a_degraded_measurement_teaches_less_than_a_valid_one(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    before = Calibration(constants=(constants,))
    first = decode(plan(before))
    moved = {}
    for verdict in ("valid", "degraded", "invalid"):
        after = decode(plan(update(before, measure(1.5, verdict=verdict), overhead_bytes=OVERHEAD)))
        moved[verdict] = value(after) / value(first)
        assert width(after) <= width(first)
    assert 1 == moved["invalid"] < moved["degraded"] < moved["valid"]
    # (1 + 1/4)**-5 of the way is left where (1 + 1)**-5 is after a valid one, two values being of the wider levels
    assert math.log(moved["degraded"]) < 0.8 * math.log(moved["valid"])


def test_a_valid_measurement_outweighs_a_degraded_one_that_contradicts_it(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    before = Calibration(constants=(constants,))
    both = update(update(before, measure(1.5, "a")), measure(1 / 1.5, "b", verdict="degraded"))
    assert value(decode(plan(both))) > 1.15 * value(decode(plan(before)))


def test_a_program_of_the_users_own_teaches_only_itself(
    plan: Callable[..., Plan], measure: Callable[..., Measurement], constants: Constants
) -> None:
    own = DEPLOYMENT.model_copy(update={"engine_executable": "/opt/llama-server"})
    before = Calibration(constants=(constants,))
    after = update(before, measure(1.5, deployment=own), overhead_bytes=OVERHEAD)
    assert decode(plan(after)) == decode(plan(before))
    assert value(decode(plan(after, own))) > 1.3 * value(decode(plan(before, own)))


def test_a_calibration_from_before_weights_counts_in_full(
    measure: Callable[..., Measurement], constants: Constants
) -> None:
    learnt = update(Calibration(constants=(constants,)), measure(1.5))
    plain = learnt.model_dump(mode="json")
    for one in plain["observations"]:
        del one["weight"], one["engine_executable"]
    assert Calibration.from_plain(plain) == learnt
