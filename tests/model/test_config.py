"""What a config.json says of a model: how many weights, of what, in which layers."""

from typing import Any

import pytest

from servolt.errors import ModelFileError
from servolt.model import Model, model_from_config

from . import configs


def of(config: dict[str, Any], **changes: Any) -> Model:
    return model_from_config({**config, **changes}, name="a model")


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (configs.LLAMA_31_8B, 8_030_261_248),  # the index of the checkpoint: 16,060,522,496 bytes in bfloat16
        (configs.QWEN3_30B_A3B, 30_532_122_624),  # the card: 30.5B
        (configs.DEEPSEEK_V3, 671_026_419_200),  # llama.cpp's log of it: 671.026 B
        (configs.GPT_OSS_20B, 20_914_757_184),  # the card: 20.9B
        (configs.JAMBA, 51_570_323_328),  # the card: 52B
        (configs.GEMMA_2_27B, 27_227_128_320),  # the checkpoint's index, by llm-d-planner: 27,227.14 M
        (configs.GEMMA_3_4B, 4_300_079_472),  # the same: 4,300.07 M, with what sees
        (configs.FALCON_40B, 41_303_293_952),  # transformers' own model, built without weights
        (configs.FALCON_7B, 6_921_720_704),
        (configs.GPT2, 124_439_808),
        (configs.MAMBA_28B, 2_768_345_600),
        (configs.LLAMA_4_SCOUT, 107_769_861_120),  # transformers 5.23: the text model
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else None,
)
def test_the_total_is_that_of_the_checkpoint(config: dict[str, Any], total: int) -> None:
    assert of(config).total_params == total


def test_one_token_passes_the_chosen_experts_and_all_else() -> None:
    assert of(configs.LLAMA_31_8B).active_params == 8_030_261_248
    assert of(configs.QWEN3_30B_A3B).active_params == 3_353_032_704  # the card: 3.3B
    active = of(configs.DEEPSEEK_V3).active_params
    assert active is not None
    assert 37e9 < active < 38e9  # the report: 37B


def test_parts_and_layers_add_up_to_the_whole() -> None:
    for config in (configs.DEEPSEEK_V3, configs.JAMBA, configs.GEMMA_3_4B, configs.GPT_OSS_20B):
        model = of(config)
        inside = sum(kind.parameters * kind.count for kind in model.layers)
        assert inside + sum(part.parameters for part in model.parts if part.component != "mtp") == model.total_params
        assert sum(kind.count for kind in model.layers) == len(model.layer_order) == model.num_layers
        for index, kind in enumerate(model.layers):
            assert model.layer_order.count(index) == kind.count


def test_the_layers_that_slide_are_those_that_the_config_means() -> None:
    gemma2, gemma3 = of(configs.GEMMA_2_27B), of(configs.GEMMA_3_4B)
    assert [gemma2.layers[index].mixer for index in gemma2.layer_order[:4]] == ["sliding", "full"] * 2
    assert [gemma3.layers[index].mixer for index in gemma3.layer_order[:6]] == ["sliding"] * 5 + ["full"]
    assert {kind.mixer: (kind.count, kind.window) for kind in gemma3.layers} == {
        "sliding": (29, 1024),
        "full": (5, None),
    }


def test_qwen2_slides_only_where_it_is_told_to() -> None:
    settings = {"sliding_window": 32768, "max_window_layers": 24}
    off = of(configs.LLAMA_31_8B, model_type="qwen2", use_sliding_window=False, **settings)
    on = of(configs.LLAMA_31_8B, model_type="qwen2", use_sliding_window=True, **settings)
    assert {kind.mixer for kind in off.layers} == {"full"}
    assert {kind.mixer: kind.count for kind in on.layers} == {"full": 24, "sliding": 8}


def test_llama_4_sees_in_chunks_but_for_every_fourth_layer() -> None:
    model = of(configs.LLAMA_4_SCOUT)
    assert {kind.mixer: (kind.count, kind.window) for kind in model.layers} == {
        "chunked": (36, 8192),
        "full": (12, None),
    }


