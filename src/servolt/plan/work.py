"""What one device has to do for a step: bytes, FLOPs and messages, from the model's layers and the deployment's ranks.

Every field is a number. They may be arrays too, with one element for each of many deployments: the fit of the constants
runs the same formulas over all reference cases at once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import RECURRENT_KINDS, Experts, LayerKind, Model, Part
from servolt.plan.memory.kv import state_bytes, token_bytes
from servolt.plan.memory.shape import shape_of
from servolt.plan.memory.sharding import Ranks, ranks_of
from servolt.plan.peaks import ARITHMETIC, Arithmetic, Peaks, arithmetic_of, peaks_of

__all__ = ["UNBOUNDED", "Span", "Work", "work_of"]

UNBOUNDED = 1e9  # a window that no context reaches
# Kinds of windows that are kept apart; models have one or two. Further ones count with the last.
SPANS = 3
ACTIVATION_BYTES = 2.0  # of one element between devices: 16 bits
# Sums over the tensor-parallel ranks in one layer: after attention, and after the products behind it.
SUMS = 2
# Devices that share the fast link, unless the link's name says that a rack does.
NODE_DEVICES, RACK_DEVICES, RACK = 8, 72, "72-way"
# Between machines: one 400 Gb/s adapter for each device (NVIDIA's DGX H100 reference architecture, 2023). Between
# devices without a link of their own: PCIe 4.0 x16 in one direction, less its protocol.
NETWORK_BYTES_PER_S = 50e9
HOST_LINK_BYTES_PER_S = 25e9
# Weights that are kept off the device are read from the host's memory: two channels of DDR5-5600 (JEDEC), and llama.cpp
# computes on them there.
HOST_MEMORY_BYTES_PER_S = 80e9
# Of the memory on a device's label, what weights may fill before these engines leave the rest on the host.
WEIGHTS_ROOM = 0.92
SPILLING = frozenset({"llamacpp", "ik_llamacpp", "ollama"})
# Heads of the indexer of sparse attention: 64 in DeepSeek-V3.2, 32 in GLM-5 (their config.json, index_n_heads).
INDEX_HEADS = 48
# Of the parameters that a token passes in a mixture of experts, those outside the routed experts: 0.3 in Qwen3-30B-A3B,
# 0.44 in DeepSeek-V3, 0.28 in gpt-oss-120b, by their configs. And how many experts such models have.
DENSE_SHARE_OF_ACTIVE = 0.35
GUESSED_EXPERTS = 128
GUESSED_CERTAINTY = 0.5

Four = tuple[float, float, float, float]


class Span(NamedTuple):
    """Attention that sees at most `window` tokens: for each token seen, over all its layers, on one device."""

    bytes: float
    decode_flop_s: float
    prompt_flop_s: float
    window: float


class Work(NamedTuple):
    """Bytes of one device; FLOPs as seconds at the peak rate of their arithmetic, in the order of ARITHMETIC."""

    replicas: float  # copies that share nothing
    groups: float  # of data-parallel attention inside a replica: each has its own sequences
    stages: float  # of pipeline parallelism; everything below is of all stages together
    devices: float  # of one replica, over one stage
    layers: float
    expert_layers: float
    latent_layers: float
    indexed_layers: float
    recurrent_layers: float
    exchanged_layers: float  # whose experts lie whole on different devices
    expert_choices: float  # of one token: experts a layer, over the layers
    shared_layers: float  # with experts that every token passes
    scaled_layers: float  # whose dense inputs are brought to 8 or 4 bits first
    dense_bytes: Four
    dense_flop_s: Four  # for each token of the group
    expert_bytes: Four  # all experts
    expert_flop_s: Four  # for each token of the replica
    expert_share: float  # of the routed experts, those that one token uses; 0 without experts
    expert_spread: float  # of touched experts over the ranks that hold whole ones: the busiest above the mean
    head_bytes: float
    head_flop_s: float  # for each token that is sampled
    spans: tuple[Span, Span, Span]
    state_bytes: float  # read and written for each sequence
    link_s: float  # messages of one token at the link's rate
    hops: float  # of a ring over the tensor-parallel ranks, for all sums of one pass
    host_s: float  # reading the weights that are kept off the device
    bandwidth_bytes_per_s: float
    weights_bytes: float  # of one device
    certain: float  # 1; less where the model or the accelerator had to be guessed


def work_of(deployment: Deployment, model: Model, accelerator: Accelerator) -> Work:
    """Sizes that are not known are guessed from the nearest that are, and `certain` says so."""
    ranks, peaks = _ranks(deployment), peaks_of(accelerator)
    kinds = _with_parts(shape_of(model).kinds, model)
    joined = _is_joined(kinds, ranks)
    rank = _Rank(deployment, model, peaks, ranks, joined)
    for kind in kinds:
        rank.add_layers(kind)
    rank.add_head()
    rank.weights_bytes /= ranks.pp
    return Work(
        replicas=1 if joined else ranks.dp,
        groups=ranks.dp if joined else 1,
        stages=ranks.pp,
        devices=ranks.attention_tp * (ranks.dp if joined else 1),
        layers=sum(kind.count for kind in kinds),
        expert_layers=sum(kind.count for kind in kinds if kind.experts),
        latent_layers=sum(kind.count for kind in kinds if kind.mixer in ("mla", "dsa")),
        indexed_layers=sum(kind.count for kind in kinds if kind.index_head_dim),
        recurrent_layers=sum(kind.count for kind in kinds if kind.mixer in RECURRENT_KINDS),
        exchanged_layers=sum(kind.count for kind in kinds if kind.experts and ranks.ep > 1),
        expert_choices=sum(kind.count * kind.experts.experts_per_token for kind in kinds if kind.experts),
        shared_layers=sum(kind.count for kind in kinds if kind.experts and kind.experts.shared),
        scaled_layers=rank.scaled_layers,
        dense_bytes=_four(rank.dense_bytes),
        dense_flop_s=_four(rank.dense_flop_s),
        expert_bytes=_four(rank.expert_bytes),
        expert_flop_s=_four(rank.expert_flop_s),
        expert_share=_expert_share(kinds),
        expert_spread=_expert_spread(kinds, min(ranks.ep, rank.among)),
        head_bytes=rank.head_bytes,
        head_flop_s=rank.head_flop_s,
        spans=rank.spans(kinds),
        state_bytes=rank.state_bytes(kinds),
        link_s=_link_s(kinds, model.hidden_size, ranks, accelerator),
        hops=SUMS * 2.0 * (ranks.attention_tp - 1) * sum(kind.count for kind in kinds),
        host_s=_host_bytes(deployment, kinds, accelerator, rank.weights_bytes) / HOST_MEMORY_BYTES_PER_S,
        bandwidth_bytes_per_s=peaks.bandwidth_bytes_per_s,
        weights_bytes=rank.weights_bytes,
        certain=peaks.certain * (1.0 if model.layers else GUESSED_CERTAINTY),
    )


class _Rank:
    """Adds up what falls to one device."""

    def __init__(self, deployment: Deployment, model: Model, peaks: Peaks, ranks: Ranks, joined: bool) -> None:
        self._deployment, self._model, self._peaks, self._tp = deployment, model, peaks, ranks.attention_tp
        self.among = ranks.attention_tp * (ranks.dp if joined else 1)
        self.dense_bytes: dict[Arithmetic, float] = {}
        self.dense_flop_s: dict[Arithmetic, float] = {}
        self.expert_bytes: dict[Arithmetic, float] = {}
        self.expert_flop_s: dict[Arithmetic, float] = {}
        self.head_bytes = self.head_flop_s = self.weights_bytes = self.scaled_layers = 0.0

    def add_layers(self, kind: LayerKind) -> None:
        widths = {arithmetic_of(part.dtype, self._peaks) for part in kind.parts if part.component == "attention"}
        self.scaled_layers += kind.count if widths & {"fp8", "fp4"} else 0
        for part in kind.parts:
            name = arithmetic_of(part.dtype, self._peaks)
            share = self._share(part, kind) * kind.count
            size, flop_s = part.bytes * share, 2.0 * part.parameters * share / self._peaks.flops_per_s[name]
            self.weights_bytes += size
            if part.component == "expert" and kind.experts is not None:
                _add(self.expert_bytes, name, size)
                _add(self.expert_flop_s, name, flop_s * kind.experts.experts_per_token / kind.experts.num_experts)
            else:
                _add(self.dense_bytes, name, size)
                _add(self.dense_flop_s, name, flop_s)

    def _share(self, part: Part, kind: LayerKind) -> float:
        """Of a part of a layer, what one device holds and computes."""
        if part.sharding == "none":
            return 1.0
        if part.sharding == "kv_heads" and kind.num_kv_heads:
            return max(1.0 / self._tp, 1.0 / kind.num_kv_heads)
        return 1.0 / (self.among if part.component == "expert" else self._tp)

    def add_head(self) -> None:
        """A tied head is the embedding's table, read as a whole; a table of its own is read by rows."""
        head = next((part for part in self._model.parts if part.component == "output"), None)
        table = next((part for part in self._model.parts if part.component == "embedding"), None)
        read = head or table
        if read is not None:
            rate = self._peaks.flops_per_s[arithmetic_of(read.dtype, self._peaks)]
            self.head_bytes = read.bytes / self._tp
            self.head_flop_s = 2.0 * read.parameters / self._tp / rate
        self.weights_bytes += self.head_bytes + (table.bytes / self._tp if head and table else 0.0)

    def spans(self, kinds: Sequence[LayerKind]) -> tuple[Span, Span, Span]:
        """By window, the widest first."""
        found: dict[float, list[float]] = {}
        for kind in kinds:
            for span in self._attention(kind):
                sums = found.setdefault(span.window, [0.0, 0.0, 0.0])
                for place, value in enumerate(span[:3]):
                    sums[place] += value * kind.count
        spans = [Span(sums[0], sums[1], sums[2], window) for window, sums in sorted(found.items(), reverse=True)]
        while len(spans) > SPANS:
            last, before = spans.pop(), spans.pop()
            both = [one + other for one, other in zip(before[:3], last[:3], strict=True)]
            spans.append(Span(both[0], both[1], both[2], before.window))
        spans += [Span(0.0, 0.0, 0.0, UNBOUNDED)] * (SPANS - len(spans))
        return spans[0], spans[1], spans[2]

    def _attention(self, kind: LayerKind) -> list[Span]:
        """Of one layer. A sparse one reads its index over all of the context, and its latent over what it picks."""
        if not kind.num_heads or kind.mixer in RECURRENT_KINDS or kind.mixer == "none":
            return []
        rate = self._peaks.flops_per_s["half"]
        heads = max(kind.num_heads / self._tp, 1.0)
        size = token_bytes(kind, tp=self._tp, kv_cache_dtype=self._kv_cache_dtype(), dtype=self._model.dtype)
        prompt = 2.0 * heads * (kind.head_dim_k + kind.head_dim_v) / rate
        if kind.mixer in ("mla", "dsa"):
            decode = 2.0 * heads * (2 * kind.kv_lora_rank + kind.rope_head_dim) / rate
        else:
            decode = prompt
        if kind.index_topk:
            index = float(kind.index_head_dim)
            scan = 2.0 * INDEX_HEADS * index / rate
            return [Span(index, scan, scan, UNBOUNDED), Span(size - index, decode, prompt, float(kind.index_topk))]
        window = float(kind.window) if kind.window and kind.mixer in ("sliding", "chunked") else UNBOUNDED
        return [Span(size, decode, prompt, window)]

    def _kv_cache_dtype(self) -> str | None:
        """What is asked for, else what the checkpoint asks for: TensorRT-LLM's own in 8 and 4 bits all ask for fp8."""
        asked, checkpoint = self._deployment.kv_cache_dtype, self._model.metadata.get("kv_cache_dtype")
        if asked not in (None, "auto"):
            return asked
        if isinstance(checkpoint, str):
            return checkpoint
        quantized = self._deployment.engine == "tensorrt_llm" and self._model.quantization in ("fp8", "nvfp4")
        return "fp8" if quantized else None

    def state_bytes(self, kinds: Sequence[LayerKind]) -> float:
        return 2.0 * sum(kind.count * state_bytes(kind, tp=self._tp, dtype=self._model.dtype) for kind in kinds)


