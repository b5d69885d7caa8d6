"""guide, written as the folder that Hugging Face's tools read."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from servolt.sources.huggingface_folder import write_huggingface_folder

SHIPPED = Path(__file__).parents[2] / "src" / "servolt" / "data" / "guide"
GUIDE = SHIPPED / "guide-f16.gguf"
TEXTS = (
    "What is TTFT?",
    "<|im_start|>user\nWhat's the KV cache?<|im_end|>\n<|im_start|>assistant\n",
    "naïve café, 3.14159 × 10⁵ and 日本語 🙂",
    "  two  spaces,\n\n\ttabs and 127.0.0.1:11434  ",
    "def f(x):\n    return {\"a\": [1, 2]}  # don't, we'll see",
)
# llama.cpp itself cuts the texts into tokens, in its own process.
TOKENIZE = """
import json, sys, urllib.request, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_ctx, parameters.cpuparams.n_threads = sys.argv[1], 512, 1
server = xllamacpp.Server(parameters)
def tokens(text):
    body = json.dumps({"content": text}).encode()
    url = server.listening_address.rstrip("/") + "/tokenize"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]
print(json.dumps([tokens(text) for text in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "guide"
    write_huggingface_folder(GUIDE, folder)
    return folder


def test_the_folder_holds_what_the_tools_look_for(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0
    assert config["hidden_size"] == config["num_attention_heads"] * config["head_dim"]
    assert config["eos_token_id"] == 2


def test_permuted_again_the_tensors_are_the_bytes_of_the_gguf_file(folder: Path) -> None:
    heads = {"attn_q": 8, "attn_k": 4}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 16)
    originals = {tensor.name: tensor for tensor in gguf.GGUFReader(GUIDE).tensors}
    seen = set()
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - the handle is not a mapping
            found = file.get_tensor(name)
            gguf_name = names.get_name(name, try_suffixes=(".weight",))
            if (kind := gguf_name.split(".")[-2]) in heads:
                rows, columns = found.shape
                found = found.reshape(heads[kind], 2, -1, columns).swapaxes(1, 2).reshape(rows, columns)
            np.testing.assert_array_equal(found, originals[gguf_name].data)
            assert found.dtype == originals[gguf_name].data.dtype
            seen.add(gguf_name)
    assert seen == set(originals)


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp has no wheel for this machine")
def test_the_tokenizer_cuts_text_as_llama_cpp_does(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    command = [sys.executable, "-c", TOKENIZE, str(GUIDE)]
    done = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True, check=True)
    assert [tokenizer.encode(text).ids for text in TEXTS] == json.loads(done.stdout)
    assert [tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) for text in TEXTS] == list(TEXTS)


def test_quantized_weights_are_refused_with_what_to_take_instead(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Take the f16, bf16 or f32 file"):
        write_huggingface_folder(SHIPPED / "guide-q8_0.gguf", tmp_path / "guide")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(ValueError, match="Name a new folder, or empty it"):
        write_huggingface_folder(GUIDE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert tmp_path / "config.json" in write_huggingface_folder(GUIDE, tmp_path)
