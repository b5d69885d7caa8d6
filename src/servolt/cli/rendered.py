"""`--export`: a plan's command as something that others start, headed by what the plan says."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from servolt.errors import InvalidInputError

if TYPE_CHECKING:
    from servolt.command import Command
    from servolt.plan import Plan
    from servolt.plan.memory.budget import RankMemory

__all__ = ["TARGETS", "one_option", "read_back", "rendered"]

# Of servolt's own forms, then those that a launcher of this name writes. Stated here, since each start of the command
# line would pay for asking the registry.
DOCUMENTS = ("json", "yaml")
TARGETS = (
    "shell",
    *DOCUMENTS,
    "docker",
    "compose",
    "kubernetes",
    "lws",
    "kserve",
    "ray-serve",
    "rayservice",
    "skypilot",
    "production-stack",
    "systemd",
    "env",
    "vllm-config",
    "modelfile",
    "llama-swap",
)


def rendered(plan: "Plan", target: str, image: str | None = None) -> str:
    """Raises InvalidInputError where the engine can't be started so, or the target has no place for a setting."""
    from servolt import registry

    command = _command(plan)
    if target == "json":
        return command.to_json()
    if target == "yaml":
        return command.to_yaml()
    return registry.launcher(target).render(_prepared(plan, command, image))


def one_option(plan: "Plan", name: str) -> str:
    """The words of one option, for a shell: by its own name, or those that a field of the deployment is written as."""
    words = _by_option(_command(plan))
    dashed = f"--{name.lstrip('-').replace('_', '-')}"
    found = [one for one in words if one[0].partition("=")[0] in (name, dashed, dashed.replace("-", "_"))]
    field = name.lstrip("-").replace("-", "_")
    if not found and getattr(plan.deployment, field, None) is not None and field != "model":
        without = plan.model_copy(
            update={"command": None, "deployment": plan.deployment.model_copy(update={field: None})}
        )
        apart = _by_option(_command(without))
        found = [one for one in words if one not in apart]
    if not found:
        said = ", ".join(one[0].partition("=")[0] for one in words)
        raise InvalidInputError(f"The command has no {name}.", f"It has {said}." if said else "Export it whole.")
    return " ".join(shlex.quote(word) for one in found for word in one)


def _by_option(command: "Command") -> list[tuple[str, ...]]:
    """Each option with its values. Words that the engine's table does not know are values, or the program's name."""
    from servolt.engines.flags import Known, versions

    if not versions(command.engine):
        raise InvalidInputError(f"The options of {command.engine} are not known here one by one.", "Export it whole.")
    known = Known(command.engine, command.engine_version)
    found: list[tuple[str, ...]] = []
    for word in command.argv:
        if word.startswith("-") and known.flag(word.partition("=")[0]) is not None:
            found.append((word,))
        elif found:
            found[-1] = (*found[-1], word)
    return [one for one in found if one[0] not in ("--host", "--port", "-m", "--model-path")]


def _command(plan: "Plan") -> "Command":
    """A plan for another machine has none of its own: what would be started there is the adapter's word too."""
    from servolt import registry

    if plan.command is not None:
        return plan.command
    engine = registry.engine(plan.deployment.engine)
    for problem in engine.problems(plan.deployment, plan.model, (plan.accelerator,)):
        if problem.severity == "error":
            raise InvalidInputError(problem.message, problem.remedy)
    return engine.command(plan.deployment, plan.model)


def _prepared(plan: "Plan", command: "Command", image: str | None) -> "Command":
    from servolt.command import Image

    known = command.on(plan.accelerator)
    if not known.options:
        known = known.model_copy(update={"options": read_back(known)})
    if image is not None and known.devices is not None:
        named = {known.devices.vendor or "": Image(name=image)}
        known = known.model_copy(update={"images": named})
    load = plan.predictions.get("load_time")
    return known.model_copy(update={"header": tuple(_header(plan)), "load_s": load.value if load is not None else None})


def read_back(command: "Command") -> dict[str, object]:
    """Of an adapter that writes its argv by hand: read back by the table of its flags.

    Empty where there is no table, or one that does not know all of it; targets that need them then refuse.
    """
    from servolt.engines.flags import Known, parsed, versions

    if not versions(command.engine):
        return {}
    words = command.at(1).image_argv or command.at(1).argv
    try:
        found = parsed(Known(command.engine), words[1:])
    except ValueError:
        return {}
    return {name: value for name, value in found.items() if name not in ("host", "port")}


def _header(plan: "Plan") -> Iterator[str]:
    """The memory table. What it says is the plan's; what holds is the engine's log."""
    from servolt.units import format_bytes

    machine, memory = plan.accelerator, plan.memory
    count = f"{machine.count} x " if machine.kind == "gpu" else ""
    yield f"{plan.deployment.label} on {count}{machine.name}: {plan.verdict}"
    yield "predicted memory of each device [low, high]:"
    for rank in memory.per_rank:
        yield from _rank(rank)
    yield (
        f"KV cache: room for {memory.kv_cache_tokens:,} tokens, {memory.max_concurrency:.1f} requests of "
        f"{memory.max_model_len:,}; {format_bytes(memory.kv_bytes_per_token)} a token"
    )
    yield from (f"{problem.severity}: {problem.message}" for problem in plan.problems if problem.severity == "warning")


def _rank(rank: "RankMemory") -> Iterator[str]:
    from servolt.units import format_bytes

    alike = f" ({rank.ranks} alike)" if rank.ranks > 1 else ""
    of = f" of {format_bytes(rank.available_bytes)}" if rank.available_bytes is not None else ""
    yield f"  {rank.rank}{alike}: {format_bytes(rank.total_bytes)}{of}"
    for name, term in rank.terms.items():
        if term.high:
            between = f"[{format_bytes(term.low)}, {format_bytes(term.high)}]"
            yield f"    {name:<11}{format_bytes(term.bytes):>10}  {between:<24} {term.basis}"
