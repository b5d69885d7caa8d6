"""Models on the Hub: what is asked for, what is kept, what is said of one that can't be had."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.errors import AddressError, ModelFileError, ModelNotFoundError
from servolt.model import Model
from servolt.sources import find_model, find_or_guess, hub_client
from servolt.sources.hub import Hub
from servolt.sources.hub_cache import FRESH_S, HubCache
from servolt.sources.hub_client import (
    BusyError,
    GatedError,
    HubClient,
    UnreachableError,
    endpoint,
    token,
)
from servolt.sources.names import NotOnHubError

from .hub_server import TOKEN, FakeHub, serving

GUIDE = Path(__file__).parents[2] / "src" / "servolt" / "data" / "guide"
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def shard(tensors: dict[str, tuple[int, ...]], *, padding: int = 0) -> bytes:
    """A safetensors file of bfloat16; its weights are zeros."""
    end, header = 0, {}
    for name, shape in tensors.items():
        begin, size = end, 2
        for width in shape:
            size *= width
        end += size
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode() + b" " * padding
    return len(text).to_bytes(8, "little") + text + bytes(end)


def layer(number: int) -> dict[str, tuple[int, ...]]:
    at = f"model.layers.{number}."
    return {
        f"{at}self_attn.q_proj.weight": (64, 64),
        f"{at}self_attn.k_proj.weight": (32, 64),
        f"{at}self_attn.v_proj.weight": (32, 64),
        f"{at}self_attn.o_proj.weight": (64, 64),
        f"{at}mlp.gate_proj.weight": (96, 64),
        f"{at}mlp.up_proj.weight": (96, 64),
        f"{at}mlp.down_proj.weight": (64, 96),
        f"{at}input_layernorm.weight": (64,),
        f"{at}post_attention_layernorm.weight": (64,),
    }


OUTSIDE = {"model.embed_tokens.weight": (128, 64), "lm_head.weight": (128, 64), "model.norm.weight": (64,)}
TOTAL = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96 + 2 * 64) + 2 * 128 * 64 + 64


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving() as server:
        first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
        places = {**dict.fromkeys((*layer(0), *OUTSIDE), first), **dict.fromkeys(layer(1), second)}
        server.models["org/two-shards"] = {
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors.index.json": json.dumps({"weight_map": places}).encode(),
            first: shard({**layer(0), **OUTSIDE}),
            second: shard(layer(1)),
        }
        yield server


class Asking:
    """The Hub's source with a cache of its own, a clock that is set and waits that are written down."""

    def __init__(self, hub: FakeHub, folder: Path, **environ: str) -> None:
        self.now_s, self.waits = 1e9, list[float]()
        self.environ = {"HOME": str(folder), "HF_ENDPOINT": hub.base, **environ}
        self.hub = Hub(
            HubCache(folder, now=lambda: self.now_s),
            lambda: HubClient(endpoint(self.environ), token(self.environ), wait=self.waits.append),
            self.environ,
        )

    def find(self, name: str, **changes: Any) -> Model:
        model = self.hub.find(Deployment.of(name, **changes))
        assert model is not None
        return model


def test_sizes_come_from_headers_and_no_weights_are_fetched(hub: FakeHub, tmp_path: Path) -> None:
    big = {**layer(0), **layer(1), **OUTSIDE, "model.embed_tokens.weight": (200_000, 64)}
    hub.models["org/one"] = {
        "config.json": json.dumps({**CONFIG, "vocab_size": 200_000}).encode(),
        "model.safetensors": shard(big),
    }
    model = Asking(hub, tmp_path).find("org/one")
    assert (model.name, model.basis, model.total_params) == ("org/one", "header", TOTAL + (200_000 - 128) * 64)
    assert hub.sent_bytes < 200_000 < model.weights_bytes


def test_all_shards_of_an_index_are_read(hub: FakeHub, tmp_path: Path) -> None:
    model = Asking(hub, tmp_path).find("org/two-shards")
    assert (model.total_params, model.file_bytes) == (TOTAL, 2 * TOTAL)
    assert [kind.count for kind in model.layers] == [2]


def test_a_header_longer_than_the_first_piece_is_fetched_to_its_end(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/long"] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": shard({**layer(0), **layer(1), **OUTSIDE}, padding=300_000),
    }
    assert Asking(hub, tmp_path).find("org/long").total_params == TOTAL


def test_a_server_that_knows_no_ranges_will_do(hub: FakeHub, tmp_path: Path) -> None:
    hub.knows_ranges = False
    hub.models["org/long"] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": shard({**layer(0), **layer(1), **OUTSIDE}, padding=300_000),
    }
    assert Asking(hub, tmp_path).find("org/long").total_params == TOTAL


