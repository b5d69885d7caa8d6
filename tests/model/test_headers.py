"""Sizes from the headers of safetensors files count for more than closed forms."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from servolt.errors import ModelFileError
from servolt.model import Model, model_from_config
from servolt.model.safetensors import header_length, parse_header, read_header, shards_of, tensors_of

BITS = {"BF16": 16, "F32": 32, "I32": 32, "F16": 16, "U8": 8, "F8_E4M3": 8}
HIDDEN, WIDTH, VOCABULARY, LAYERS = 64, 96, 128, 2
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MATRICES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64),
    "mlp.up_proj": (96, 64),
    "mlp.down_proj": (64, 96),
}


def header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """As a file of these tensors would have it."""
    end, found = 0, {}
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + int(np.prod(shape)) * BITS[dtype] // 8
        found[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return found


def llama(dtype: str = "BF16") -> dict[str, tuple[str, tuple[int, ...]]]:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": (dtype, (VOCABULARY, HIDDEN)),
        "model.norm.weight": (dtype, (HIDDEN,)),
        "lm_head.weight": (dtype, (VOCABULARY, HIDDEN)),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        tensors |= {f"{at}{name}.weight": (dtype, shape) for name, shape in MATRICES.items()}
        tensors |= {
            f"{at}{name}.weight": (dtype, (HIDDEN,)) for name in ("input_layernorm", "post_attention_layernorm")
        }
    return tensors


def of(tensors: Mapping[str, tuple[str, tuple[int, ...]]], **changes: Any) -> Model:
    return model_from_config({**CONFIG, **changes}, name="a model", headers=[header(tensors)])


def sizes(model: Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind in model.layers:
        for part in kind.parts:
            found[part.component] = found.get(part.component, 0) + part.parameters * kind.count
    return found


def test_a_plain_checkpoint_is_what_the_closed_form_says() -> None:
    closed, exact = model_from_config(CONFIG, name="a model"), of(llama())
    assert (exact.basis, exact.format) == ("header", "safetensors")
    assert exact.total_params == closed.total_params
    assert exact.weights_bytes == exact.file_bytes == closed.weights_bytes
    assert sizes(exact) == sizes(closed)
    assert [kind.count for kind in exact.layers] == [LAYERS]
    keys = [part for part in exact.layers[0].parts if part.sharding == "kv_heads"]
    assert [part.parameters for part in keys] == [2 * 32 * 64]


def test_shards_are_put_together() -> None:
    whole = header(llama())
    names = list(whole)
    shards = [{name: whole[name] for name in names[::2]}, {name: whole[name] for name in names[1::2]}]
    model = model_from_config(CONFIG, name="a model", headers=[*shards, {"__metadata__": {"format": "pt"}}])
    assert model.total_params == of(llama()).total_params


def test_what_the_config_does_not_know_is_counted_too() -> None:
    extra = {f"model.layers.{layer}.self_attn.q_norm.weight": ("BF16", (64,)) for layer in range(LAYERS)}
    assert of({**llama(), **extra}).total_params == of(llama()).total_params + LAYERS * 64


def test_fused_projections_are_divided_by_their_heads() -> None:
    tensors = {name: value for name, value in llama().items() if ".k_proj" not in name and ".v_proj" not in name}
    tensors = {
        name.replace("q_proj", "qkv_proj"): (dtype, (128, 64)) if "q_proj" in name else (dtype, shape)
        for name, (dtype, shape) in tensors.items()
    }
    model = of(tensors)
    assert model.total_params == of(llama()).total_params
    assert model.layers == of(llama()).layers


def test_a_head_that_is_tied_is_not_loaded_though_it_is_stored() -> None:
    tied = of(llama(), tie_word_embeddings=True)
    assert of(llama()).total_params - tied.total_params == VOCABULARY * HIDDEN
    assert tied.file_bytes == of(llama()).file_bytes


def test_a_checkpoint_without_a_head_is_tied_whatever_its_config_says() -> None:
    tensors = {name: value for name, value in llama().items() if name != "lm_head.weight"}
    assert of(tensors).tied_embeddings


def test_layers_behind_the_last_guess_tokens() -> None:
    more = {
        name.replace("layers.0", f"layers.{LAYERS}"): value for name, value in llama().items() if "layers.0." in name
    }
    model = of({**llama(), **more})
    assert model.num_layers == LAYERS
    assert model.total_params == of(llama()).total_params
    guesses = [part for part in model.parts if part.component == "mtp"]
    assert sum(part.parameters for part in guesses) == model.layers[0].parameters


def test_floats_are_counted_as_the_engine_loads_them() -> None:
    assert of(llama("F32")).weights_bytes == of(llama()).weights_bytes
    wide = model_from_config(CONFIG, name="a model", headers=[header(llama())], dtype="float32")
    assert wide.weights_bytes == 2 * of(llama()).weights_bytes


def test_integers_hold_several_weights_each() -> None:
    """GPTQ: eight of 4 bits in each int32, scales and zero points for each group of 32."""
    tensors = {name: value for name, value in llama().items() if "proj" not in name}
    for layer in range(LAYERS):
        for name, (rows, columns) in MATRICES.items():
            at = f"model.layers.{layer}.{name}."
            tensors |= {
                at + "qweight": ("I32", (columns // 8, rows)),
                at + "qzeros": ("I32", (columns // 32, rows // 8)),
                at + "scales": ("F16", (columns // 32, rows)),
                at + "g_idx": ("I32", (columns,)),
            }
    stated = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    model = of(tensors, quantization_config=stated)
    assert model.quantization == "int4"
    assert model.total_params == of(llama()).total_params
    assert model.weights_bytes == model.file_bytes
    closed = model_from_config({**CONFIG, "quantization_config": stated}, name="a model")
    indices = 4 * LAYERS * sum(columns for _, columns in MATRICES.values())
    assert model.weights_bytes - indices == closed.weights_bytes


def test_scales_add_bytes_and_no_weights() -> None:
    tensors = {name: ("F8_E4M3" if "proj" in name else dtype, shape) for name, (dtype, shape) in llama().items()}
    scales = {name.removesuffix("weight") + "weight_scale_inv": ("F32", (1, 1)) for name in tensors if "proj" in name}
    model = of({**tensors, **scales}, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    assert model.quantization == "fp8"
    assert model.total_params == of(llama()).total_params
    assert model.weights_bytes == of(tensors).weights_bytes + 4 * len(scales)


def test_layers_that_are_stored_another_way_are_a_kind_of_their_own() -> None:
    tensors = llama()
    tensors["model.layers.0.mlp.down_proj.weight"] = ("F8_E4M3", (64, 96))
    model = of(tensors)
    assert [kind.count for kind in model.layers] == [1, 1]
    assert model.quantization == "bfloat16"


def test_experts_towers_and_scales_are_told_by_their_names() -> None:
    sparse = {
        "model.layers.0.mlp.gate.weight": ("BF16", (4, 64)),
        "model.layers.0.mlp.experts.0.gate_proj.weight": ("BF16", (32, 64)),
        "model.layers.0.mlp.shared_expert.up_proj.weight": ("BF16", (32, 64)),
        "model.layers.0.mlp.shared_expert_gate.weight": ("BF16", (1, 64)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (8,)),
        "visual.blocks.0.attn.qkv.weight": ("BF16", (96, 32)),
        "visual.merger.mlp.0.weight": ("BF16", (64, 64)),
    }
    model = of({**llama(), **sparse})
    extra = sizes(model)
    assert (extra["router"], extra["expert"], extra["shared_expert"]) == (4 * 64 + 64, 32 * 64, 32 * 64)
    seeing = sum(part.parameters for part in model.parts if part.component == "vision")
    assert seeing == 96 * 32 + 64 * 64


def test_what_is_asked_on_top_of_plain_files_is_taken_from_their_parts() -> None:
    model = model_from_config(CONFIG, name="a model", headers=[header(llama())], quantization="fp8")
    closed = model_from_config(CONFIG, name="a model", quantization="fp8")
    assert (model.quantization, model.weights_bytes) == ("fp8", closed.weights_bytes)


def test_a_file_is_read_without_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((3, 5), np.float16), "b": np.zeros(7, np.float32)}, path)
    found = tensors_of([read_header(path)], "a model")
    assert {tensor.name: (tensor.dtype, tensor.shape, tensor.bytes) for tensor in found} == {
        "a": ("F16", (3, 5), 30),
        "b": ("F32", (7,), 28),
    }


@pytest.mark.parametrize("kept", [0, 4, 8, 30, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((3, 5), np.float16)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match="cut off"):
        read_header(path)


@pytest.mark.parametrize(
    "fault",
    [
        {"dtype": "F12"},
        {"dtype": ["F16"]},
        {"shape": [-1]},
        {"shape": [2**60]},
        {"shape": "wide"},
        {"data_offsets": [0]},
        {"data_offsets": [0, 4]},
        {"data_offsets": [30, 0]},
    ],
)
def test_a_tensor_that_can_not_be_is_refused(fault: dict[str, Any]) -> None:
    tensor = {"dtype": "F16", "shape": [3, 5], "data_offsets": [0, 30], **fault}
    with pytest.raises(ModelFileError, match="'a'"):
        tensors_of([{"a": tensor}], "a file")


def test_a_header_beyond_the_formats_own_bound_is_not_read() -> None:
    with pytest.raises(ModelFileError, match="100,000,001"):
        header_length((100_000_001).to_bytes(8, "little"), "a file")
    with pytest.raises(ModelFileError, match="no JSON"):
        parse_header(b"\xff{", "a file")
    with pytest.raises(ModelFileError, match="twice"):
        tensors_of([header({"a": ("F16", (1,))}), header({"a": ("F16", (1,))})], "a file")


def test_an_index_names_files_of_its_own_folder_only() -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    assert shards_of(index, "a model") == ["model-1.safetensors", "model-2.safetensors"]
    for file in ("../other.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x.py", 3):
        with pytest.raises(ModelFileError):
            shards_of({"weight_map": {"a": file}}, "a model")
    with pytest.raises(ModelFileError):
        shards_of(json.loads("{}"), "a model")
