"""The plan of a deployment, here or elsewhere: what its parts need from folders and adapters is fetched here."""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servolt import __version__, registry
from servolt.catalogue import AmbiguousNameError, find_accelerator
from servolt.deployment import Deployment, Hardware
from servolt.document import Problem
from servolt.errors import InvalidInputError, ServoltError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.quantization import words_of
from servolt.plan import KnownPoint, Plan, make_plan
from servolt.settings import Folders
from servolt.sources import find_model, find_or_guess
from servolt.sources.guesses import ends_of
from servolt.study.keep import read_accelerator, read_calibration
from servolt.study.learn import read_known
from servolt.study.trace import with_trace
from servolt.workload import Slo, Workload

if TYPE_CHECKING:
    from servolt.plan.cost import Economy

__all__ = ["accelerator_of", "plan_for", "plan_here", "with_plugins"]

_MEMORY = re.compile(r"\s*\d+ ?GB")
OLLAMA_DEFAULT = "q4_k_m"  # of tags that name no format, in Ollama's library
RUN_LLAMACPP = frozenset({"ollama", "lmstudio", "llamafile", "koboldcpp"})


def plan_for(
    deployment: Deployment,
    workload: Workload,
    folders: Folders,
    *,
    model: Model | None = None,
    measured: Sequence[KnownPoint] = (),
    slo: Slo | None = None,
    economy: "Economy | None" = None,
) -> Plan:
    """On the hardware that the deployment names, else on this machine. `measured` points correct this plan alone.

    `model` is what the deployment's name stands for, where that is known already. Raises ModelNotFoundError,
    ModelFileError, InvalidInputError, StorageError.
    """
    workload = with_trace(workload)
    if deployment.hardware is None or deployment.hardware.accelerator is None:
        if measured:
            raise InvalidInputError(
                "measured points correct plans for a named accelerator.",
                "Name one with --accelerator; on this machine `servolt measure` corrects the next plan by itself.",
            )
        if workload.is_spread or workload.max_concurrency is not None:
            raise InvalidInputError(
                "spread lengths, caps and traces are planned for a named accelerator.",
                "Name one with --accelerator, or give numbers for the lengths and a rate or a concurrency.",
            )
        return with_plugins(plan_here(deployment, workload, folders, model))
    from servolt.plan.device import make_device_plan  # half of what a plan imports, and not needed for this machine

    deployment, problems = _as_engine_inside(deployment)
    accelerator = accelerator_of(deployment)
    model, doubts = _with_draft(deployment, model or find_or_guess(deployment))
    problems = (*problems, *_of_several_sizes(deployment, accelerator))
    planned = partial(
        make_device_plan,
        deployment,
        accelerator=accelerator,
        workload=workload,
        known=read_known(folders),
        points=measured,
        tool_version=__version__,
        slo=slo,
        economy=economy,
        problems=(*problems, *doubts),
    )
    plan = planned(model=model)
    ends = ends_of(model, deployment)
    if ends:
        from servolt.plan.range import spanned

        plan = spanned(plan, [planned(model=end) for end in ends])
    return with_plugins(_with_doubt(plan))


def _as_engine_inside(deployment: Deployment) -> tuple[Deployment, tuple[Problem, ...]]:
    """Ollama and its like start llama.cpp, and take what it takes; their versions are not its versions."""
    if deployment.engine.lower().replace(" ", "") not in RUN_LLAMACPP:
        return deployment, ()
    changed = {"engine": "llamacpp", "engine_version": None}
    asked = Deployment.of(deployment.model).quantization or ""
    is_named = deployment.quantization is not None or words_of(asked) or words_of(deployment.model)
    if not is_named and not Path(deployment.model).expanduser().exists():
        changed["quantization"] = OLLAMA_DEFAULT
    weights = f", weights as {OLLAMA_DEFAULT}, its library's usual ones" if "quantization" in changed else ""
    said = Problem(
        code="engine_inside",
        severity="note",
        message=f"{deployment.engine} runs llama.cpp: planned as that, with llama.cpp's own defaults{weights}.",
        remedy=f"Set max_model_len, max_num_seqs and quantization to what {deployment.engine} is set to.",
    )
    return deployment.model_copy(update=changed), (said,)


def _with_draft(deployment: Deployment, model: Model) -> tuple[Model, tuple[Problem, ...]]:
    """The model with what its draft model takes, or a warning that this is not known."""
    speculation = deployment.speculative_config
    if speculation is None or speculation.method != "draft_model" or speculation.model is None:
        return model, ()
    from servolt.plan.memory.draft import with_draft

    try:
        draft = find_or_guess(Deployment.of(speculation.model, engine=deployment.engine))
    except ServoltError as error:
        why = f"Nothing is known of the draft model {speculation.model}: its memory is not counted. {error}"
        return model, (
            Problem(code="draft_unknown", severity="warning", message=why, remedy="Name one that is known."),
        )
    return with_draft(model, draft), ()


