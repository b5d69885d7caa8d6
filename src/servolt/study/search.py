"""The best way to run a model, and questions the other way round: catalogue, prices and weights are fetched here."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from servolt import __version__
from servolt.catalogue import accelerators, find_accelerator, prices
from servolt.deployment import Deployment, Hardware, Speculation
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.plan.cost import Economy
from servolt.plan.search import Search, search
from servolt.plan.search_answers import Answer, Question, answered, together
from servolt.plan.search_learnt import Learnt
from servolt.plan.search_limits import Constraints, Objective
from servolt.plan.search_space import LOADS, Space
from servolt.plan.validation_options import ENGINES
from servolt.settings import Folders
from servolt.sources import find_or_guess
from servolt.study.economy import economy_for
from servolt.study.keep import read_accelerator
from servolt.study.learn import read_known
from servolt.study.plan import accelerator_of
from servolt.workload import Workload

__all__ = ["Axes", "answer_for", "economies_of", "search_for", "together_for"]


class Axes(NamedTuple):
    """What a search varies, by name; what is empty is varied as usual."""

    accelerators: Sequence[str] = ()
    counts: Sequence[int] = ()
    engines: Sequence[str] = ()
    quantizations: Sequence[str | None] = ()  # None is the model's own
    kv_cache_dtypes: Sequence[str] = ()
    max_num_seqs: Sequence[int] = ()
    speculations: Sequence[Speculation | None] = ()  # None is without


def search_for(
    deployment: Deployment,
    workload: Workload,
    axes: Axes,
    limits: Constraints,
    given: Mapping[str, Any],
    folders: Folders,
    *,
    objective: Objective | None = None,
    load_is_given: bool = True,
) -> Search:
    """Over the accelerators named, else the one of the deployment, else all that have a price in the catalogue.

    `given` are prices as `economy_for` takes them. Without a given load, each configuration is tried at several.
    Raises ModelNotFoundError, ModelFileError, InvalidInputError.
    """
    machines = _machines(deployment, axes.accelerators)
    space = Space(
        deployment,
        find_or_guess(deployment),
        machines,
        counts=axes.counts,
        engines=_engines_named(axes.engines),
        quantizations=axes.quantizations,
        kv_cache_dtypes=axes.kv_cache_dtypes,
        max_num_seqs=axes.max_num_seqs or (None,),
        speculations=axes.speculations,
        loads=() if load_is_given else LOADS,
        min_bits=limits.min_bits,
    )
    learnt = Learnt(read_known(folders), tool_version=__version__)
    usd = economies_of(deployment, machines, given)
    return search(space, workload, limits, usd, objective=objective, learnt=learnt)


def answer_for(
    question: Question,
    deployment: Deployment,
    workload: Workload,
    names: Sequence[str],
    given: Mapping[str, Any],
    folders: Folders,
) -> Answer:
    """On the hardware that the deployment names, else on this machine; `cheapest-accelerator` over those named, else
    over the catalogue."""
    model = find_or_guess(deployment)
    if question == "cheapest-accelerator":
        machines = [find_accelerator(name) for name in names] or [one for one in accelerators() if one.kind == "gpu"]
        usd = {name: one.usd_per_device_hour for name, one in economies_of(deployment, machines, given).items()}
        known = {name: price for name, price in usd.items() if price is not None}
        return answered(question, deployment, model, machines, workload, usd_per_hour=known)
    return answered(question, deployment, model, [_machine(deployment, folders)], workload)


def together_for(deployments: Sequence[Deployment], folders: Folders) -> Answer:
    """All on the machine that the first one names."""
    machine = _machine(deployments[0], folders)
    return together([(one, find_or_guess(one)) for one in deployments], machine)


def economies_of(
    deployment: Deployment, machines: Sequence[Accelerator], given: Mapping[str, Any]
) -> dict[str, Economy]:
    """By name: the prices that were given, else the cheapest offer of each that has one."""
    found = {}
    for machine in machines:
        asked = deployment.model_copy(update={"hardware": Hardware(accelerator=machine.name)})
        if (economy := economy_for(asked, given)) is not None:
            found[machine.name] = economy
    return found


def _engines_named(names: Sequence[str]) -> list[str]:
    """As a deployment spells them: vLLM is vllm. Of an engine that nobody knows only guesses would be compared."""
    spelled = [Deployment(model="any", engine=name).engine for name in names]
    for name in spelled:
        if name not in ENGINES:
            near = difflib.get_close_matches(name, ENGINES, n=3, cutoff=0.4)
            nearest = f" The nearest: {', '.join(near)}." if near else ""
            raise InvalidInputError(f"no engine is called {name!r}.{nearest}", f"There are {', '.join(ENGINES)}.")
    return spelled


def _machines(deployment: Deployment, names: Sequence[str]) -> list[Accelerator]:
    if names:
        found = [find_accelerator(name) for name in names]
        return list({one.name: one for one in found}.values())
    if deployment.hardware is not None and deployment.hardware.accelerator is not None:
        return [accelerator_of(deployment)]
    priced = {offer.accelerator for offer in prices()}
    found = [one for one in accelerators() if one.name in priced]
    if not found:
        raise InvalidInputError("no accelerator has a price.", "Name some with --accelerators H100,L40S.")
    return found


def _machine(deployment: Deployment, folders: Folders) -> Accelerator:
    is_named = deployment.hardware is not None and deployment.hardware.accelerator is not None
    return accelerator_of(deployment) if is_named else read_accelerator(folders)
