"""One number for one window and one metric: what `compare` pairs block by block."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servolt.measure.energy import gross_joules, net_joules
from servolt.measure.run import RawRun
from servolt.measure.samples import WindowSamples
from servolt.workload import Slo

__all__ = ["Verdicts", "rounded", "verdicts", "window_metrics"]


def rounded(value: float) -> float:
    """To 9 significant digits: more than any clock here has, fewer than processors differ in when they add up."""
    return float(f"{value:.9g}")


def window_metrics(samples: WindowSamples, run: RawRun) -> dict[str, float]:
    """Means over the requests, rates over the time, of this window alone. What is unknown is absent."""
    found = {name: figure(samples) for name, figure in _FIGURES.items()}
    found |= _energies(samples, run)
    if run.slo is not None:
        found |= _against(samples, run.slo)
    return {name: rounded(value) for name, value in found.items() if value is not None}


class Verdicts(NamedTuple):
    """Of the requests scheduled inside a window: those that kept every bound, and those of which it is not known."""

    good: int
    open: int
    scheduled: int


def verdicts(samples: WindowSamples, slo: Slo) -> Verdicts:
    """A request that the end of the window cut has missed a bound that it had passed by then, and kept a ttft that it
    had met; of any other bound it is not known.
    """
    good = int(_keeps(slo, samples.judged.at_most).sum())
    return Verdicts(good, int(_keeps(slo, samples.judged.at_least).sum()) - good, len(samples.judged.at_most))


def _keeps(slo: Slo, latencies: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Every bound that is set; meeting one exactly is keeping it."""
    bounds = np.array([np.inf if bound is None else bound for bound in (slo.ttft, slo.tpot, slo.e2el)])
    return np.asarray((latencies <= bounds).all(axis=1))


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _rate(count: float, samples: WindowSamples) -> float:
    return count / samples.duration_s


def _cpu_per_token(samples: WindowSamples) -> float | None:
    if samples.window.engine_cpu_s is None or not samples.output_tokens:
        return None
    return samples.window.engine_cpu_s / samples.output_tokens


_FIGURES: Mapping[str, Callable[[WindowSamples], float | None]] = {
    "ttft": lambda samples: _mean(samples.ttft_s),
    "ttft_service": lambda samples: _mean(samples.ttft_service_s),
    "tpot": lambda samples: _mean(samples.tpot_s),
    "itl": lambda samples: None if samples.bundled else _mean(samples.gaps_s),
    "icl": lambda samples: _mean(samples.gaps_s) if samples.bundled else None,
    "e2el": lambda samples: _mean(samples.e2el_s),
    "request_throughput": lambda samples: _rate(samples.completed, samples),
    "output_throughput": lambda samples: _rate(samples.output_tokens, samples),
    "total_throughput": lambda samples: _rate(samples.output_tokens + samples.input_tokens, samples),
    "prefill_throughput": lambda samples: samples.prefill_tokens / samples.prefill_s if samples.prefill_s else None,
    "decode_throughput": lambda samples: samples.decode_throughput,
    "resident_memory": lambda samples: samples.window.resident_bytes,
    "cpu_seconds_per_output_token": _cpu_per_token,
}


def _energies(samples: WindowSamples, run: RawRun) -> dict[str, float | None]:
    joules = gross_joules(samples.window, run.devices)
    return {
        "energy": joules,
        "energy_net_empty": net_joules(samples.window, run.devices, run.idle_empty),
        "energy_net_loaded": net_joules(samples.window, run.devices, run.idle_loaded),
        "energy_per_output_token": _per(joules, samples.output_tokens),
        "energy_per_request": _per(joules, samples.completed),
    }


def _per(joules: float | None, count: float) -> float | None:
    return joules / count if joules is not None and count else None


def _against(samples: WindowSamples, slo: Slo) -> dict[str, float | None]:
    found = verdicts(samples, slo)
    decided = found.scheduled - found.open
    return {
        "request_goodput": _rate(int(_keeps(slo, samples.judged.finished).sum()), samples),
        "slo_attainment": found.good / decided if decided else None,
    }
