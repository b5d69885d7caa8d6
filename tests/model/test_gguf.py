"""The header of a GGUF file: exact for good files, a clear refusal for all others."""

import contextlib
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servolt.errors import ModelFileError
from servolt.model import Model
from servolt.model.gguf import read_gguf_header

from .conftest import Make

GUIDE = Path(__file__).parents[2] / "src" / "servolt" / "data" / "guide"
SHIPPED = [GUIDE / "guide-q8_0.gguf", GUIDE / "guide-f16.gguf"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_sizes_are_those_that_the_formats_own_package_reads(path: Path) -> None:
    theirs = gguf.GGUFReader(path)
    ours = read_gguf_header(path)
    assert ours.weights_bytes == sum(int(tensor.n_bytes) for tensor in theirs.tensors)
    assert ours.total_params == sum(int(tensor.n_elements) for tensor in theirs.tensors)
    assert sum(group.tensors for group in ours.tensors) == len(theirs.tensors)
    assert ours.file_bytes == path.stat().st_size
    for field, key in {
        "num_layers": "block_count",
        "hidden_size": "embedding_length",
        "num_heads": "attention.head_count",
        "num_kv_heads": "attention.head_count_kv",
        "head_dim_k": "attention.key_length",
        "max_position_embeddings": "context_length",
    }.items():
        assert getattr(ours, field) == theirs.fields[f"llama.{key}"].contents()
    assert ours.chat_template == theirs.fields["tokenizer.chat_template"].contents()


def test_the_quantization_is_that_of_most_weights() -> None:
    assert [read_gguf_header(path).quantization for path in SHIPPED] == ["q8_0", "f16"]


def test_a_header_survives_json(make_gguf: Make) -> None:
    model = read_gguf_header(make_gguf())
    assert Model.from_json(model.to_json()) == model


def test_what_a_header_leaves_out_follows_from_the_rest(make_gguf: Make) -> None:
    model = read_gguf_header(make_gguf({"llama.attention.head_count_kv": None}))
    assert (model.name, model.files) == ("small", (str(make_gguf()),))
    assert (model.num_kv_heads, model.head_dim_k, model.head_dim_v, model.vocab_size) == (4, 16, 16, 10)
    assert model.tied_embeddings
    assert model.pooling is None
    assert model.chat_template is None


def test_an_output_matrix_of_its_own_is_not_tied(make_gguf: Make) -> None:
    assert not read_gguf_header(make_gguf(tensors={"output.weight": (10, 64)})).tied_embeddings


def test_settings_for_each_layer_count_with_their_largest(make_gguf: Make) -> None:
    model = read_gguf_header(make_gguf({"llama.attention.head_count": [4, 8], "llama.feed_forward_length": [96, 64]}))
    assert (model.num_heads, model.intermediate_size) == (8, 96)
    assert model.varied == ("llama.attention.head_count", "llama.feed_forward_length")
    assert read_gguf_header(make_gguf({"llama.attention.head_count": [4, 4]})).varied == ()


def test_a_file_without_a_vocabulary_is_refused(make_gguf: Make) -> None:
    path = make_gguf({"llama.vocab_size": None})
    path.write_bytes(path.read_bytes().replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokxxx"))
    with pytest.raises(ModelFileError, match=r"llama\.vocab_size should be a size and is missing"):
        read_gguf_header(path)


def test_a_model_of_experts_only_takes_the_width_of_one(make_gguf: Make) -> None:
    model = read_gguf_header(make_gguf({"llama.feed_forward_length": None, "llama.expert_feed_forward_length": 48}))
    assert model.intermediate_size == 48


def test_a_recurrent_model_may_have_no_heads_and_keeps_its_sizes(make_gguf: Make) -> None:
    left_out = {
        f"llama.{key}": None for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
    }
    state = {"llama.ssm.conv_kernel": 4, "llama.ssm.inner_size": 128, "llama.ssm.state_size": 16}
    model = read_gguf_header(make_gguf({**left_out, **state}))
    assert (model.num_heads, model.num_kv_heads, model.intermediate_size) == (0, 0, 0)
    assert model.metadata["llama.ssm.state_size"] == 16


def test_an_embedding_model_says_how_it_pools(make_gguf: Make) -> None:
    model = read_gguf_header(make_gguf({"llama.pooling_type": 1}))
    assert (model.pooling, model.capabilities) == ("mean", ("embedding",))


def test_tensors_stand_in_their_components(make_gguf: Make) -> None:
    groups = {(group.component, group.dtype): group.bytes for group in read_gguf_header(make_gguf()).tensors}
    assert groups == {
        ("embedding", "f16"): 10 * 64 * 2,
        ("norm", "f32"): 2 * 64 * 4,
        ("attention", "f16"): 64 * 64 * 2,
        ("mlp", "f16"): 96 * 64 * 2,
    }


def test_a_number_that_is_none_is_left_out(make_gguf: Make) -> None:
    assert "llama.rope.freq_base" not in read_gguf_header(make_gguf({"llama.rope.freq_base": float("nan")})).metadata


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"llama.block_count": None}, "llama.block_count should be a size and is missing"),
        ({"llama.embedding_length": "much"}, "llama.embedding_length should be a size and is 'much'"),
        ({"llama.attention.head_count": None}, "llama.attention.head_count should be a size and is missing"),
        ({"llama.feed_forward_length": None}, "llama.feed_forward_length should be a size and is missing"),
        ({"split.count": 3}, "is one part of 3"),
        ({"general.type": "adapter"}, "holds no model but: adapter"),
        ({"general.alignment": 0}, "has the alignment 0"),
    ],
)
def test_a_header_that_makes_no_model_is_refused(make_gguf: Make, changed: dict[str, object], cause: str) -> None:
    path = make_gguf({key: value for key, value in changed.items() if key != "general.alignment"})
    if "general.alignment" in changed:
        path.write_bytes(_start(tensors=0, settings=1) + _setting("general.alignment", 4, struct.pack("<I", 0)))
    with pytest.raises(ModelFileError) as refused:
        read_gguf_header(path)
    assert cause in refused.value.cause
    assert str(path) in refused.value.cause
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"GG", "it starts with b'GG'"),
        (b"PK\3\4 something else altogether", "is no GGUF file"),
        (b"GGUF", "is cut off: the version"),
        (b"GGUF" + struct.pack("<I", 1), "has GGUF version 1"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "tensors, which do not fit"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "settings, which do not fit"),
    ],
)
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.gguf") as refused:
        read_gguf_header(path)
    assert cause in refused.value.cause