def test_a_latent_is_what_mla_keeps() -> None:
    model = of(configs.DEEPSEEK_V3)
    assert {kind.mixer for kind in model.layers} == {"mla"}
    assert {(kind.kv_lora_rank, kind.rope_head_dim) for kind in model.layers} == {(512, 64)}
    dense, sparse = model.layers
    assert (dense.count, dense.experts) == (3, None)
    assert sparse.experts is not None
    assert (sparse.count, sparse.experts.num_experts, sparse.experts.shared) == (58, 256, 1)


def test_an_indexer_makes_it_sparse() -> None:
    model = of(configs.DEEPSEEK_V3, model_type="deepseek_v32", index_n_heads=64, index_head_dim=128, index_topk=2048)
    assert model.total_params == 671_877_944_064  # transformers 5.23, with the routers' biases
    assert {(kind.mixer, kind.index_head_dim, kind.index_topk) for kind in model.layers} == {("dsa", 128, 2048)}


def test_layers_that_use_an_earlier_ones_choice_have_no_indexer() -> None:
    settings = {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048}
    model = of(configs.DEEPSEEK_V3, indexer_types=["full", "shared"], **settings)
    assert {kind.index_head_dim for kind in model.layers} == {0, 128}
    assert all(kind.index_topk for kind in model.layers)


def test_the_block_that_guesses_tokens_is_beside_the_total() -> None:
    model = of(configs.DEEPSEEK_V3)
    guesses = next(part for part in model.parts if part.component == "mtp")
    assert guesses.parameters == 11_610_068_224  # the repository holds 684.5 B: this, and embedding and head again
    assert model.file_bytes > model.weights_bytes


def test_a_hybrid_keeps_a_state_in_its_recurrent_layers() -> None:
    model = of(configs.JAMBA)
    by_mixer = {kind.mixer: kind for kind in model.layers}
    assert [model.layers[index].mixer for index in model.layer_order[:8]].count("full") == 1
    mamba = by_mixer["mamba1"]
    assert (mamba.state_elements, mamba.conv_elements, mamba.conv_kernel) == (8192 * 16, 8192, 4)
    assert {kind.experts is not None for kind in model.layers if kind.mixer == "mamba1"} == {True, False}


def test_gated_delta_layers_stand_between_full_ones() -> None:
    # "Qwen3-Next" of the Qwen blog, September 2025: 80B with 3B active; sizes as transformers' defaults name them.
    model = of(
        configs.QWEN3_30B_A3B,
        model_type="qwen3_next",
        num_attention_heads=16,
        num_key_value_heads=2,
        head_dim=256,
        num_experts=512,
        num_experts_per_tok=10,
        moe_intermediate_size=512,
        shared_expert_intermediate_size=512,
        full_attention_interval=4,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_conv_kernel_dim=4,
    )
    assert model.total_params == 79_674_391_296  # transformers 5.23
    assert [model.layers[index].mixer for index in model.layer_order[:4]] == ["gdn", "gdn", "gdn", "full"]
    delta = model.layers[0]
    assert (delta.conv_elements, delta.state_elements) == (2 * 16 * 128 + 32 * 128, 32 * 128 * 128)


def test_attention_and_mamba_in_one_layer_are_two_layers_here() -> None:
    model = of(
        configs.LLAMA_31_8B,
        model_type="falcon_h1",
        mamba_d_ssm=8192,
        mamba_n_heads=128,
        mamba_d_head=64,
        mamba_d_state=256,
        mamba_n_groups=1,
    )
    assert [model.layers[index].mixer for index in model.layer_order[:4]] == ["mamba2", "full"] * 2
    assert model.num_layers == 64


def test_a_pattern_of_letters_says_what_each_block_is() -> None:
    model = of(
        configs.LLAMA_31_8B,
        model_type="nemotron_h",
        num_hidden_layers=None,
        hybrid_override_pattern="M-M*",
        mamba_num_heads=64,
        mamba_head_dim=64,
        ssm_state_size=128,
        n_groups=8,
    )
    assert [model.layers[index].mixer for index in model.layer_order] == ["mamba2", "none", "mamba2", "full"]