def _ranks(deployment: Deployment) -> Ranks:
    """llama.cpp puts layers on one device after the other, unless it is told to split rows."""
    ranks = ranks_of(deployment)
    count = deployment.hardware.count if deployment.hardware else 1
    if deployment.engine not in SPILLING or ranks.devices > 1:
        return ranks
    by_rows = (deployment.engine_args or {}).get("split-mode") == "row"
    return ranks._replace(tp=count, attention_tp=count) if by_rows else ranks._replace(pp=count)


def _is_joined(kinds: Sequence[LayerKind], ranks: Ranks) -> bool:
    """Whether data-parallel ranks share the experts. Those of a dense model share nothing."""
    return ranks.dp_attention or (ranks.dp > 1 and any(kind.experts for kind in kinds))


def _link_s(kinds: Sequence[LayerKind], hidden: int, ranks: Ranks, accelerator: Accelerator) -> float:
    """Two sums over the tensor-parallel ranks a layer, 2 (n - 1) / n of the activations each; with shared experts a
    token goes to each of its experts and back instead."""
    node = RACK_DEVICES if RACK in (accelerator.link or "") else NODE_DEVICES
    own = accelerator.link_bytes_per_s or HOST_LINK_BYTES_PER_S
    size = hidden * ACTIVATION_BYTES
    seconds = 0.0
    for kind in kinds:
        tp = ranks.attention_tp
        rate = own if tp <= node else min(own, NETWORK_BYTES_PER_S)
        seconds += kind.count * SUMS * 2.0 * (tp - 1) / tp * size / rate
        if kind.experts and ranks.dp > 1:
            among = tp * ranks.dp
            rate = own if among <= node else min(own, NETWORK_BYTES_PER_S)
            seconds += kind.count * 2.0 * kind.experts.experts_per_token * (among - 1) / among * size / rate / tp
    return seconds


