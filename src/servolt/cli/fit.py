"""Whether a deployment fits here now: asked before an engine starts, from the header and the free memory alone."""

from typing import NamedTuple

from servolt import registry
from servolt.deployment import Deployment
from servolt.errors import ConditionFailedError
from servolt.host.facts import available_memory_bytes
from servolt.model import Model
from servolt.plan.kv_cache import bounds_of
from servolt.plan.memory import memory_of
from servolt.plan.verdict import Fix, Verdict, fixes_for, reasons_for, verdict_of

__all__ = ["Fit", "fit_here", "misfit"]

FORCE = "--force starts it all the same."


class Fit(NamedTuple):
    """The planner's answer about memory, without the speeds: they would need this machine's calibration."""

    verdict: Verdict
    reasons: tuple[str, ...]
    fixes: tuple[Fix, ...]


def fit_here(deployment: Deployment, model: Model) -> Fit:
    """Raises InvalidInputError for a KV data type whose size is not known."""
    engine = registry.engine(deployment.engine)
    memory = memory_of(
        deployment,
        model,
        overhead_bytes=engine.overhead(deployment, model),
        available_bytes=available_memory_bytes(),
    )
    verdict = verdict_of(memory)
    reasons = reasons_for(memory, verdict)
    if verdict == "no" and bounds_of(model):
        reasons = (*reasons, "That is the most its KV cache can be: it may take less.")
    fixes = fixes_for(deployment, model, memory, lambda changed: engine.overhead(changed, model))
    return Fit(verdict, reasons, fixes)


def misfit(deployment: Deployment, fit: Fit) -> ConditionFailedError:
    """Why it is not started, and what would make it fit: only changes that do."""
    enough = [fix.text for fix in fit.fixes if fix.verdict in ("fits", "tight")]
    remedy = " ".join(enough) or "Free memory, or choose a smaller model."
    return ConditionFailedError(f"{deployment.label} does not fit. {' '.join(fit.reasons)}", f"{remedy} {FORCE}")
