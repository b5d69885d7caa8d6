"""The steady state of a closed loop in closed form: what a law of one step means for latency and throughput."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from servolt.gpu import Accelerator
from servolt.plan.roofline import RooflineLaw, least
from servolt.plan.work import Work
from servolt.workload import Slo

__all__ = [
    "STORAGE_BYTES_PER_S",
    "Bottleneck",
    "Saturation",
    "Steady",
    "Times",
    "at_request_rate",
    "load_time_s",
    "room_tokens",
    "saturation",
    "steady",
    "times_of",
]

Bottleneck = Literal[
    "bandwidth", "compute", "communication", "launch", "scheduling", "prefill", "kv_capacity", "batch_limit", "host"
]
# Which addend of a step stands for which limit. Weights, experts and caches are told apart below.
LIMITS: Mapping[str, Bottleneck] = {
    "weights": "bandwidth",
    "experts": "bandwidth",
    "kv_cache": "bandwidth",
    "communication": "communication",
    "layers": "launch",
    "sequences": "scheduling",
    "host": "host",
    "drafting": "bandwidth",
}
# Bisections of the concurrency at a request rate, and of the one at which an Slo breaks: 2^-20 of the range.
HALVINGS = 20
# Beyond this many streams nothing is asked.
MOST_STREAMS = 65536.0
# Of a device's memory, what engines leave to weights and caches: activations, graphs and libraries take the rest.
USABLE_SHARE = 0.88
# Engines load weights from a local NVMe drive at about this rate, with the page cache cold, and compile and capture for
# about this long: PCIe 4.0 drives read 5 to 7 GB/s, of which loaders reach a third.
STORAGE_BYTES_PER_S = 2e9
START_S: Mapping[str, float] = {"vllm": 60.0, "sglang": 60.0, "tensorrt_llm": 90.0, "transformers": 10.0}


class Steady(NamedTuple):
    """Of one deployment, all replicas together, at so many streams in flight. Seconds, and tokens or requests/s.

    concurrency = request_throughput * (ttft + (output_len - 1) * tpot), by Little's law.
    """

    concurrency: float
    running: float  # sequences of them that are in the batch; the rest wait
    ttft_cold: float  # a request that comes alone
    ttft: float  # one among the others
    tpot: float
    itl: float  # between tokens where no prompt comes in between: what most gaps are
    e2el: float
    output_throughput: float
    request_throughput: float
    total_throughput: float
    prefill_throughput: float  # of prompts alone, one replica after another
    waiting_s: float  # of ttft, what a request waits for a place in the batch
    prefill_share: float  # of the engine's time
    bottleneck: Bottleneck


class Saturation(NamedTuple):
    """The streams beyond which more gain nothing or break the Slo, and why."""

    concurrency: float
    limit: Bottleneck | Literal["slo"]


def steady(
    law: RooflineLaw,
    *,
    input_len: float,
    output_len: float,
    concurrency: float,
    kv_cache_tokens: float | None = None,
    max_num_seqs: float | None = None,
) -> Steady:
    """`kv_cache_tokens` and `max_num_seqs` are of one replica; None is no limit."""
    times = times_of(law, input_len, output_len, concurrency, kv_cache_tokens, max_num_seqs)
    e2el = times.ttft + (output_len - 1) * times.tpot
    requests = concurrency / e2el
    prompt_s = law.prefill_s(input_len)
    return Steady(
        concurrency=concurrency,
        running=times.running * law.work.replicas,
        ttft_cold=law.constants.request_s + prompt_s,
        ttft=times.ttft,
        tpot=times.tpot,
        itl=times.step,
        e2el=e2el,
        output_throughput=requests * output_len,
        request_throughput=requests,
        total_throughput=requests * (input_len + output_len),
        prefill_throughput=input_len / prompt_s * law.work.replicas,
        waiting_s=times.waiting,
        prefill_share=min(1.0, requests / law.work.replicas * law.prompt_s(input_len)),
        bottleneck=_bottleneck(law, times, input_len + output_len / 2, concurrency),
    )


class Times(NamedTuple):
    """Of one replica; numbers or arrays."""

    running: float
    room: float  # sequences that fit at the same time
    step: float
    between: float  # of a token's time, what prompts of others take
    tpot: float
    ttft: float
    waiting: float


def times_of(
    law: RooflineLaw,
    input_len: float,
    output_len: float,
    concurrency: float,
    kv_cache_tokens: float | None,
    max_num_seqs: float | None,
) -> Times:
    """Prompts of others fall between a request's own tokens, or before its first one; what does not fit waits."""
    rates, streams = law.constants, concurrency / law.work.replicas
    context = input_len + output_len / 2.0
    room = MOST_STREAMS
    for limit in (None if kv_cache_tokens is None else kv_cache_tokens / context, max_num_seqs):
        room = room if limit is None else least(room, limit)
    room = (room + 1.0 + abs(room - 1.0)) / 2.0
    running = (least(streams, room) + law.work.groups + abs(least(streams, room) - law.work.groups)) / 2.0
    step = law.decode_s(running, context)
    prompt = law.prompt_s(input_len)
    others = running / law.work.groups - 1.0
    others = (others + abs(others)) / 2.0
    between = rates.interference * (1.0 - rates.queue) * others * prompt / output_len
    tpot = step + between
    ahead = rates.queue * others * prompt + _before(running / law.work.groups, prompt, (output_len - 1.0) * tpot)
    first = rates.request_s + step + law.prefill_s(input_len) + ahead
    waiting = (streams / running - 1.0) * (first + (output_len - 1.0) * tpot)
    waiting = (waiting + abs(waiting)) / 2.0
    return Times(running, room, step, between, tpot, first + waiting, waiting)