def _host_bytes(
    deployment: Deployment, kinds: Sequence[LayerKind], accelerator: Accelerator, weights_bytes: float
) -> float:
    """Weights that each step reads from the host: those that are asked to lie there, or find no room on the device."""
    if accelerator.kind == "cpu":
        return 0.0
    layers = sum(kind.count for kind in kinds)
    asked = min((deployment.cpu_offload_gb or 0.0) * 2**30, weights_bytes)
    has_layers = deployment.engine in SPILLING  # others have no such option
    if has_layers and deployment.n_gpu_layers is not None and 0 <= deployment.n_gpu_layers < layers:
        asked = max(asked, weights_bytes * (1.0 - deployment.n_gpu_layers / layers))
    if has_layers and deployment.n_cpu_moe:
        used = [
            part.bytes * _used(kind)
            for kind in kinds
            if kind.experts
            for part in kind.parts
            if part.component == "expert"
        ]
        asked = max(asked, deployment.n_cpu_moe * (max(used) if used else 0.0))
    if deployment.engine not in SPILLING or not accelerator.memory_bytes:
        return asked
    return max(asked, (weights_bytes - WEIGHTS_ROOM * accelerator.memory_bytes) * max(_used(kind) for kind in kinds))


def _used(kind: LayerKind) -> float:
    """Of the bytes of a layer, the share that one token reads."""
    if kind.experts is None:
        return 1.0
    return kind.experts.experts_per_token / kind.experts.num_experts


