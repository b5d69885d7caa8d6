"""How a figure of the roofline came about, with its values: what a reader needs to compute it again by hand."""

import math

from servolt.gpu import Accelerator
from servolt.plan.idle import Draw
from servolt.plan.peaks import ARITHMETIC
from servolt.plan.power import drawn_by
from servolt.plan.roofline import RooflineLaw
from servolt.plan.steady import Steady, Times
from servolt.plan.work import Four

__all__ = ["in_step", "load_time_said", "power_said", "prefill_said", "tpot_said", "ttft_said"]


def in_step(law: RooflineLaw, sequences: float, context: float) -> dict[str, str]:
    """By the name of a term: its formula. `sequences` are of one replica."""
    work, rates, sides = law.work, law.constants, law.sides(sequences, context)
    per_pass = sequences / work.groups / min(work.stages, sequences)
    bandwidth = work.bandwidth_bytes_per_s
    tokens = f"{per_pass:.6g} tokens of one pass"
    cache = sum(span.bytes * min(context, span.window) for span in work.spans) + work.state_bytes
    parts = {
        "weights": f"{_read(work.dense_bytes, rates.dense_bandwidth, bandwidth)} + head {work.head_bytes:.6g} B / "
        f"({rates.head_bandwidth:.4g} x {bandwidth:.5g} B/s)",
        "experts": f"{_touched(law, sides[1][0]):.5g} of the experts x "
        f"({_read(work.expert_bytes, rates.expert_bandwidth, bandwidth)})",
        "kv_cache": f"{per_pass:.6g} sequences x {cache:.6g} B at {context:.6g} tokens / "
        f"({_cache_share(law):.4g} x {bandwidth:.5g} B/s)",
        "communication": f"{tokens} x {work.link_s:.4g} s at the link's rate / {rates.link:.4g}",
        "layers": _layers(law),
        "sequences": f"{per_pass:.6g} sequences x {rates.sequence_s:.4g} s",
        "host": f"{work.host_s:.4g} s of weights from the host's memory",
    }
    found = {}
    for (name, said), (read_s, flop_s) in zip(parts.items(), sides, strict=True):
        found[name] = f"{said} = {read_s:.5g} s"
        if flop_s:
            found[name] += f"; arithmetic {flop_s:.5g} s; both: (m^p + a^p)^(1/p), p = {rates.overlap:.4g}"
    return found


def _touched(law: RooflineLaw, read_s: float) -> float:
    rates, work = law.constants, law.work
    pairs = zip(work.expert_bytes, rates.expert_bandwidth, strict=True)
    whole_s = sum(size / share for size, share in pairs) / work.bandwidth_bytes_per_s
    return read_s / whole_s if whole_s else 0.0


def _layers(law: RooflineLaw) -> str:
    rates, work = law.constants, law.work
    costs = (
        ("layers", work.layers, rates.layer_s),
        ("with experts", work.expert_layers, rates.expert_layer_s),
        ("with a latent", work.latent_layers, rates.latent_layer_s),
        ("with an index", work.indexed_layers, rates.indexed_layer_s),
        ("recurrent", work.recurrent_layers, rates.recurrent_layer_s),
        ("choices of experts", work.expert_choices, rates.expert_choice_s),
        ("with shared experts", work.shared_layers, rates.shared_layer_s),
        ("with scaled inputs", work.scaled_layers, rates.scaled_layer_s),
        ("with exchanged experts", work.exchanged_layers, rates.exchange_layer_s),
    )
    return " + ".join(
        [f"{rates.step_s:.6g} s", *(f"{count:g} {name} x {cost:.6g} s" for name, count, cost in costs if count * cost)]
    )


def _read(sizes: Four, shares: Four, bandwidth: float) -> str:
    said = [
        f"{name} {size:.6g} B / ({share:.4g} x {bandwidth:.5g} B/s)"
        for name, size, share in zip(ARITHMETIC, sizes, shares, strict=True)
        if size
    ]
    return " + ".join(said) or "0 B"


def _cache_share(law: RooflineLaw) -> float:
    latent = law.work.latent_layers / law.work.layers
    return law.constants.cache_bandwidth * (1.0 - latent + latent * law.constants.latent_bandwidth)


def tpot_said(times: Times, factor: float) -> str:
    """A step, and what of others' prompts falls between two tokens."""
    return f"one decode step {times.step:.6g} s + prompts of others between {times.between:.6g} s" + _times(factor)


def ttft_said(law: RooflineLaw, times: Times, input_len: float, factor: float) -> str:
    rates, alone = law.constants, law.prefill_s(input_len)
    ahead = times.ttft - times.waiting - rates.request_s - times.step - alone
    said = f"request {rates.request_s:.5g} s + a step that runs {times.step:.5g} s + prompt {alone:.5g} s + "
    said += f"prompts of others ahead {max(ahead, 0.0):.5g} s + waiting for a place {times.waiting:.5g} s"
    return said + _times(factor)


def prefill_said(law: RooflineLaw, input_len: float, factor: float) -> str:
    said = f"{input_len:g} tokens / {law.prefill_s(input_len):.6g} s of a prompt alone"
    said += "" if law.work.replicas == 1 else f" x {law.work.replicas:g} copies"
    terms = " + ".join(f"{name} {seconds:.5g} s" for name, seconds in law.prompt_terms(input_len).items() if seconds)
    return f"{said}{_times(factor)}; the prompt: {terms}"


def power_said(law: RooflineLaw, state: Steady, accelerator: Accelerator, draw: Draw, factor: float) -> str:
    found = drawn_by(law, state)
    said = (
        f"{accelerator.count} x {accelerator.tdp_w:g} W x ({found.floor:.4g} + {1 - found.floor:.4g} x "
        f"(1 - exp(-({found.memory:.4g} x {found.read:.4g} + {found.arithmetic:.4g} x sqrt({found.computed:.4g}))))), "
        "shares of the time that memory is read and arithmetic done"
    ) + _times(factor)
    if draw.busy == 1.0:
        return said
    return f"{draw.busy:.5g} x {draw.busy_w:.5g} W + {1 - draw.busy:.5g} x {draw.idle_w:.4g} W; at work {said}"


def load_time_said(weights_bytes: float, bytes_per_s: float, start_s: float) -> str:
    return f"{weights_bytes:.6g} B of weights / {bytes_per_s:.4g} B/s + start, compile and capture {start_s:g} s"


def _times(factor: float) -> str:
    return "" if math.isclose(factor, 1.0) else f"; x {factor:.5g} by what was measured"
