"""What one log or one measurement says of the deployments that it holds for, and of those that it doesn't.

Figures are those of vLLM 0.19 on one H100 (jgchn/llm-d-planner, branch accuracy) where no other source is named.
"""

from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.engines.logs import RankLog, StartupLog
from servolt.model import Model
from servolt.plan.known import Conditions, KnownDeployments, KnownMemory, KnownSpeed, alike_version, conditions_of
from servolt.plan.learning import drifts, learnt_memory
from servolt.plan.memory.emulate import budget_of
from servolt.plan.recall import known_budget, known_points, known_terms, shifts_of
from tests.plan.memory.shapes import GIB, codellama_7b, h100, llama_3_1_8b, qwen3_14b

LLAMA = {"weights": 14.99, "activation": 1.89, "overhead": 0.25, "graph": 0.91, "kv_cache": 58.11}


def deployment(**more: Any) -> Deployment:
    asked = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "engine": "vllm",
        "engine_version": "0.19.0",
        "gpu_memory_utilization": 0.95,
        "max_model_len": 8192,
        "max_num_batched_tokens": 8192,
        "max_num_seqs": 1024,
        **more,
    }
    return Deployment(**asked)


def learnt(
    asked: Deployment,
    model: Model,
    sizes: dict[str, float],
    tokens: int | None = None,
    verified: bool = True,
    date: str = "2026-11-20T00:00:00Z",
) -> KnownMemory:
    rank = RankLog(rank="", **{f"{name}_bytes": round(size * GIB) for name, size in sizes.items()})
    log = StartupLog(engine="vllm", engine_version=asked.engine_version, ranks=(rank,), kv_cache_tokens=tokens)
    raw = budget_of(asked, model, h100())
    return learnt_memory(log, asked, model, h100(), raw, date=date, tool_version="0", verified=verified)


def known(*rows: KnownMemory | KnownSpeed) -> KnownDeployments:
    return KnownDeployments().having(*rows)


def terms(facts: KnownDeployments, asked: Deployment, model: Model | None = None) -> Any:
    model = model or llama_3_1_8b()
    return known_terms(facts, asked, model, h100(), budget_of(asked, model, h100()))


def test_what_a_deployment_logged_replaces_its_terms_to_the_token() -> None:
    facts = known(learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016))
    found = terms(facts, deployment())
    assert set(found) == set(LLAMA)
    assert all(term.basis == "measured" for term in found.values())
    assert found["activation"].bytes == round(1.89 * GIB)
    budget = known_budget(facts, deployment(), llama_3_1_8b(), h100())
    assert budget.kv_cache_tokens == 476_016
    assert 476_016 - 100 < budget.kv_cache_tokens_low < 476_016 < budget.kv_cache_tokens_high < 476_016 + 100, (
        "a log says hundredths of a GiB, and the next start is as far off: 82 tokens of 128 KiB"
    )


V0 = {"weights": 14.99, "activation": 1.20, "overhead": 0.10, "kv_cache": 59.0}
OTHER = {"weights": 14.99, "activation": 2.60, "overhead": 0.40, "kv_cache": 57.2}


def of_no_version(sizes: dict[str, float], tokens: int, generation: str | None, day: int) -> KnownMemory:
    row = learnt(deployment(), llama_3_1_8b(), sizes, tokens, date=f"2026-11-{day}T00:00:00Z")
    lenient = {**row.conditions.lenient, **({"generation": generation} if generation else {})}
    where = row.conditions.model_copy(update={"engine_version": None, "lenient": lenient})
    return row.model_copy(update={"conditions": where})


def test_the_log_of_the_asked_version_wins_over_later_ones_that_do_not_say_theirs() -> None:
    exact = learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016, date="2026-11-01T00:00:00Z")
    facts = known(exact, of_no_version(V0, 483_328, "V0", 20), of_no_version(OTHER, 468_582, None, 21))
    found = terms(facts, deployment())
    assert {name: round(term.bytes / GIB, 2) for name, term in found.items()} == LLAMA
    assert known_budget(facts, deployment(), llama_3_1_8b(), h100()).kv_cache_tokens == 476_016


