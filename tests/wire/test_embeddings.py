"""Vectors from a real engine: of a model made up on the spot, so they mean nothing, but their form is right."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx2
import numpy as np
import ollama
import pytest

WIDTH, LAYERS, HEADS, CONTEXT, FFN = 32, 2, 4, 64, 48
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"\u2581{word}" for word in ("a", "cat", "dog", "sits", "on", "the", "mat", ".")]


def make_bert(path: Path) -> None:
    """Random weights under the names that llama.cpp gives to a BERT's."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*SPECIAL, *WORDS])
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * len(WORDS)
    kinds[1] = gguf.TokenType.UNKNOWN
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
    random = np.random.default_rng(1)
    for name, shape in _shapes().items():
        is_scale = name.endswith("norm.weight")
        values = np.ones(shape) if is_scale else random.normal(0, 0.3, shape)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(SPECIAL) + len(WORDS), WIDTH),
        "token_types.weight": (2, WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_embd_norm.weight": (WIDTH,),
        "token_embd_norm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        sizes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH)}
        sizes |= {"attn_output": (WIDTH, WIDTH), "ffn_up": (FFN, WIDTH), "ffn_down": (WIDTH, FFN)}
        for name, (rows, columns) in sizes.items():
            shapes[f"blk.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"blk.{layer}.{name}.bias"] = (rows,)
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = shapes[f"blk.{layer}.{name}.bias"] = (WIDTH,)
    return shapes


@pytest.fixture(scope="module")
def embedding(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("embedding")
    make_bert(folder / "tiny-bert.gguf")
    one = serving(folder / "home", str(folder / "tiny-bert.gguf"))
    yield one
    one.end()


def embed(embedding: Any, plain: Any) -> httpx2.Response:
    return httpx2.post(f"{embedding.url}/api/embed", json={"model": "tiny-bert"} | plain, timeout=30)


def test_each_text_gets_one_vector_of_length_one(embedding: Any) -> None:
    reply = embed(embedding, {"input": ["a cat sits.", "the dog", "a cat sits."]}).json()
    vectors = reply["embeddings"]
    assert [len(vector) for vector in vectors] == [WIDTH] * 3
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 3, abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-5)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-2)
    assert reply["model"] == "tiny-bert"


def test_the_tokens_are_the_engines_own_count(embedding: Any) -> None:
    # [CLS] a cat sits . [SEP] are six, [CLS] the dog [SEP] are four.
    assert embed(embedding, {"input": "a cat sits."}).json()["prompt_eval_count"] == 6
    assert embed(embedding, {"input": ["a cat sits.", "the dog"]}).json()["prompt_eval_count"] == 10


def test_a_text_is_a_list_of_one_and_no_text_is_no_vector(embedding: Any) -> None:
    assert len(embed(embedding, {"input": "a cat"}).json()["embeddings"]) == 1
    empty = embed(embedding, {"input": []}).json()
    assert (empty["embeddings"], empty["prompt_eval_count"]) == ([], 0)


def test_the_official_client_reads_them(embedding: Any) -> None:
    with ollama.Client(host=embedding.url) as client:
        reply = client.embed("tiny-bert", ["a cat", "the dog"])
        assert [len(vector) for vector in reply.embeddings] == [WIDTH] * 2
        assert client.show("tiny-bert").capabilities == ["embedding"]


def test_a_text_beyond_the_context_is_refused_and_never_cut(embedding: Any) -> None:
    for words in (CONTEXT - 1, 1000):  # beside [CLS] and [SEP]
        reply = embed(embedding, {"input": ["a cat", "cat " * words], "truncate": True})
        assert reply.status_code == 400, reply.text
        assert f"has {words + 2} tokens and the context holds {CONTEXT}" in reply.json()["error"]
        assert '"truncate","action":"altered"' in reply.headers["x-servolt-report"]
    assert embed(embedding, {"input": "cat " * (CONTEXT - 2)}).json()["prompt_eval_count"] == CONTEXT


def test_other_dimensions_than_the_models_are_refused(embedding: Any) -> None:
    assert len(embed(embedding, {"input": "a", "dimensions": WIDTH}).json()["embeddings"][0]) == WIDTH
    reply = embed(embedding, {"input": "a", "dimensions": 8})
    assert (reply.status_code, reply.json()["error"]) == (
        400,
        f"Vectors of this model have {WIDTH} dimensions. Leave dimensions out.",
    )


@pytest.mark.parametrize("given", [5, [5], {"a": 1}, [["a"]]])
def test_an_input_that_is_no_text_is_refused(embedding: Any, given: Any) -> None:
    reply = embed(embedding, {"input": given})
    assert reply.status_code == 400
    assert "input" in reply.json()["error"]


def test_too_many_texts_are_refused(embedding: Any) -> None:
    reply = embed(embedding, {"input": ["a"] * 2049})
    assert reply.status_code == 400
    assert "at most 2048" in reply.json()["error"]


def test_an_embedding_model_does_not_chat(embedding: Any) -> None:
    body = json.dumps({"model": "tiny-bert", "messages": [{"role": "user", "content": "a"}]}).encode()
    answer = embedding.raw("POST", "/api/chat", body)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"does not support completion" in answer
