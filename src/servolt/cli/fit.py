"""Whether a deployment fits here now: asked before an engine starts, from the header and the free memory alone."""

from typing import NamedTuple

from servolt import registry
from servolt.deployment import Deployment
from servolt.errors import ConditionFailedError
from servolt.gpu import Accelerator
from servolt.host.facts import available_memory_bytes
from servolt.model import Model
from servolt.plan.kv_cache import bounds_of
from servolt.plan.memory import host_budgets
from servolt.plan.verdict import Fix, Verdict, reasons_of, verdict_of

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
    free = available_memory_bytes()
    here = Accelerator(name="this machine", kind="cpu", memory_bytes=free or 0, available_bytes=free, source="the host")
    budget_of = host_budgets(lambda changed: engine.overhead(changed, model))
    budget = budget_of(deployment, model, here)
    verdict, reasons = verdict_of(budget), reasons_of(budget)
    if verdict == "no" and bounds_of(model):
        reasons = (*reasons, "That is the most its KV cache can be: it may take less.")
    if verdict == "fits":
        return Fit(verdict, reasons, ())
    from servolt.plan.remedies import fixes_of  # with the arithmetic of all engines, which a model that fits can spare

    return Fit(verdict, reasons, fixes_of(deployment, model, here, budget, budget_of))


def misfit(deployment: Deployment, fit: Fit) -> ConditionFailedError:
    """Why it is not started, and what would make it fit: only changes that do."""
    enough = [fix.text for fix in fit.fixes if fix.verdict in ("fits", "tight")]
    remedy = " ".join(enough) or "Free memory, or choose a smaller model."
    return ConditionFailedError(f"{deployment.label} does not fit. {' '.join(fit.reasons)}", f"{remedy} {FORCE}")