def _start(*, tensors: int, settings: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, settings)


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _setting(key: str, kind: int, value: bytes) -> bytes:
    return _text(key.encode()) + struct.pack("<I", kind) + value


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return _text(name.encode()) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (_start(tensors=0, settings=1) + _setting("a", 99, b"\0" * 8), "gives a the unknown type 99"),
        (_start(tensors=0, settings=1) + _setting("a", 9, struct.pack("<IQ", 9, 1)), "array a the type 9"),
        (_start(tensors=0, settings=1) + _setting("a", 9, struct.pack("<IQ", 4, 2**60)), "values in a, which do not"),
        (_start(tensors=0, settings=1) + _setting("a", 9, struct.pack("<IQ", 8, 2**60)), "strings in a, which do not"),
        (_start(tensors=0, settings=1) + _setting("a", 8, struct.pack("<Q", 2**60)), "at most 16,777,216 are believed"),
        (_start(tensors=0, settings=1) + _setting("a", 8, _text(b"\xff\xfe")), "holds no UTF-8 in a"),
        (_start(tensors=0, settings=2) + 2 * _setting("a", 0, b"\1"), "sets a twice"),
        (_start(tensors=1, settings=0) + _tensor("w", (), 0, 0) + b"\0" * 99, "gives w 0 dimensions"),
        (_start(tensors=1, settings=0) + _tensor("w", (1,) * 5, 0, 0), "gives w 5 dimensions"),
        (_start(tensors=1, settings=0) + _tensor("w", (4,), 77, 0), "stores w in the type 77"),
        (_start(tensors=1, settings=0) + _tensor("w", (33,), 8, 0), "the shape (33,), which q8_0 can't hold"),
        (_start(tensors=1, settings=0) + _tensor("w", (0, 4), 0, 0), "the shape (0, 4)"),
        (_start(tensors=1, settings=0) + _tensor("w", (4,), 0, 7), "which is no multiple of 32"),
        (_start(tensors=1, settings=0) + _tensor("w", (2**31, 2**31), 0, 0), "is cut off: w ends at byte"),
        (_start(tensors=1, settings=0) + _tensor("w", (4,), 0, 2**62), "is cut off: w ends at byte"),
        (_start(tensors=2, settings=0) + 2 * _tensor("w", (4,), 0, 0) + b"\0" * 99, "holds w twice"),
    ],
)
def test_a_number_that_does_not_fit_the_file_is_not_believed(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as refused:
        read_gguf_header(path)
    assert cause in refused.value.cause


def test_a_file_cut_anywhere_says_so(make_gguf: Make) -> None:
    whole = make_gguf().read_bytes()
    path = make_gguf()
    data_start = len(whole) - read_gguf_header(path).weights_bytes
    for length in [*range(data_start + 1), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            read_gguf_header(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_header_gives_a_model_or_a_refusal_and_nothing_else(make_gguf: Make, data: st.DataObject) -> None:
    path = make_gguf()
    content = bytearray(path.read_bytes())
    places = st.integers(0, len(content) - read_gguf_header(path).weights_bytes - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(ModelFileError):
        assert read_gguf_header(path).file_bytes == len(content)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read_gguf_header(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="Is a directory"):
        read_gguf_header(tmp_path)
