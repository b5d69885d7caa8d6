from collections.abc import Callable

import pytest

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.metrics import METRICS, Metrics
from servolt.model import Model
from servolt.plan import Calibration, Constants, Plan, make_plan
from servolt.sources import find_model
from servolt.workload import Workload

WORKLOAD = Workload(concurrency=(1, 4))


@pytest.fixture
def plan(machine: Accelerator) -> Callable[..., Plan]:
    def make(
        model: Model, calibration: Calibration | None = None, free: int | None = 20 * 2**30, **settings: object
    ) -> Plan:
        here = machine.model_copy(update={"available_bytes": free})
        deployment = Deployment.of("made-up.gguf", **settings)
        return make_plan(deployment, model, here, WORKLOAD, calibration, overhead=lambda _: 40_000_000)

    return make


def test_a_plan_reads_back_as_it_was_written(plan: Callable[..., Plan], llama_100m: Model) -> None:
    made = plan(llama_100m)
    assert Plan.from_json(made.to_json()) == made
    assert Plan.from_yaml(made.to_yaml()) == made


def test_every_estimate_is_a_known_metric_with_an_interval_around_its_value(
    plan: Callable[..., Plan], llama_100m: Model
) -> None:
    for estimate in plan(llama_100m).estimates:
        assert estimate.unit == METRICS[estimate.metric].unit
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 < estimate.low < estimate.value < estimate.high
        assert estimate.level == 0.9


def test_each_load_point_has_all_that_is_promised(plan: Callable[..., Plan], llama_100m: Model) -> None:
    found = Metrics(items=plan(llama_100m).estimates)
    for metric in ("decode_throughput", "prefill_throughput", "ttft", "tpot", "output_throughput", "resident_memory"):
        assert all(found.get(metric, concurrency=level) is not None for level in WORKLOAD.concurrency), metric


def test_without_calibration_the_answer_rests_on_stated_defaults_and_says_so(
    plan: Callable[..., Plan], llama_100m: Model
) -> None:
    made = plan(llama_100m)
    assert made.basis == "formula"
    assert "stated defaults" in made.calibration
    assert [problem.code for problem in made.problems] == ["not_calibrated"]
    decode = Metrics(items=made.estimates).get("decode_throughput", concurrency=1)
    assert decode is not None
    assert decode.low is not None
    assert decode.high is not None
    assert decode.high / decode.low > 9


def test_calibrated_constants_narrow_the_interval(
    plan: Callable[..., Plan], llama_100m: Model, constants: Constants
) -> None:
    cold, warm = plan(llama_100m), plan(llama_100m, Calibration(constants=(constants,)))
    assert warm.basis == "calibrated"
    assert warm.calibration == constants.source
    assert not warm.problems
    assert _width(warm) < 0.5 * _width(cold)


def test_constants_of_another_machine_or_engine_version_do_not_count(
    machine: Accelerator, llama_100m: Model, constants: Constants
) -> None:
    for other in ({"accelerator": "another"}, {"engine": "vllm"}, {"engine_version": "0"}):
        calibration = Calibration(constants=(constants.model_copy(update=other),))
        made = make_plan(
            Deployment.of("made-up.gguf"),
            llama_100m,
            machine,
            WORKLOAD,
            calibration,
            overhead=lambda _: 0,
            engine_version="1",
        )
        assert made.basis == "formula", other


def test_a_type_that_was_not_probed_is_answered_with_a_wider_interval(
    plan: Callable[..., Plan], make_model: Callable[..., Model], constants: Constants
) -> None:
    sizes = {"layers": 12, "hidden": 768, "feed_forward": 2048, "heads": 12, "kv_heads": 4, "head_dim": 64}
    calibration = Calibration(constants=(constants,))
    known, unknown = (
        plan(make_model(**sizes, vocabulary=16384, dtype=dtype), calibration) for dtype in ("q8_0", "q4_k")
    )
    assert _width(unknown) > 1.3 * _width(known)


def test_as_many_threads_as_cores_widen_the_interval(
    plan: Callable[..., Plan], llama_100m: Model, constants: Constants
) -> None:
    calibration = Calibration(constants=(constants,))
    assert _width(plan(llama_100m, calibration, threads=2)) > 2 * _width(plan(llama_100m, calibration))


