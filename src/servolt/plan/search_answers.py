"""Questions the other way round: from memory to a context, a batch, a format, a device; and several models on one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from servolt.deployment import Deployment, Hardware
from servolt.document import Document, Value
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.coresident import Coresidence, coresident
from servolt.plan.memory.emulate import budget_of as recompute
from servolt.plan.memory.sharding import ranks_of
from servolt.plan.room import (
    BudgetOf,
    best_quantization,
    fitting_accelerators,
    largest_concurrency,
    largest_max_model_len,
)
from servolt.workload import Workload

__all__ = ["QUESTIONS", "Answer", "Place", "Question", "answered", "together"]

Question = Literal["largest-context", "largest-batch", "best-quantization", "cheapest-accelerator", "together"]


class Place(Value):
    """An accelerator that the deployment fits."""

    accelerator: str
    devices: int
    total_bytes: int = Field(description="of the fullest device")
    available_bytes: int | None
    usd_per_hour: float | None = Field(description="of all devices")


class Answer(Document):
    """What was asked about one deployment. `value` is None where nothing fits."""

    schema_: Literal["servolt.answer/1"] = Field("servolt.answer/1", alias="schema")
    question: Question
    deployment: Deployment
    accelerator: str | None = Field(None, description="that it was asked of")
    devices: int | None = None
    value: int | str | None
    unit: str
    sentence: str
    places: tuple[Place, ...] = Field((), description="the cheapest first, then the smallest without a price")
    together: Coresidence | None = None


def answered(
    question: Question,
    deployment: Deployment,
    model: Model,
    accelerators: Sequence[Accelerator],
    workload: Workload,
    *,
    usd_per_hour: Mapping[str, float] | None = None,
    budget_of: BudgetOf = recompute,
) -> Answer:
    """Of the first accelerator; `cheapest-accelerator` of all of them. Prices are of one device, by its name."""
    if question == "cheapest-accelerator":
        return _cheapest(deployment, model, accelerators, usd_per_hour or {}, budget_of)
    value, unit, sentence = QUESTIONS[question](deployment, model, accelerators[0], workload, budget_of)
    return Answer(
        question=question,
        deployment=deployment,
        accelerator=accelerators[0].name,
        devices=accelerators[0].count,
        value=value,
        unit=unit,
        sentence=sentence,
    )


def together(
    models: Sequence[tuple[Deployment, Model]], accelerator: Accelerator, budget_of: BudgetOf = recompute
) -> Answer:
    """Several deployments on one machine, in the order in which they start."""
    found = coresident(models, accelerator, budget_of)
    many, machine = f"{len(models)} models", f"{accelerator.count} x {accelerator.name}"
    sentences = {
        "fits": f"{many} fit {machine} together.",
        "tight": f"{many} may fit {machine} together: what they take at most is more than there is.",
        "no": f"{many} do not fit {machine} together.",
    }
    return Answer(
        question="together",
        deployment=models[0][0],
        accelerator=accelerator.name,
        devices=accelerator.count,
        value=found.verdict,
        unit="",
        sentence=sentences[found.verdict],
        together=found,
    )


_Found = tuple[int | str | None, str, str]


def _context(
    deployment: Deployment, model: Model, accelerator: Accelerator, workload: Workload, budget_of: BudgetOf
) -> _Found:
    length = largest_max_model_len(deployment, model, accelerator, budget_of)
    if length is None:
        return None, "tokens", "Not even the shortest context fits."
    trained = model.max_position_embeddings
    why = ", which is all that the model was trained for" if trained and length > trained - 256 else ""
    return length, "tokens", f"The longest context that fits is {length:,} tokens{why}: --max-model-len {length}."


def _batch(
    deployment: Deployment, model: Model, accelerator: Accelerator, workload: Workload, budget_of: BudgetOf
) -> _Found:
    length = deployment.max_model_len or workload.input_len + workload.output_len
    number = largest_concurrency(deployment, model, accelerator, budget_of, length)
    if not number:
        return None, "requests", f"Not even one request of {length:,} tokens fits."
    return (
        number,
        "requests",
        f"{number:,} requests of {length:,} tokens fit at the same time: --max-num-seqs {number}.",
    )


def _quantization(
    deployment: Deployment, model: Model, accelerator: Accelerator, workload: Workload, budget_of: BudgetOf
) -> _Found:
    name = best_quantization(deployment, model, accelerator, budget_of)
    if name is None:
        return None, "", "No format from 3 bits up fits."
    if name == model.quantization:
        return name, "", f"It fits as it is, in {name}."
    return name, "", f"The most precise format that fits is {name}: --quantization {name}."


QUESTIONS: Mapping[str, Callable[[Deployment, Model, Accelerator, Workload, BudgetOf], _Found]] = {
    "largest-context": _context,
    "largest-batch": _batch,
    "best-quantization": _quantization,
}


def _cheapest(
    deployment: Deployment,
    model: Model,
    accelerators: Sequence[Accelerator],
    usd_per_hour: Mapping[str, float],
    budget_of: BudgetOf,
) -> Answer:
    count = max(ranks_of(deployment).devices, deployment.hardware.count if deployment.hardware else 1)
    hardware = (deployment.hardware or Hardware()).model_copy(update={"count": count})
    asked = deployment.model_copy(update={"hardware": hardware})
    machines = [accelerator.model_copy(update={"count": count}) for accelerator in accelerators]
    placed = fitting_accelerators(asked, model, machines, budget_of, prices=usd_per_hour)
    places = tuple(
        Place(
            accelerator=one.accelerator.name,
            devices=count,
            total_bytes=one.budget.total_bytes,
            available_bytes=one.budget.available_bytes,
            usd_per_hour=None if one.price is None else one.price * count,
        )
        for one in placed
    )
    return Answer(
        question="cheapest-accelerator",
        deployment=deployment,
        devices=count,
        value=places[0].accelerator if places else None,
        unit="",
        sentence=_sentence(places, len(machines), count),
        places=places,
    )


def _sentence(places: Sequence[Place], tried: int, count: int) -> str:
    if not places:
        return f"It fits none of {tried} accelerators, {count} of each. More of them, or fewer bits, may do."
    first = places[0]
    price = "whose price is not known" if first.usd_per_hour is None else f"{first.usd_per_hour:.2f} USD/h"
    return f"{count} x {first.accelerator}, {price}, is the cheapest of {len(places)} that it fits."
