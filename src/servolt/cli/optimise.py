"""`servolt plan --optimise` and `--question`: the flags, and how the answers are shown."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from servolt import settings
from servolt.cli.deployment import Count, read_deployment
from servolt.cli.output import Output, hint
from servolt.errors import ConditionFailedError, InvalidInputError
from servolt.units import parse_duration

if TYPE_CHECKING:
    from servolt.deployment import Deployment, Speculation
    from servolt.plan.search import Search
    from servolt.plan.search_limits import Constraints
    from servolt.workload import Workload

__all__ = ["Goals", "goal_options", "show_answer"]

UNASKED = (1, 4)  # streams of a plan where nobody says any (cli/workload.py)
OBJECTIVES = ("cost", "latency", "throughput", "energy")
QUESTIONS = ("largest-context", "largest-batch", "best-quantization", "cheapest-accelerator")


class Goals(NamedTuple):
    """The flags as they were given."""

    optimise: bool
    objective: str | None
    question: str | None
    together: tuple[str, ...]
    accelerators: tuple[str, ...]
    counts: tuple[str, ...]
    engines: tuple[str, ...]
    quantizations: tuple[str, ...]
    kv_cache_dtypes: tuple[str, ...]
    batch_limits: tuple[str, ...]
    speculations: tuple[str, ...]
    max_ttft: float | None
    max_tpot: float | None
    max_e2el: float | None
    max_usd_per_hour: float | None
    max_power: float | None
    max_devices: int | None
    min_bits: float | None
    min_output_throughput: float | None
    min_chance: float | None

    @property
    def are_asked(self) -> bool:
        return self.optimise or self.question is not None or bool(self.together)


def _listed(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """A,B as names."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