def test_it_fits_is_tight_or_does_not_by_the_interval(plan: Callable[..., Plan], llama_100m: Model) -> None:
    memory = plan(llama_100m).memory
    cases = {
        memory.high_bytes: "fits",
        memory.high_bytes - 1: "tight",
        memory.total_bytes: "tight",
        memory.total_bytes - 1: "no",
        None: "unknown",
    }
    assert {free: plan(llama_100m, free=free).verdict for free in cases} == cases


def test_what_does_not_fit_is_told_by_how_much_and_what_is_largest(plan: Callable[..., Plan], llama_8b: Model) -> None:
    made = plan(llama_8b, free=8 * 2**30)
    assert made.verdict == "no"
    assert "are missing" in made.reasons[0]
    assert "weights 15.0 GiB" in made.reasons[0]


def test_each_fix_is_computed_again_and_keeps_its_word(plan: Callable[..., Plan], llama_8b: Model) -> None:
    free = 17 * 2**30
    made = plan(llama_8b, free=free, max_model_len=32768)
    assert made.verdict == "no"
    assert {next(iter(fix.change)) for fix in made.fixes} >= {"kv_cache_dtype", "max_model_len", "max_num_seqs"}
    assert made.fixes[0].verdict == "fits"
    for fix in made.fixes:
        again = plan(llama_8b, free=free, **{"max_model_len": 32768, **fix.change})
        assert (again.memory.total_bytes, again.verdict) == (fix.total_bytes, fix.verdict)
        assert fix.saved_bytes == made.memory.total_bytes - fix.total_bytes > 0
    assert made.fixes[0].text.startswith("--")


def test_a_fix_counts_what_the_process_itself_takes_for_each_sequence(machine: Accelerator, llama_8b: Model) -> None:
    def overhead(deployment: Deployment) -> int:
        return 10**9 * (deployment.max_num_seqs or 4)

    here = machine.model_copy(update={"available_bytes": 12 * 2**30})
    made = make_plan(Deployment.of("made-up.gguf"), llama_8b, here, WORKLOAD, overhead=overhead)
    fewer = next(fix for fix in made.fixes if "max_num_seqs" in fix.change)
    changed = Deployment.of("made-up.gguf", **fewer.change)
    again = make_plan(changed, llama_8b, here, WORKLOAD, overhead=overhead)
    assert fewer.total_bytes == again.memory.total_bytes


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": 512},
        {"varied": ("llama.attention.head_count_kv",)},
        {"metadata": {"llama.attention.kv_lora_rank": 128}},
        {"metadata": {"llama.ssm.inner_size": 1536, "llama.ssm.state_size": 16}},
        {"metadata": {"llama.wkv.head_size": 64}},
    ],
)
def test_a_cache_that_is_an_upper_bound_is_warned_of(
    plan: Callable[..., Plan], llama_100m: Model, change: dict[str, object]
) -> None:
    codes = {problem.code: problem for problem in plan(llama_100m.model_copy(update=change)).problems}
    assert codes["kv_cache_bound"].severity == "warning"
    assert "kv_cache_bound" not in {problem.code for problem in plan(llama_100m).problems}


def test_what_a_bounded_cache_may_save_widens_the_memory_s_interval(
    plan: Callable[..., Plan], llama_100m: Model
) -> None:
    made = plan(llama_100m.model_copy(update={"sliding_window": 64}))
    found = Metrics(items=made.estimates).get("resident_memory", concurrency=4)
    assert found is not None
    assert found.low is not None
    assert made.memory.total_bytes - made.memory.low_bytes > 0.2 * made.memory.total_bytes
    assert found.low < 0.85 * made.memory.total_bytes


def test_an_engine_without_formulas_of_its_own_is_planned_as_llama_cpp_and_it_says_so(
    machine: Accelerator, llama_100m: Model
) -> None:
    deployment = Deployment.of("made-up.gguf", engine="vllm")
    made = make_plan(deployment, llama_100m, machine, WORKLOAD, overhead=lambda _: 0)
    problem = next(one for one in made.problems if one.code == "engine_formula")
    assert problem.severity == "warning"
    assert "llama.cpp" in problem.message
    assert "vllm" in problem.message