def _expert_share(kinds: Sequence[LayerKind]) -> float:
    """Of the routed experts, those that one token uses: the mean over the layers that have any."""
    shares = [(_used(kind), kind.count) for kind in kinds if kind.experts]
    layers = sum(count for _, count in shares)
    return sum(share * count for share, count in shares) / layers if layers else 0.0


def _expert_spread(kinds: Sequence[LayerKind], ranks: int) -> float:
    """The busiest rank reads more than the mean: share + this * sqrt(share * (1 - share)) of its experts.

    The largest of n normal draws lies about 0.56 log2(n)^0.85 deviations above their mean (0.56 for 2, 1.03 for 4, 1.42
    for 8, 1.77 for 16: tables of normal order statistics).
    """
    experts = max((kind.experts.num_experts for kind in kinds if kind.experts), default=0)
    if ranks <= 1 or not experts:
        return 0.0
    return float(0.56 * math.log2(ranks) ** 0.85 * math.sqrt(ranks / experts))


def _with_parts(kinds: Sequence[LayerKind], model: Model) -> Sequence[LayerKind]:
    """Where the parts are not known, all weights spread evenly; what one token doesn't use counts as experts."""
    if any(kind.parts for kind in kinds):
        return kinds
    layers, total = sum(kind.count for kind in kinds), max(model.total_params, 1)
    active = min(model.active_params or total, total)
    dense = total if active == total else active * DENSE_SHARE_OF_ACTIVE
    routed = total - dense
    each = (model.weights_bytes or 2.0 * total) / total
    parts = [_part("mlp", dense / layers, each, model.quantization)]
    experts = None
    if routed:
        parts.append(_part("expert", routed / layers, each, model.quantization))
        used = max(1, round(GUESSED_EXPERTS * (active - dense) / routed))
        experts = Experts(num_experts=GUESSED_EXPERTS, experts_per_token=used, intermediate_size=0)
    return [kind.model_copy(update={"parts": tuple(parts), "experts": experts}) for kind in kinds]


def _part(component: str, parameters: float, byte_each: float, dtype: str) -> Part:
    sharding = "expert" if component == "expert" else "tensor"
    return Part.model_validate(
        {
            "component": component,
            "parameters": round(parameters),
            "bytes": parameters * byte_each,
            "dtype": dtype,
            "sharding": sharding,
        }
    )


def _add(sums: dict[Arithmetic, float], name: Arithmetic, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value


def _four(sums: dict[Arithmetic, float]) -> Four:
    half, fp8, fp4, packed = (sums.get(name, 0.0) for name in ARITHMETIC)
    return half, fp8, fp4, packed