def test_a_log_without_a_version_holds_where_no_other_does_but_not_for_sure() -> None:
    raw = budget_of(deployment(), llama_3_1_8b(), h100())
    facts = known(of_no_version(OTHER, 468_582, None, 21))
    found = terms(facts, deployment())["activation"]
    assert (found.bytes, found.basis) == (round(2.60 * GIB), "calibrated")
    formula = raw.per_rank[0].terms["activation"]
    assert found.high - found.low >= formula.high - formula.low
    budget = known_budget(facts, deployment(), llama_3_1_8b(), h100())
    assert budget.kv_cache_tokens == 468_582
    width = raw.kv_cache_tokens_high - raw.kv_cache_tokens_low
    assert budget.kv_cache_tokens_high - budget.kv_cache_tokens_low > 0.9 * width
    assert terms(facts, deployment(engine_version=None))["activation"].basis == "measured", "neither says a version"


def test_a_log_of_the_first_engine_holds_for_no_version_that_has_only_the_second() -> None:
    facts = known(of_no_version(V0, 483_328, "V0", 20))
    assert terms(facts, deployment()).get("kv_cache") is None
    assert terms(facts, deployment(engine_version="0.8.5"))["kv_cache"].bytes == round(59.0 * GIB)


def test_terms_of_one_start_stay_together_and_several_starts_tell_the_spread() -> None:
    sizes = ((1.80, 58.20, 476_753), (1.89, 58.11, 476_016), (1.95, 58.02, 475_280))
    rows = [
        learnt(deployment(), llama_3_1_8b(), {**LLAMA, "activation": peak, "kv_cache": pool}, tokens,
               date=f"2026-11-0{day}T00:00:00Z")
        for day, (peak, pool, tokens) in enumerate(sizes, start=1)
    ]  # fmt: skip
    found = terms(known(*rows), deployment())
    assert (found["activation"].bytes, found["kv_cache"].bytes) == (round(1.89 * GIB), round(58.11 * GIB))
    assert found["activation"].low < 1.80 * GIB
    assert found["activation"].high > 1.95 * GIB
    assert "3 starts" in found["activation"].formula
    budget = known_budget(known(*rows), deployment(), llama_3_1_8b(), h100())
    assert budget.kv_cache_tokens == 476_016
    assert budget.kv_cache_tokens_low < 475_280
    assert budget.kv_cache_tokens_high > 476_753


def test_without_an_asked_version_the_newest_that_logged_counts_alone() -> None:
    old = learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016, date="2026-11-20T00:00:00Z")
    new = learnt(deployment(engine_version="0.20.0"), llama_3_1_8b(), OTHER, 468_582, date="2026-11-01T00:00:00Z")
    found = terms(known(old, new), deployment(engine_version=None))
    assert (found["activation"].bytes, found["kv_cache"].bytes) == (round(2.60 * GIB), round(57.2 * GIB))
    assert "graph" not in found or found["graph"].basis != "measured"


def test_another_length_has_the_same_pool() -> None:
    """Logged at 8,192 tokens a request; at 2,048 the engine logged the same 476,016 tokens and 232.43 requests."""
    facts = known(learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016))
    budget = known_budget(facts, deployment(max_model_len=2048), llama_3_1_8b(), h100())
    assert budget.kv_cache_tokens == pytest.approx(476_016, rel=0.0005)
    assert budget.max_concurrency == pytest.approx(232.43, rel=0.0005)


