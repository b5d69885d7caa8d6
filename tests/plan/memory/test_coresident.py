from servolt.deployment import Deployment, Hardware
from servolt.plan.memory.coresident import coresident
from servolt.plan.memory.emulate import budget_of
from tests.plan.published import GIB, accelerator, llama_3_8b, qwen3_30b_a3b

CARD = accelerator(80)


def test_shares_of_the_whole_card_add_up() -> None:
    half = Deployment(
        model="m", engine="vllm", engine_version="0.19.0", max_model_len=8192, gpu_memory_utilization=0.45
    )
    both = coresident([(half, llama_3_8b()), (half, llama_3_8b())], CARD, budget_of)
    assert [one.starts for one in both.residents] == [True, True]
    assert both.total_bytes == sum(one.takes_bytes for one in both.residents) <= 80 * GIB


def test_a_second_share_that_is_not_free_says_which_would_be() -> None:
    most = Deployment(model="m", engine="vllm", engine_version="0.19.0", max_model_len=8192, gpu_memory_utilization=0.7)
    both = coresident([(most, llama_3_8b()), (most, llama_3_8b())], CARD, budget_of)
    assert [one.starts for one in both.residents] == [True, False]
    assert both.verdict == "no"
    assert "set gpu_memory_utilization to 0.2" in both.residents[1].reason


def test_a_share_of_what_is_free_shrinks_to_it() -> None:
    first = Deployment(
        model="m", engine="vllm", engine_version="0.19.0", max_model_len=8192, gpu_memory_utilization=0.5
    )
    second = Deployment(model="m", engine="tensorrt_llm", max_model_len=8192)
    alone = coresident([(second, llama_3_8b())], CARD, budget_of).residents[0]
    both = coresident([(first, llama_3_8b()), (second, llama_3_8b())], CARD, budget_of)
    assert both.residents[1].takes_bytes < alone.takes_bytes
    assert both.residents[1].free_before_bytes == both.available_bytes - both.residents[0].takes_bytes
    assert both.residents[1].starts


def test_models_that_take_what_they_need_are_added() -> None:
    small = Deployment(model="m", engine="llamacpp", engine_version="b11549", max_num_seqs=1, max_model_len=8192)
    card = Hardware(memory_bytes=24 * GIB)
    placed = small.model_copy(update={"hardware": card})
    two = coresident([(placed, llama_3_8b("q8_0"))] * 2, accelerator(24), budget_of)
    assert two.verdict == "fits"
    three = coresident([(placed, llama_3_8b("q8_0")), (placed, qwen3_30b_a3b("q4_k_m"))], accelerator(24), budget_of)
    assert three.verdict == "no"
    assert three.residents[1].reason.startswith("needs")