def _before(streams: float, prompt_s: float, decoding_s: float) -> float:
    """What a prompt waits for those before it: one server for prompts in a closed loop, where all else decode.

    Mean value analysis (Reiser and Lavenberg 1980) in Schweitzer's closed form; half of it, for prompts that take
    equally long wait half as long as those of random length (Pollaczek and Khinchine).
    """
    over = prompt_s * streams - decoding_s
    stay: float = (over + (over**2 + 4.0 * prompt_s * decoding_s) ** 0.5) / 2.0
    return (stay - prompt_s) / 2.0


def _bottleneck(law: RooflineLaw, times: Times, context: float, concurrency: float) -> Bottleneck:
    """What waits first; else the longest part of a token's time."""
    if concurrency / law.work.replicas > times.room:
        return "kv_capacity"
    terms = {term.name: term.seconds for term in law.decode_terms(times.running, context)}
    name = max(terms, key=lambda one: terms[one])
    if times.between > terms[name]:
        return "prefill"
    if name in ("weights", "experts", "kv_cache") and law.computes(name, times.running, context):
        return "compute"
    return LIMITS[name]


def saturation(
    law: RooflineLaw,
    *,
    input_len: float,
    output_len: float,
    kv_cache_tokens: float | None = None,
    max_num_seqs: float | None = None,
    slo: Slo | None = None,
) -> Saturation:
    """The least of what the cache holds, what the engine runs at the same time, and where the Slo breaks."""
    replicas, context = law.work.replicas, input_len + output_len / 2
    found = Saturation(MOST_STREAMS, "compute")
    if max_num_seqs is not None:
        found = Saturation(max_num_seqs * replicas, "batch_limit")
    if kv_cache_tokens is not None and kv_cache_tokens / context * replicas < found.concurrency:
        found = Saturation(max(1.0, kv_cache_tokens / context) * replicas, "kv_capacity")
    if slo is None or _keeps(slo, law, input_len, output_len, found.concurrency):
        return found
    low, high = 0.0, found.concurrency
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _keeps(slo, law, input_len, output_len, middle) else (low, middle)
    return Saturation(low, "slo")


def _keeps(slo: Slo, law: RooflineLaw, input_len: float, output_len: float, concurrency: float) -> bool:
    times = times_of(law, input_len, output_len, max(concurrency, 1.0), None, None)
    e2el = times.ttft + (output_len - 1) * times.tpot
    bounds = ((slo.ttft, times.ttft), (slo.tpot, times.tpot), (slo.e2el, e2el))
    return all(bound is None or value <= bound for bound, value in bounds)


def at_request_rate(
    law: RooflineLaw,
    *,
    input_len: float,
    output_len: float,
    request_rate: float,
    kv_cache_tokens: float | None = None,
    max_num_seqs: float | None = None,
    max_concurrency: float | None = None,
) -> Steady | None:
    """The state in which requests leave as fast as they come; None where they come faster than they can leave.

    `max_concurrency` is of the client, which sends no more at the same time.
    """

    def state(streams: float) -> Steady:
        return steady(
            law,
            input_len=input_len,
            output_len=output_len,
            concurrency=streams,
            kv_cache_tokens=kv_cache_tokens,
            max_num_seqs=max_num_seqs,
        )

    most = saturation(
        law,
        input_len=input_len,
        output_len=output_len,
        kv_cache_tokens=kv_cache_tokens,
        max_num_seqs=max_num_seqs,
    ).concurrency
    if max_concurrency is not None:
        most = min(most, max_concurrency)
    low, high = 0.0, min(1.0, most)
    while high < most and state(high).request_throughput < request_rate:
        low, high = high, min(2.0 * high, most)
    if state(high).request_throughput < request_rate:
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if state(middle).request_throughput < request_rate else (low, middle)
    return state(high)


def load_time_s(engine: str, weights_bytes: float, *, storage_bytes_per_s: float | None = None) -> float:
    """From the start to the first answer: the weights off the drive, and what the engine compiles and captures."""
    return weights_bytes / (storage_bytes_per_s or STORAGE_BYTES_PER_S) + START_S.get(engine, 5.0)


def room_tokens(work: Work, accelerator: Accelerator, context: float) -> float:
    """Tokens of one replica that fit beside the weights, roughly: where no budget of the memory was computed."""
    memory = accelerator.visible_memory_bytes or accelerator.memory_bytes
    free = max(USABLE_SHARE * memory - work.weights_bytes, 0.02 * memory)
    sequence = sum(span.bytes * min(context, span.window) for span in work.spans) + work.state_bytes / 2
    if not memory or not sequence:
        return MOST_STREAMS * context
    return free * work.stages * work.groups / sequence * context