def test_another_share_of_the_memory_has_the_same_terms_and_another_pool() -> None:
    facts = known(learnt(deployment(), llama_3_1_8b(), {**LLAMA, "activation": 2.5}, 476_016))
    asked = deployment(gpu_memory_utilization=0.9)
    found = terms(facts, asked)
    assert "kv_cache" not in found
    assert found["activation"].bytes == round(2.5 * GIB)
    budget = known_budget(facts, asked, llama_3_1_8b(), h100())
    pool = 79.19 * 0.9 - 14.99 - 2.5 - 0.25
    assert budget.kv_cache_bytes / GIB == pytest.approx(pool, abs=0.02)


def test_a_term_that_was_not_logged_stays_a_formula() -> None:
    facts = known(learnt(deployment(), llama_3_1_8b(), {"weights": 14.99}))
    assert set(terms(facts, deployment())) == {"weights"}


@pytest.mark.parametrize(
    "change",
    [
        {"engine_version": "0.20.0"},
        {"tensor_parallel_size": 2},
        {"max_num_seqs": 256},
        {"max_num_batched_tokens": 16384},
        {"enforce_eager": True},
        {"enable_lora": True},
        {"cpu_offload_gb": 4.0},
        {"dtype": "float32"},
    ],
)
def test_whatever_changes_the_peak_is_another_deployment(change: dict[str, Any]) -> None:
    facts = known(learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016))
    found = terms(facts, deployment(**change)).get("activation")
    assert found is None or found.basis == "calibrated"


@pytest.mark.parametrize(
    "change",
    [
        {"engine_version": "0.19.1"},
        {"kv_cache_dtype": "auto"},
        {"model": "/models/Llama-3.1-8B-Instruct"},
        {"served_model_name": "a"},
        {"max_cudagraph_capture_size": 512},
        {"engine_args": {"port": 9000}},
    ],
)
def test_what_changes_no_memory_is_the_same_deployment(change: dict[str, Any]) -> None:
    facts = known(learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016))
    assert terms(facts, deployment(**change))["activation"].basis == "measured"


def test_the_same_layers_under_another_name_are_the_same_model() -> None:
    facts = known(learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016))
    assert terms(facts, deployment(model="org/fine-tuned"))["weights"].basis == "measured"
    assert terms(facts, deployment(model="Qwen/Qwen3-14B"), qwen3_14b()).get("weights") is None


def test_one_log_of_another_model_is_no_lesson() -> None:
    facts = known(learnt(deployment(model="a"), codellama_7b(), {"overhead": 0.50}))
    assert terms(facts, deployment()) == {}


def test_many_models_that_are_off_the_same_way_shift_the_next() -> None:
    rows = [
        learnt(deployment(model=f"m{place}", tensor_parallel_size=1), _wider(place), {"overhead": 0.50})
        for place in range(24)
    ]
    raw = budget_of(deployment(), llama_3_1_8b(), h100()).per_rank[0].terms["overhead"]
    found = terms(known(*rows), deployment())["overhead"]
    assert found.bytes == pytest.approx(0.50 * GIB, rel=0.1)
    assert found.high - found.low >= raw.high - raw.low


def _wider(place: int) -> Model:
    model = codellama_7b()
    return model.model_copy(update={"vocab_size": model.vocab_size + place})


def test_the_same_model_elsewhere_shifts_and_narrows() -> None:
    facts = known(learnt(deployment(max_num_seqs=256), llama_3_1_8b(), {"activation": 2.0}))
    raw = budget_of(deployment(), llama_3_1_8b(), h100()).per_rank[0].terms["activation"]
    found = terms(facts, deployment())["activation"]
    assert found.basis == "calibrated"
    assert found.high - found.low < raw.high - raw.low


def test_what_is_not_verified_widens_and_never_narrows() -> None:
    claims = [learnt(deployment(), llama_3_1_8b(), {"activation": size}, verified=False) for size in (1.89, 4.0)]
    raw = budget_of(deployment(), llama_3_1_8b(), h100()).per_rank[0].terms["activation"]
    agreeing, far = (terms(known(claim), deployment())["activation"] for claim in claims)
    assert (agreeing.bytes, agreeing.low, agreeing.high, agreeing.basis) == (raw.bytes, raw.low, raw.high, raw.basis)
    assert (far.bytes, far.low, far.basis) == (raw.bytes, raw.low, "formula")
    assert far.high == pytest.approx(4.0 * GIB, rel=0.001)