def test_what_fits_needs_no_fix(plan: Callable[..., Plan], llama_100m: Model) -> None:
    assert plan(llama_100m).fixes == ()


def test_a_request_longer_than_the_context_and_streams_that_queue_are_warned_of(
    machine: Accelerator, llama_100m: Model, constants: Constants
) -> None:
    load = Workload(concurrency=(64,), input_len=2000, output_len=500)
    made = make_plan(
        Deployment.of("made-up.gguf"),
        llama_100m,
        machine,
        load,
        Calibration(constants=(constants,)),
        overhead=lambda _: 0,
    )
    assert [problem.code for problem in made.problems] == ["workload_exceeds_context", "queueing"]
    assert all(problem.remedy for problem in made.problems)


def test_a_load_that_is_too_long_to_play_has_no_value_and_says_why(machine: Accelerator, llama_100m: Model) -> None:
    load = Workload(concurrency=(1,), input_len=2**20, output_len=1)
    deployment = Deployment.of("made-up.gguf", max_num_batched_tokens=16)
    made = make_plan(deployment, llama_100m, machine, load, overhead=lambda _: 0)
    ttft = Metrics(items=made.estimates).get("ttft", concurrency=1)
    assert ttft is not None
    assert ttft.value is None
    assert ttft.reason


@pytest.mark.parametrize("load", [{"concurrency": (1, 4)}, {"arrival": "poisson", "request_rate": (2.0,)}])
def test_an_answer_of_one_token_has_no_time_per_further_token_and_all_else(
    machine: Accelerator, llama_100m: Model, load: dict[str, object]
) -> None:
    workload = Workload.model_validate({"input_len": 64, "output_len": 1, **load})
    for deployment, model in (
        (Deployment.of("made-up.gguf"), llama_100m),
        (replay := Deployment.of("replay", engine="replay"), find_model(replay)),
    ):
        made = make_plan(deployment, model, machine, workload, overhead=lambda _: 0)
        unknown = {one.metric for one in made.estimates if one.value is None}
        assert unknown == {"tpot", "decode_throughput"}
        assert all("one token" in (one.reason or "") for one in made.estimates if one.value is None)


def test_a_prompt_that_takes_no_time_has_no_rate(machine: Accelerator) -> None:
    deployment = Deployment.of("replay?prefill_s_per_token=0", engine="replay")
    made = make_plan(deployment, find_model(deployment), machine, WORKLOAD, overhead=lambda _: 0)
    unknown = {one.metric: one.reason for one in made.estimates if one.value is None}
    assert unknown == {"prefill_throughput": "it takes no time by the stated law"}


def test_the_replay_engine_is_predicted_by_the_law_it_states(machine: Accelerator) -> None:
    deployment = Deployment.of("replay?step_s=0.008&step_s_per_sequence=0.002", engine="replay")
    load = Workload(concurrency=(1, 4), input_len=100, output_len=50)
    made = make_plan(deployment, find_model(deployment), machine, load, overhead=lambda _: 30_000_000)
    found = Metrics(items=made.estimates)
    for streams, seconds in ((1, 0.010), (4, 0.016)):
        decode = found.get("decode_throughput", concurrency=streams)
        assert decode is not None
        assert decode.value == pytest.approx(streams / seconds, rel=0.15)  # streams that take a prompt do not decode
    assert made.verdict == "fits"
    assert made.memory.kv_cache_bytes == 0
    assert not made.problems


def test_guide_s_weights_are_those_of_its_header(machine: Accelerator) -> None:
    for quantization in ("f16", "q8_0"):
        deployment = Deployment.of(f"guide:{quantization}")
        model = find_model(deployment)
        made = make_plan(deployment, model, machine, WORKLOAD, overhead=lambda _: 40_000_000)
        assert made.memory.weights_bytes == sum(group.bytes for group in model.tensors)
        assert made.memory.weights_bytes < model.file_bytes


def _width(plan: Plan) -> float:
    decode = Metrics(items=plan.estimates).get("decode_throughput", concurrency=1)
    assert decode is not None
    assert decode.low is not None
    assert decode.high is not None
    return decode.high / decode.low - 1