def test_a_config_without_safetensors_is_counted_by_its_closed_form(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/old"] = {"config.json": json.dumps(CONFIG).encode(), "pytorch_model.bin": b"weights"}
    model = Asking(hub, tmp_path).find("org/old", quantization="fp8")
    assert (model.basis, model.total_params, model.quantization) == ("config", TOTAL, "fp8")


def test_modelopt_says_it_in_a_file_of_its_own(hub: FakeHub, tmp_path: Path) -> None:
    stated = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
    hub.models["org/fp4"] = {
        "config.json": json.dumps(CONFIG).encode(),
        "hf_quant_config.json": json.dumps(stated).encode(),
    }
    assert Asking(hub, tmp_path).find("org/fp4").quantization == "nvfp4"


def test_a_gguf_of_a_repository_is_chosen_by_its_quantization(hub: FakeHub, tmp_path: Path) -> None:
    hub.models["org/small-GGUF"] = {
        "small-Q8_0.gguf": (GUIDE / "guide-q8_0.gguf").read_bytes(),
        "small-Q4_K_M.gguf": b"not read",
        "mmproj-F16.gguf": b"not read",
    }
    asking = Asking(hub, tmp_path)
    model = asking.find("org/small-GGUF:q8_0")
    assert (model.format, model.quantization, model.files) == ("gguf", "q8_0", ())
    assert model.weights_bytes < model.file_bytes == (GUIDE / "guide-q8_0.gguf").stat().st_size
    assert model.layers
    with pytest.raises(ModelNotFoundError, match="There are q4_k_m, q8_0"):
        asking.find("org/small-GGUF:q2_k")


def test_what_was_fetched_is_kept_for_a_day(hub: FakeHub, tmp_path: Path) -> None:
    asking = Asking(hub, tmp_path)
    first = asking.find("org/two-shards")
    asked = len(hub.asked)
    asking.now_s += FRESH_S - 1
    assert asking.find("org/two-shards") == first
    assert len(hub.asked) == asked
    asking.now_s += 2
    assert asking.find("org/two-shards") == first
    assert len(hub.asked) == 2 * asked


def test_what_is_kept_serves_while_the_hub_can_not_be_asked(hub: FakeHub, tmp_path: Path) -> None:
    asking = Asking(hub, tmp_path)
    first = asking.find("org/two-shards")
    asking.now_s += 100 * FRESH_S
    hub.refusals["org/two-shards"] = [(503, "", {})]
    assert asking.find("org/two-shards") == first


def test_offline_only_what_is_kept_is_known(hub: FakeHub, tmp_path: Path) -> None:
    online = Asking(hub, tmp_path)
    first = online.find("org/two-shards")
    asked = len(hub.asked)
    offline = Asking(hub, tmp_path, HF_HUB_OFFLINE="1")
    offline.now_s += 100 * FRESH_S
    assert offline.find("org/two-shards") == first
    with pytest.raises(UnreachableError, match="HF_HUB_OFFLINE"):
        offline.find("org/other")
    assert len(hub.asked) == asked


def test_a_damaged_cache_is_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    asking = Asking(hub, tmp_path)
    first = asking.find("org/two-shards")
    for path in tmp_path.rglob("*.json.gz"):
        path.write_bytes(path.read_bytes()[:20])
    assert asking.find("org/two-shards") == first


def test_a_model_that_was_renamed_is_followed(hub: FakeHub, tmp_path: Path) -> None:
    hub.renamed["old/name"] = "org/two-shards"
    assert Asking(hub, tmp_path).find("old/name").name == "org/two-shards"


def test_the_key_is_sent_to_the_hub_and_nowhere_else(hub: FakeHub, tmp_path: Path) -> None:
    with serving() as elsewhere:
        elsewhere.models = hub.models
        hub.base, home = elsewhere.base, hub.base  # large files lie on another server
        asking = Asking(hub, tmp_path, HF_TOKEN=TOKEN, HF_ENDPOINT=home)
        assert asking.find("org/two-shards").total_params == TOTAL
        assert {headers.get("Authorization") for _, headers in hub.asked} == {f"Bearer {TOKEN}"}
        assert elsewhere.asked
        # Another port is another place.
        assert {headers.get("Authorization") for _, headers in elsewhere.asked} == {None}


def test_a_key_may_lie_in_the_file_that_the_hubs_own_tool_writes(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    assert token({"HF_HOME": str(tmp_path)}) == TOKEN
    assert token({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_other"}) == "hf_other"
    assert token({"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("refusal", "environ", "error", "said"),
    [
        ((401, "GatedRepo", {}), {}, GatedError, "Ask for access"),
        ((403, "GatedRepo", {}), {"HF_TOKEN": TOKEN}, GatedError, "Ask for access"),
        ((403, "", {}), {"HF_TOKEN": TOKEN}, GatedError, "token's rights"),
        ((401, "RepoNotFound", {}), {}, NotOnHubError, "private, or there is none.*HF_TOKEN"),
        ((404, "RepoNotFound", {}), {"HF_TOKEN": TOKEN}, NotOnHubError, "knows no org/two-shards"),
        ((404, "RevisionNotFound", {}), {}, NotOnHubError, "no such revision"),
        ((418, "", {}), {}, UnreachableError, "answers 418"),
    ],
)
def test_a_refusal_says_what_to_do(
    hub: FakeHub, tmp_path: Path, refusal: Any, environ: dict[str, str], error: type[Exception], said: str
) -> None:
    hub.refusals["org/two-shards"] = [refusal]
    with pytest.raises(error, match=said) as caught:
        Asking(hub, tmp_path, **environ).find("org/two-shards")
    assert type(caught.value) is error
    assert TOKEN not in str(caught.value)


def test_a_busy_hub_is_waited_for_as_long_as_it_asks(hub: FakeHub, tmp_path: Path) -> None:
    hub.refusals["org/two-shards"] = [(429, "", {"Retry-After": "7"}), (503, "", {}), (0, "", {})]
    asking = Asking(hub, tmp_path)
    assert asking.find("org/two-shards").total_params == TOTAL
    assert asking.waits[0] == 7
    assert len(asking.waits) == 2


def test_a_hub_that_stays_busy_is_given_up(hub: FakeHub, tmp_path: Path) -> None:
    hub.refusals["org/two-shards"] = [(429, "", {})]
    asking = Asking(hub, tmp_path)
    with pytest.raises(BusyError, match="HF_TOKEN"):
        asking.find("org/two-shards")
    assert asking.waits == sorted(asking.waits)
    assert len(asking.waits) == 3
    hub.refusals["org/two-shards"] = [(429, "", {"Retry-After": "3600"})]
    impatient = Asking(hub, tmp_path)
    with pytest.raises(BusyError, match="in 3600 s"):
        impatient.find("org/two-shards")
    assert impatient.waits == []


def test_no_network_is_told_soon(tmp_path: Path, hub: FakeHub) -> None:
    asking = Asking(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9 can't be reached"):
        asking.find("org/two-shards")
    assert len(asking.waits) == 1


def test_a_hub_that_takes_calls_and_never_answers_is_given_up(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = Asking(hub, tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UnreachableError, match="can't be reached"):
            asking.find("org/two-shards")
    assert len(asking.waits) == 3


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": b""}, "no config.json and no GGUF"),
        ({"config.json": b"{"}, "no JSON"),
        ({"config.json": b"[]"}, "no names with values"),
        ({"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"\xff" * 64}, "no safetensors file"),
        ({"config.json": json.dumps(CONFIG).encode(), "model.safetensors": shard(OUTSIDE)[:-9]}, "cut off"),
        ({"config.json": json.dumps(CONFIG).encode(), "model.safetensors.index.json": b"{}"}, "weight_map"),
        (
            {
                "config.json": json.dumps(CONFIG).encode(),
                "model.safetensors.index.json": b'{"weight_map": {"a": "gone.safetensors"}}',
            },
            "missing",
        ),
        ({"model.gguf": b"GGUF"}, "cut off"),
    ],
)
def test_what_is_no_model_is_refused(hub: FakeHub, tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    hub.models["org/odd"] = files
    with pytest.raises((ModelFileError, ModelNotFoundError), match=said):
        Asking(hub, tmp_path).find("org/odd")


def test_what_huggingfaces_own_tools_have_downloaded_is_used(hub: FakeHub, tmp_path: Path) -> None:
    place = tmp_path / "hub" / "models--org--here"
    snapshot = place / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc", encoding="utf-8")
    (snapshot / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (snapshot / "model.safetensors").write_bytes(shard({**layer(0), **layer(1), **OUTSIDE}))
    model = Asking(hub, tmp_path, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1").find("org/here")
    assert (model.name, model.total_params) == ("org/here", TOTAL)
    assert model.files == (str(snapshot / "model.safetensors"),)
    assert hub.asked == []


@pytest.fixture
def elsewhere(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The Hub that `find_model` asks."""
    for name, value in {"HF_ENDPOINT": hub.base, "SERVOLT_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return hub


def test_a_hub_id_is_asked_for_last(elsewhere: FakeHub) -> None:
    assert find_model(Deployment.of("org/two-shards")).total_params == TOTAL
    with pytest.raises(ModelNotFoundError, match="private, or there is none"):
        find_model(Deployment.of("org/none-such"))


def test_a_plan_takes_the_size_in_a_name_where_the_hub_can_not_be_asked(elsewhere: FakeHub) -> None:
    elsewhere.refusals["org/secret-13B-AWQ"] = [(401, "GatedRepo", {})]
    model = find_or_guess(Deployment.of("org/secret-13B-AWQ"))
    assert (model.basis, model.quantization) == ("card", "int4")
    assert model.total_params == pytest.approx(13e9, rel=1e-2)
    assert "gated" in str(model.metadata["guessed_because"])
    with pytest.raises(ModelNotFoundError):
        find_or_guess(Deployment.of("org/no-such-13B"))
    elsewhere.refusals["org/secret"] = [(401, "GatedRepo", {})]
    with pytest.raises(GatedError):
        find_or_guess(Deployment.of("org/secret"))


def test_errors_of_the_hub_are_of_the_tree() -> None:
    assert issubclass(BusyError, AddressError)
    assert issubclass(UnreachableError, AddressError)
    assert issubclass(GatedError, ModelNotFoundError)