class _Seconds(click.ParamType[float]):
    """2, 500ms or 1.5s."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


AMOUNT = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    click.option("--optimise", is_flag=True, help="Search the best way to run MODEL, and say why it is the best."),
    click.option(
        "--objective",
        type=click.Choice(OBJECTIVES),
        help="What --optimise makes as good as can be; default: cost per token, or throughput without prices.",
    ),
    click.option("--question", type=click.Choice(QUESTIONS), help="Ask the other way round: what still fits?"),
    click.option(
        "--together", multiple=True, metavar="MODEL", help="One more model on the same machine; may be repeated."
    ),
    click.option("--accelerators", callback=_listed, metavar="A,B", help="That are tried; default: all with a price."),
    click.option("--counts", callback=_listed, metavar="N,N", help="Devices that are tried; default: 1,2,4,8."),
    click.option("--engines", callback=_listed, metavar="A,B", help="That are tried; default: those that suit."),
    click.option(
        "--quantizations", callback=_listed, metavar="A,B", help="That are tried: own,fp8,int4; default: from 8 bits."
    ),
    click.option("--kv-cache-dtypes", callback=_listed, metavar="A,B", help="That are tried: auto,fp8."),
    click.option(
        "--batch-limits", callback=_listed, metavar="N,N", help="Of max_num_seqs that are tried; default: the engine's."
    ),
    click.option(
        "--speculations",
        callback=_listed,
        metavar="A,B",
        help="That are tried, with the tokens accepted a step as measured: none,mtp:2:1.4,draft_model:5:2.8:MODEL.",
    ),
    click.option("--max-ttft", type=_Seconds(), help="Bound on the time to the first token: 2s, 500ms."),
    click.option("--max-tpot", type=_Seconds(), help="Bound on the time per output token: 50ms."),
    click.option("--max-e2el", type=_Seconds(), help="Bound on the time of a request."),
    click.option("--max-usd-per-hour", type=AMOUNT, help="Budget for all devices."),
    click.option("--max-power", type=AMOUNT, metavar="WATTS", help="Bound on the power of all devices."),
    click.option("--max-devices", type=Count(), help="Devices at most."),
    click.option("--min-bits", type=AMOUNT, help="Least bits of weights and of keys and values; default: 8, or own."),
    click.option("--min-output-throughput", type=AMOUNT, help="Tokens/s that must come, all requests together."),
    click.option(
        "--min-chance",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="How surely the bounds on times are to be kept: 0.9.",
    ),
)


def goal_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags; the command gets them as `goals`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        goals = Goals(*(kwargs.pop(name) for name in Goals._fields))
        forms = {"--optimise": goals.optimise, "--question": goals.question, "--together": goals.together}
        given = [name for name, value in forms.items() if value]
        if len(given) > 1:
            raise InvalidInputError(f"{' and '.join(given)} exclude each other.", "Leave all but one of them out.")
        _check_unused(goals, given)
        return function(*args, goals=goals, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _check_unused(goals: Goals, given: Sequence[str]) -> None:
    """A bound that nothing heeds is refused."""
    free = {"optimise", "question", "together"}
    if goals.question == "cheapest-accelerator":
        free.add("accelerators")
    set_ones = [name for name, value in zip(Goals._fields, goals, strict=True) if name not in free and value]
    if set_ones and not goals.optimise:
        flag = f"--{set_ones[0].replace('_', '-')}"
        raise InvalidInputError(f"{flag} is for a search.", "Add --optimise, or leave it out.")


def show_answer(
    deployment: "Deployment",
    workload: "Workload",
    flags: Mapping[str, Any],
    costs: Mapping[str, Any],
    goals: Goals,
    out: Output,
) -> None:
    """Raises ConditionFailedError where nothing keeps all bounds, or nothing fits."""
    from servolt.study.search import answer_for, together_for

    if goals.optimise:
        _search(deployment, workload, costs, goals, out)
        return
    from servolt.cli.optimised import answer_rows, answer_shown

    folders = settings.folders()
    if goals.together:
        others = [read_deployment(name, _shared(flags)) for name in goals.together]
        answer = together_for([deployment, *(_on_same(one, deployment) for one in others)], folders)
    else:
        question: Any = goals.question
        answer = answer_for(question, deployment, workload, goals.accelerators, costs, folders)
    ids = [] if answer.value is None else [str(answer.value)]
    out.document(answer, rows=answer_rows(answer), ids=ids, human=lambda: answer_shown(answer))
    if answer.value in (None, "no"):
        remedy = "Take fewer bits (--quantization), a shorter context (--max-model-len), or more devices (--count)."
        raise ConditionFailedError(answer.sentence, remedy)


def _search(
    deployment: "Deployment", workload: "Workload", costs: Mapping[str, Any], goals: Goals, out: Output
) -> None:
    from servolt.cli.optimised import search_rows, search_shown
    from servolt.study.search import Axes, search_for

    axes = Axes(
        accelerators=goals.accelerators,
        counts=tuple(_whole(text, "--counts") for text in goals.counts),
        engines=goals.engines,
        quantizations=tuple(None if name == "own" else name for name in goals.quantizations),
        kv_cache_dtypes=goals.kv_cache_dtypes,
        max_num_seqs=tuple(_whole(text, "--batch-limits") for text in goals.batch_limits),
        speculations=tuple(None if text == "none" else _speculation(text) for text in goals.speculations),
    )
    objective: Any = goals.objective
    if not _is_given("input_len", "output_len") and _are_usual_lengths(workload):
        hint(
            f"Prompts of {workload.input_len} and answers of {workload.output_len} tokens are taken: say yours with "
            "--input-len and --output-len, since the best depends on them."
        )
    found = search_for(
        deployment,
        workload,
        axes,
        _limits(goals),
        costs,
        settings.folders(),
        objective=objective,
        load_is_given=_load_is_given(workload),
    )
    ids = [found.choice.deployment.digest] if found.choice is not None else []
    out.document(found, rows=search_rows(found), ids=ids, human=lambda: search_shown(found))
    if found.choice is None:
        raise _nothing(found)


def _limits(goals: Goals) -> "Constraints":
    from servolt.plan.search_limits import Constraints
    from servolt.workload import Slo

    bounds = {"ttft": goals.max_ttft, "tpot": goals.max_tpot, "e2el": goals.max_e2el}
    return Constraints(
        slo=Slo(**bounds) if any(bounds.values()) else None,
        usd_per_hour=goals.max_usd_per_hour,
        power_w=goals.max_power,
        max_devices=goals.max_devices,
        min_bits=goals.min_bits,
        min_output_throughput=goals.min_output_throughput,
        min_chance=goals.min_chance,
    )


def _load_is_given(workload: "Workload") -> bool:
    """Whether flags, a file or a link say what must be served; else each configuration is tried at several loads."""
    return _is_given("concurrency", "request_rate") or workload.concurrency != UNASKED or bool(workload.request_rate)


def _is_given(*names: str) -> bool:
    """By one of these flags, or in a file."""
    given = click.get_current_context().params
    return any(given.get(name) is not None for name in (*names, "workload_file", "from_file"))


def _are_usual_lengths(workload: "Workload") -> bool:
    usual = type(workload)()
    return (workload.input_len, workload.output_len) == (usual.input_len, usual.output_len)


def _nothing(found: "Search") -> ConditionFailedError:
    remedy = " ".join(found.helps) or "Loosen a bound, or try more with --counts, --accelerators, --quantizations."
    return ConditionFailedError(" ".join(found.reasons), remedy)


def _shared(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags are for all models, but for the one that says which weights of the first."""
    return {name: value for name, value in flags.items() if name != "quantization"}


def _on_same(one: "Deployment", first: "Deployment") -> "Deployment":
    """A deployment file may name another machine: here there is only one."""
    return one if one.hardware == first.hardware else one.model_copy(update={"hardware": first.hardware})


def _whole(text: str, flag: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        what = "devices" if flag == "--counts" else "requests"
        raise InvalidInputError(f"{text!r} is no number of {what}.", f"{flag} takes whole numbers: 1,2,4.")
    return int(text)


def _speculation(text: str) -> "Speculation":
    """METHOD:TOKENS:ACCEPTED, with the model that drafts behind it where it is one."""
    from pydantic import ValidationError

    from servolt.deployment import Speculation

    method, *rest = text.split(":", 3)
    remedy = "Write METHOD:TOKENS:ACCEPTED, such as mtp:2:1.4; how many are accepted has to be measured."
    if len(rest) < 2:
        raise InvalidInputError(f"{text!r} does not say how many tokens are accepted.", remedy)
    fields = dict(zip(("num_speculative_tokens", "acceptance", "model"), rest, strict=False))
    try:
        found = Speculation.model_validate({"method": method, **fields})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InvalidInputError(f"{text!r} is no speculation: {fault['msg']}.", remedy) from error
    if (found.acceptance or 0) > found.num_speculative_tokens:
        raise InvalidInputError(f"{text!r} accepts more tokens than it drafts.", remedy)
    return found