def test_the_latest_of_two_logs_counts() -> None:
    first = learnt(deployment(), llama_3_1_8b(), {"weights": 15.5}, date="2026-10-01T00:00:00Z")
    second = learnt(deployment(), llama_3_1_8b(), {"weights": 14.99}, date="2026-11-01T00:00:00Z")
    assert terms(known(second, first), deployment())["weights"].bytes == round(14.99 * GIB)


def test_the_same_log_twice_is_known_once() -> None:
    row = learnt(deployment(), llama_3_1_8b(), LLAMA)
    again = row.model_copy(update={"date": "2026-12-01T00:00:00Z"})
    facts = known(row).having(again, again)
    assert [one.date for one in facts.memory] == ["2026-12-01T00:00:00Z"]
    assert not facts.without(row.id[:4])


def test_what_is_known_reads_and_writes_the_same() -> None:
    facts = known(learnt(deployment(), llama_3_1_8b(), LLAMA, 476_016), speed(0.012))
    assert KnownDeployments.from_json(facts.to_json()) == facts


def test_versions_are_alike_up_to_patches_where_patches_change_nothing() -> None:
    assert alike_version("0.5.17", "0.5.17", "sglang")
    assert not alike_version("0.5.17", "0.5.18", "sglang")
    assert alike_version(None, "0.19.0", "vllm")
    assert alike_version("0.19.0+cu130", "v0.19.2rc1", "vllm")


def test_a_new_version_that_leaves_the_interval_of_the_old_is_told() -> None:
    """Qwen3-14B: 5.64 GiB of activation in vLLM 0.15 and 0.16, 2.23 in 0.17. The formula knows that step; here a later
    version takes 5.64 again, which it doesn't know."""
    model = qwen3_14b()
    old = learnt(deployment(model="q", engine_version="0.18.0"), model, {"activation": 2.23})
    new = learnt(deployment(model="q", engine_version="0.19.0"), model, {"activation": 5.64})
    asked = deployment(model="q", engine_version="0.19.0")
    (problem,) = drifts(known(old, new), asked, model, h100())
    assert (problem.code, problem.severity) == ("drift", "warning")
    assert "0.19.0 logged 5.6 GiB of activation" in problem.message
    assert "0.18.0" in problem.message
    assert "calibrate --log" in problem.remedy


def test_a_new_version_within_the_interval_is_no_drift() -> None:
    model = qwen3_14b()
    rows = [
        learnt(deployment(model="q", engine_version=version), model, {"activation": 2.23, "weights": 27.52})
        for version in ("0.17.0", "0.18.0")
    ]
    assert drifts(known(*rows), deployment(model="q", engine_version="0.18.0"), model, h100()) == ()


def test_a_step_that_the_formula_knows_is_no_drift() -> None:
    model = qwen3_14b()
    old = learnt(deployment(model="q", engine_version="0.16.0"), model, {"activation": 5.64})
    new = learnt(deployment(model="q", engine_version="0.17.0"), model, {"activation": 2.23})
    assert drifts(known(old, new), deployment(model="q", engine_version="0.17.0"), model, h100()) == ()


def conditions(**more: Any) -> Conditions:
    return conditions_of(deployment(**more), llama_3_1_8b(), h100())


def speed(value: float, predicted: float | None = 0.010, **more: Any) -> KnownSpeed:
    said: dict[str, Any] = {
        "conditions": conditions(),
        "metric": "tpot",
        "input_len": 1024,
        "output_len": 256,
        "concurrency": 8,
        "value": value,
        "predicted": predicted,
        "date": "2026-11-20T00:00:00Z",
        "tool_version": "0",
    }
    return KnownSpeed(**{**said, **more})


