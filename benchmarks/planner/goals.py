"""The planner's goals, each with what was reached."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.planner.columns import GIB
from benchmarks.planner.score import Error, quantile
from benchmarks.planner.verdicts import Verdicts

__all__ = ["Goal", "goals_of"]

# Loads of an engine as it comes, in a closed loop.
CLOSED = "agg"
# What logs round: two digits of GiB or MiB.
EXACT = 1e-3


class Goal(NamedTuple):
    """`reached` is None where no case tells."""

    quantity: str
    goal: str
    cases: int
    found: str
    reached: bool | None


class Limit(NamedTuple):
    share: float  # 0.5 is the median
    most: float

    @property
    def name(self) -> str:
        return "median" if self.share == 0.5 else f"p{self.share * 100:.0f}"


def goals_of(
    memory: Sequence[Error],
    logged: Sequence[Error],
    speed: Sequence[Error],
    after: Sequence[Sequence[Error]],
    crowd: Sequence[Error],
    totals: Sequence[float],
    verdicts: Sequence[Verdicts],
    seconds: Sequence[float],
) -> list[Goal]:
    """`logged` are errors after a start-up log, `after[0]` after one measured point, `after[1]` after two; `totals`
    are the errors of parameter counts. All without the rows that trap, but for coverage."""
    return [
        _shares("parameters, exact", totals, Limit(1.0, 0.0)),
        _relative("weights", _of(memory, "weights_bytes", "vllm", "sglang"), Limit(0.5, 0.003), Limit(0.95, 0.01)),
        _relative("weights, llama.cpp", _of(memory, "weights_bytes", *LLAMA), Limit(0.5, 0.003), Limit(0.95, 0.01)),
        _relative("vLLM KV tokens", _of(memory, "kv_cache_tokens", "vllm"), Limit(0.5, 0.01), Limit(0.9, 0.03)),
        _relative("vLLM KV tokens after a log", _of(logged, "kv_cache_tokens", "vllm"), Limit(0.5, 0.003)),
        _relative("SGLang KV tokens", _of(memory, "kv_cache_tokens", "sglang"), Limit(0.5, 0.015), Limit(0.9, 0.05)),
        _relative("llama.cpp KV", _of(memory, "kv_cache_bytes", *LLAMA), Limit(0.5, EXACT), Limit(0.9, EXACT)),
        _relative("llama.cpp state", _of(memory, "state_bytes", *LLAMA), Limit(0.5, EXACT), Limit(0.9, EXACT)),
        _relative("llama.cpp compute", _of(memory, "activation_bytes", "llamacpp"), Limit(0.5, 0.02)),
        _activation("activation, dense", memory, "dense", 0.15),
        _activation("activation, MoE", memory, "moe", 0.4),
        *_verdicts(verdicts),
        _relative("TPOT cold", _closed(speed, "tpot"), Limit(0.5, 0.14), Limit(0.9, 0.4)),
        _relative("TPOT after 1 point", _closed(after[0], "tpot"), Limit(0.5, 0.085), Limit(0.9, 0.28)),
        _relative("TPOT after 2 points", _closed(after[1], "tpot"), Limit(0.5, 0.07), Limit(0.9, 0.22)),
        _relative("TTFT steady", _closed(speed, "ttft"), Limit(0.5, 0.25)),
        _relative("power", _of(speed, "power"), Limit(0.5, 0.1)),
        _relative("J per output token", _of(speed, "energy_per_output_token"), Limit(0.5, 0.1)),
        *_coverage((*memory, *speed, *crowd)),
        _inside(_closed(speed, "tpot")),
        _time(seconds),
        Goal("search", "within 5% of the best measured in 80% of frontiers", 0, "not asked here", None),
        Goal("commands", "100% parsed by the real parser", 0, "not asked here", None),
    ]


LLAMA = ("llamacpp", "ik_llamacpp")


def _of(errors: Iterable[Error], figure: str, *engines: str) -> list[Error]:
    return [
        error
        for error in errors
        if error.figure == figure
        and not error.case.trap
        and (not engines or error.case.deployment["engine"] in engines)
    ]


def _closed(errors: Iterable[Error], figure: str) -> list[Error]:
    return [error for error in _of(errors, figure) if error.case.kind == CLOSED]


def _relative(quantity: str, errors: Sequence[Error], *limits: Limit) -> Goal:
    return _shares(quantity, [error.size for error in errors], *limits)


def _shares(quantity: str, sizes: Sequence[float], *limits: Limit) -> Goal:
    """A refusal is an error without bound."""
    goal = ", ".join(f"{limit.name} <= {limit.most:.3g}" for limit in limits)
    if not sizes:
        return Goal(quantity, goal, 0, "no cases", None)
    found = [quantile(sizes, limit.share) or 0.0 for limit in limits]
    words = ", ".join(f"{limit.name} {value:.4f}" for limit, value in zip(limits, found, strict=True))
    reached = all(value <= limit.most for limit, value in zip(limits, found, strict=True))
    return Goal(quantity, goal, len(sizes), words, reached)


def _activation(quantity: str, errors: Iterable[Error], cls: str, most_gib: float) -> Goal:
    some = [error for error in _of(errors, "activation_bytes", "vllm", "sglang") if cls in error.case.classes]
    off = [abs((error.value or 0.0) - error.seen) / GIB for error in some]
    goal = f"mean <= {most_gib} GiB"
    if not off:
        return Goal(quantity, goal, 0, "no cases", None)
    mean = sum(off) / len(off)
    return Goal(quantity, goal, len(off), f"mean {mean:.3f} GiB", mean <= most_gib)


def _verdicts(verdicts: Sequence[Verdicts]) -> Iterator[Goal]:
    ran, ran_out = sum(one.ran for one in verdicts), sum(one.ran_out for one in verdicts)
    fits, no = sum(len(one.false_fits) for one in verdicts), sum(len(one.false_no) for one in verdicts)
    yield Goal("no false fits", "0", ran_out, f"{fits} of {ran_out}", fits == 0 if ran_out else None)
    yield Goal("false no", "<= 3%", ran, f"{no / ran:.1%}" if ran else "no cases", no / ran <= 0.03 if ran else None)


def _coverage(errors: Sequence[Error]) -> Iterator[Goal]:
    answered = sum(error.value is not None for error in errors)
    words = f"{answered / len(errors):.1%}" if errors else "no cases"
    yield Goal("a number for every figure", "100%", len(errors), words, answered == len(errors) if errors else None)


def _inside(errors: Sequence[Error]) -> Goal:
    known = [error.inside for error in errors if error.inside is not None]
    share = sum(known) / len(known) if known else 0.0
    reached = 0.75 <= share <= 0.88 if known else None
    return Goal("TPOT within P10-P90", "75-88%", len(known), f"{share:.1%}" if known else "no cases", reached)


def _time(seconds: Sequence[float]) -> Goal:
    slow = quantile(seconds, 0.95)
    if slow is None:
        return Goal("one plan, processor time", "p95 <= 50 ms", 0, "no cases", None)
    return Goal("one plan, processor time", "p95 <= 50 ms", len(seconds), f"p95 {slow * 1e3:.1f} ms", slow <= 0.05)