def test_searched_architectures_differ_from_layer_to_layer() -> None:
    blocks = [
        {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 2.625}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.3125}},
    ]
    model = of(
        configs.LLAMA_31_8B,
        model_type="nemotron-nas",
        num_hidden_layers=2,
        num_key_value_heads=None,
        intermediate_size=None,
        block_configs=blocks,
    )
    assert [kind.mixer for kind in model.layers] == ["full", "none"]
    assert [kind.intermediate_size for kind in model.layers] == [7168, 3584]
    assert model.layers[0].num_kv_heads == 8


def test_old_spellings_mean_the_same() -> None:
    new = of(configs.LLAMA_31_8B)
    old = model_from_config(
        {
            "n_embd": 4096,
            "n_inner": 14336,
            "n_layer": 32,
            "n_head": 32,
            "num_query_groups": 8,
            "padded_vocab_size": 128256,
            "n_positions": 131072,
            "torch_dtype": "bfloat16",
        },
        name="a model",
    )
    assert old.layers == new.layers
    assert (old.total_params, old.max_position_embeddings) == (new.total_params, new.max_position_embeddings)


def test_the_text_model_of_one_that_sees_is_found_inside() -> None:
    inner = {key: value for key, value in configs.LLAMA_31_8B.items() if key not in ("architectures", "torch_dtype")}
    outer = model_from_config({"model_type": "some_vl", "llm_config": inner, "torch_dtype": "bfloat16"}, name="a model")
    assert outer.layers == of(configs.LLAMA_31_8B).layers


def test_towers_of_an_unknown_type_are_taken_as_usual_ones_and_named() -> None:
    tower = {"model_type": "some_tower", "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}
    model = of(configs.LLAMA_31_8B, vision_config=tower)
    assert "vision_config" in model.unknown_fields
    seeing = sum(part.parameters for part in model.parts if part.component == "vision")
    assert 300e6 < seeing < 350e6


def test_a_text_model_inside_may_leave_out_what_its_type_has_by_default() -> None:
    # LLaVA 1.5's checkpoint names of its Vicuna little more than the vocabulary; transformers builds 7,062,902,784.
    vicuna = {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064, "torch_dtype": "float16"}
    tower = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
    config = {"model_type": "llava", "text_config": vicuna, "vision_config": tower}
    model = model_from_config(config, name="a model")
    assert model.total_params == 7_062_902_784 + 2 * 64 * 4096
    assert (model.num_layers, model.max_position_embeddings) == (32, 4096)


def test_a_type_that_is_not_known_is_planned_with_usual_widths_and_says_so() -> None:
    config = {"model_type": "rwkv", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 50277}
    model = model_from_config(config, name="a model")
    assert model.unknown_fields == ("intermediate_size", "num_attention_heads")
    assert 6e9 < model.total_params < 11e9  # RWKV-4 7B: 7.39 B, by its card


def test_what_is_not_understood_is_named() -> None:
    model = of(configs.LLAMA_31_8B, quantum_gate_width=3, rope_theta=5e5, use_cache=True)
    assert model.unknown_fields == ("quantum_gate_width",)
    assert model.total_params == of(configs.LLAMA_31_8B).total_params


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"intermediate_size": 2**40}, "intermediate_size"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"quantization_config": {"quant_method": "telepathy"}}, "quant_method"),
    ],
)
def test_a_field_that_can_not_be_used_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFileError, match=named):
        of(configs.LLAMA_31_8B, **changes)


@pytest.mark.parametrize("config", [{}, [], "text", None])
def test_what_is_no_config_is_refused(config: Any) -> None:
    with pytest.raises(ModelFileError):
        model_from_config(config, name="a model")


def test_the_tables_of_positions_are_counted() -> None:
    # vLLM 0.19 logs 14.99 GiB for weights of 14.96, and 8.58 for gemma-3-4b's 8.01: linear scaling by 8 lengthens.
    assert of(configs.LLAMA_31_8B).rotary_elements == 131072 * 128
    assert of(configs.GEMMA_3_4B).rotary_elements == 131072 * 256 * (8 + 1)
    assert of(configs.DEEPSEEK_V3).rotary_elements == 163840 * 64
    assert of(configs.GPT2).rotary_elements == 0


def test_a_model_survives_json() -> None:
    model = of(configs.DEEPSEEK_V3)
    assert Model.from_json(model.to_json()) == model