def test_points_are_of_this_deployment_whatever_its_lengths() -> None:
    facts = known(speed(0.012), speed(0.020, conditions=conditions(tensor_parallel_size=2)))
    (point,) = known_points(facts, deployment(max_model_len=4096), llama_3_1_8b(), h100())
    assert (point.metric, point.value, point.load.concurrency) == ("tpot", 0.012, 8)
    assert (point.workload.input_len, point.workload.output_len) == (1024, 256)


def test_points_of_the_asked_version_win_over_those_that_do_not_say_theirs() -> None:
    unsaid = speed(0.020, conditions=conditions(engine_version=None))
    exact = speed(0.012)
    assert [one.value for one in known_points(known(unsaid), deployment(), llama_3_1_8b(), h100())] == [0.020]
    assert [one.value for one in known_points(known(exact, unsaid), deployment(), llama_3_1_8b(), h100())] == [0.012]


def test_points_at_a_rate_of_requests_keep_it() -> None:
    facts = known(speed(0.012, concurrency=None, request_rate=2.5))
    (point,) = known_points(facts, deployment(), llama_3_1_8b(), h100())
    assert point.load.request_rate == 2.5


def shift(*rows: KnownSpeed, **more: Any) -> Any:
    found = shifts_of(known(*rows), deployment(**more), llama_3_1_8b(), h100(), tool_version="0")
    return found.get("tpot")


def test_the_same_model_on_more_devices_shifts_this_one_half_way() -> None:
    other = conditions(tensor_parallel_size=2)
    found = shift(speed(0.020, conditions=other), speed(0.020, conditions=other, concurrency=16))
    assert found.deployments == 1
    assert 0.3 < found.log_shift < 0.5, "log 2 is 0.69, and one deployment counts as much as the level above"
    assert 0.5 < found.doubt < 1.0


def of_other_models(many: int) -> list[KnownSpeed]:
    rows = []
    for place in range(many):
        found = conditions_of(deployment(model=f"m{place}"), qwen3_14b(), h100())
        rows.append(speed(0.020, conditions=found.model_copy(update={"family": f"{place}"})))
    return rows


def test_a_few_other_models_on_the_same_device_shift_nothing() -> None:
    assert shift(*of_other_models(4)) is None


def test_many_other_models_on_the_same_device_shift_it_a_little() -> None:
    found = shift(*of_other_models(8))
    assert 0.0 < found.log_shift < 0.3, "log 2 is 0.69"
    assert found.doubt == 1.0


def test_what_another_planner_predicted_or_nobody_verified_shifts_nothing() -> None:
    other = conditions(tensor_parallel_size=2)
    assert shift(speed(0.020, conditions=other, tool_version="older")) is None
    assert shift(speed(0.020, conditions=other, verified=False)) is None
    assert shift(speed(0.020, predicted=None, conditions=other)) is None
    assert shift(speed(10.0, conditions=other)) is None, "off by 1000: a fault, no lesson"


def test_a_new_version_that_is_slower_at_the_same_load_is_told() -> None:
    rows = [speed(0.010), speed(0.013, conditions=conditions(engine_version="0.21.0"))]
    asked = deployment(engine_version="0.21.0")
    (problem,) = drifts(known(*rows), asked, llama_3_1_8b(), h100())
    assert "tpot of 0.013" in problem.message
    assert drifts(known(speed(0.010), speed(0.0105, conditions=conditions(engine_version="0.21.0"))), asked,
                  llama_3_1_8b(), h100()) == ()  # fmt: skip


def test_nothing_known_says_nothing() -> None:
    empty = KnownDeployments()
    assert not empty
    assert terms(empty, deployment()) == {}
    assert drifts(empty, deployment(), llama_3_1_8b(), h100()) == ()
    raw = budget_of(deployment(), llama_3_1_8b(), h100())
    assert known_budget(empty, deployment(), llama_3_1_8b(), h100()) == raw
