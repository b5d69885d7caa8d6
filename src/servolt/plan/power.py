"""What the devices of a deployment draw under a load, from how busy their memory and their arithmetic are."""

import math

from servolt.gpu import Accelerator
from servolt.plan.roofline import RooflineLaw
from servolt.plan.steady import Steady

__all__ = ["power_w"]

# Share of the power limit: a floor, then a saturating rise with the use of memory and arithmetic. Fitted on 371 runs of
# text models on H100 and B200 (ML.ENERGY leaderboard v3, 2026-02): 12 % median with model families left out.
FLOOR, MEMORY, ARITHMETIC = 0.49, 0.64, 2.6
MEMORY_TERMS = frozenset({"weights", "experts", "kv_cache", "head"})


def power_w(law: RooflineLaw, state: Steady, accelerator: Accelerator) -> float:
    """Watts of all devices, of accelerators whose power limit is known."""
    sequences = state.running / law.work.replicas
    context = (state.total_throughput - state.output_throughput / 2) / state.request_throughput
    terms = law.decode_terms(sequences, context)
    read_s = sum(term.seconds for term in terms if term.name in MEMORY_TERMS)
    reading, computing = read_s / state.tpot, state.prefill_share
    busy = MEMORY * min(1.0, reading) + ARITHMETIC * math.sqrt(min(1.0, computing))
    share = FLOOR + (1 - FLOOR) * (1 - math.exp(-busy))
    return (accelerator.tdp_w or 0.0) * accelerator.count * share
