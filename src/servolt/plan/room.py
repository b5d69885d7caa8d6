"""From memory to a deployment: the longest context, the most requests, the best quantisation, the smallest device."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.quantization import bits_per_weight, requantized
from servolt.plan.memory.budget import Budget
from servolt.plan.validation_formats import format_problems
from servolt.plan.verdict import fits

__all__ = [
    "LEAST_CONTEXT",
    "BudgetOf",
    "Placed",
    "best_quantization",
    "fitting_accelerators",
    "largest_concurrency",
    "largest_max_model_len",
    "largest_that",
    "lower_formats",
]

BudgetOf = Callable[[Deployment, Model, Accelerator], Budget]

# Below this a conversation hardly fits. Contexts are proposed in whole steps: llama.cpp's cells, and 16 blocks of 16.
LEAST_CONTEXT = 512
CONTEXT_STEP = 256
MOST_CONTEXT = 2**23
MOST_REQUESTS = 4096

# From the most bits to the fewest, as each kind of engine reads them. Below 3 bits answers suffer so that none is
# proposed.
GGUF_LADDER = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m")
TENSOR_LADDER = ("bfloat16", "fp8", "int4")
GGUF_ENGINES = ("llamacpp", "ik_llamacpp")


class Placed(NamedTuple):
    """A device that a deployment fits, with what it takes."""

    accelerator: Accelerator
    budget: Budget
    price: float | None


def largest_that(holds: Callable[[int], bool], least: int, most: int) -> int | None:
    """The largest whole number between the two for which it holds, where it holds for all below; None where for none.

    >>> largest_that(lambda number: number * number <= 1000, 0, 100)
    31
    """
    if least > most or not holds(least):
        return None
    if holds(most):
        return most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if holds(middle) else (least, middle)
    return least


def largest_max_model_len(
    deployment: Deployment, model: Model, accelerator: Accelerator, budget_of: BudgetOf, *, most: int | None = None
) -> int | None:
    """Tokens of one sequence, up to what the model was trained for; None where not even the shortest fits."""
    bound = min(most or MOST_CONTEXT, model.max_position_embeddings or MOST_CONTEXT)
    found = largest_that(
        lambda steps: _fits(deployment, model, accelerator, budget_of, max_model_len=steps * CONTEXT_STEP),
        1,
        bound // CONTEXT_STEP,
    )
    return None if found is None else found * CONTEXT_STEP


def largest_concurrency(
    deployment: Deployment, model: Model, accelerator: Accelerator, budget_of: BudgetOf, length: int
) -> int:
    """Requests of this length at the same time, 0 where not even one fits.

    An engine with a pool is asked how many it holds; one that takes what its slots need is tried with more of them.
    """
    asked = deployment.model_copy(update={"max_model_len": length})
    budget = budget_of(asked, model, accelerator)
    if budget.pooled:
        return min(int(budget.max_concurrency_low), budget.max_num_seqs) if _has_room(budget) else 0
    slots = largest_that(
        lambda number: _fits(asked, model, accelerator, budget_of, max_num_seqs=number), 1, MOST_REQUESTS
    )
    return slots or 0


def best_quantization(
    deployment: Deployment, model: Model, accelerator: Accelerator, budget_of: BudgetOf
) -> str | None:
    """The format with the most bits with which it fits: its own where that does, None where none does."""
    if fits(budget_of(deployment, model, accelerator)):
        return model.quantization
    for name in lower_formats(deployment, model, accelerator):
        if fits(budget_of(deployment, requantized(model, name), accelerator)):
            return name
    return None


def lower_formats(deployment: Deployment, model: Model, accelerator: Accelerator) -> list[str]:
    """That engine and device take, most bits first. None where the layers aren't known."""
    if not model.layers or not model.total_params:
        return []
    own = 8 * model.weights_bytes / model.total_params
    is_gguf = deployment.engine in GGUF_ENGINES
    ladder, worth = (GGUF_LADDER, 0.95) if is_gguf else (TENSOR_LADDER, 0.8)
    found = []
    for name in ladder:
        try:
            smaller = bits_per_weight(name) < own * worth
        except InvalidInputError:
            continue
        if smaller and not _refused(deployment, requantized(model, name), accelerator):
            found.append(name)
    return found


def fitting_accelerators(
    deployment: Deployment,
    model: Model,
    accelerators: Sequence[Accelerator],
    budget_of: BudgetOf,
    *,
    prices: Mapping[str, float] | None = None,
) -> list[Placed]:
    """Those it fits: the cheapest first where prices (by name, of one device) are known, then the smallest."""
    known = prices or {}
    found = []
    for accelerator in accelerators:
        own = deployment
        if deployment.hardware is not None:
            hardware = deployment.hardware.model_copy(update={"accelerator": accelerator.name, "memory_bytes": None})
            own = deployment.model_copy(update={"hardware": hardware})
        budget = budget_of(own, model, accelerator)
        if fits(budget):
            found.append(Placed(accelerator, budget, known.get(accelerator.name)))
    return sorted(found, key=_cheapest)


def _cheapest(placed: Placed) -> tuple[bool, float, int]:
    return placed.price is None, placed.price or 0.0, placed.accelerator.memory_bytes


def _has_room(budget: Budget) -> bool:
    ranks = [rank for rank in budget.per_rank if rank.available_bytes is not None]
    return all(rank.high_bytes <= (rank.available_bytes or 0) for rank in ranks)


def _refused(deployment: Deployment, model: Model, accelerator: Accelerator) -> bool:
    return any(problem.severity == "error" for problem in format_problems(deployment, model, accelerator))


def _fits(deployment: Deployment, model: Model, accelerator: Accelerator, budget_of: BudgetOf, **change: int) -> bool:
    return fits(budget_of(deployment.model_copy(update=change), model, accelerator))