def _with_doubt(plan: Plan) -> Plan:
    """Says so where the model is a guess."""
    why = plan.model.metadata.get("guessed_because")
    if why is None:
        return plan
    problem = Problem(
        code="model_guessed",
        severity="warning",
        message=str(why),
        remedy="Give the path of its config.json or files, or make the Hub reachable: then the plan rests on more.",
    )
    return plan.model_copy(update={"problems": (problem, *plan.problems)})


def with_plugins(plan: Plan) -> Plan:
    """With the figures of all formulas that are installed beside servolt."""
    names = registry.names("formulas")
    if not names:
        return plan
    from servolt.plan.formulas import with_formulas

    return with_formulas(plan, [(name, partial(registry.formula, name)) for name in names])


def accelerator_of(deployment: Deployment) -> Accelerator:
    """The devices that a deployment names, as the catalogue knows them. Raises InvalidInputError with nearest names."""
    hardware = deployment.hardware or Hardware()
    found = _found(hardware.accelerator or "", hardware.memory_bytes)
    ranks = (
        (deployment.tensor_parallel_size or 1)
        * (deployment.pipeline_parallel_size or 1)
        * (deployment.data_parallel_size or 1)
    )
    count = hardware.count if "count" in hardware.model_fields_set else max(found.count, ranks)
    changed: dict[str, Any] = {"count": count}
    if hardware.memory_bytes is not None:
        changed |= {"visible_memory_bytes": hardware.memory_bytes}
        changed |= {"memory_bytes": max(found.memory_bytes, hardware.memory_bytes)}
    return found.model_copy(update=changed)


def _found(name: str, memory_bytes: int | None) -> Accelerator:
    """Of several that are called so, such as A100, what is seen of its memory tells which."""
    try:
        return find_accelerator(name)
    except AmbiguousNameError as error:
        if memory_bytes is not None:
            return find_accelerator(f"{name} {memory_bytes / 2**30:.0f} GiB")
        sizes = [find_accelerator(candidate) for candidate in error.candidates]
        if len({_MEMORY.sub("", one.name) for one in sizes}) > 1:
            raise
        return min(sizes, key=lambda one: one.memory_bytes)


def _of_several_sizes(deployment: Deployment, found: Accelerator) -> tuple[Problem, ...]:
    """A100 is sold with 40 and with 80 GB: what fits the smaller fits both."""
    name = deployment.hardware.accelerator if deployment.hardware else None
    try:
        find_accelerator(name or found.name)
    except AmbiguousNameError as error:
        if deployment.hardware is None or deployment.hardware.memory_bytes is None:
            message = f"{name} may be {' or '.join(error.candidates)}: planned as {found.name}, the smaller."
            remedy = "Name it in full, or set hardware.memory_bytes."
            return (Problem(code="accelerator_size", severity="warning", message=message, remedy=remedy),)
    return ()


def plan_here(deployment: Deployment, workload: Workload, folders: Folders, model: Model | None = None) -> Plan:
    """Raises ModelNotFoundError, ModelFileError, InvalidInputError, StorageError.

    A problem that the engine calls an error is in `warnings`; the plan then has no command.
    """
    model = model or find_model(deployment)
    engine = registry.engine(deployment.engine)
    accelerator = read_accelerator(folders)
    problems = [*_no_executable(deployment), *engine.problems(deployment, model, (accelerator,))]
    startable = all(problem.severity != "error" for problem in problems)
    return make_plan(
        deployment,
        model,
        accelerator,
        workload,
        read_calibration(folders),
        overhead=lambda changed: engine.overhead(changed, model),
        # What an executable of the user's own is shows only when it runs.
        engine_version=engine.version if deployment.engine_executable is None else None,
        command=engine.command(deployment, model) if startable else None,
        problems=problems,
    )


def _no_executable(deployment: Deployment) -> list[Problem]:
    """As the launcher will look for it: a path, or a name on the search path."""
    path = deployment.engine_executable
    if path is None or shutil.which(path) is not None:
        return []
    why = "is no program that can be run" if Path(path).exists() else "is not there"
    return [
        Problem(
            code="engine_executable",
            severity="error",
            message=f"The engine's executable {path} {why}.",
            remedy="Name one that is, or leave --engine-executable out for the engine that comes with servolt.",
        )
    ]
