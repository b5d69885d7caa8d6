"""The memory of any deployment: the arithmetic of its engine and version, chosen by the engine's profile."""

from collections.abc import Callable, Mapping

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.llamacpp import llamacpp_budget
from servolt.plan.memory.openvino import openvino_budget
from servolt.plan.memory.pooled import pooled_budget
from servolt.plan.memory.profiles import Profile, profile_of
from servolt.plan.memory.sglang import sglang_budget
from servolt.plan.memory.tensorrt_llm import tensorrt_llm_budget
from servolt.plan.memory.terms import Known
from servolt.plan.memory.transformers import transformers_budget
from servolt.plan.memory.vllm import vllm_budget

__all__ = ["FORMULAS", "Formula", "budget_of"]

# (deployment, model, accelerator, profile, known) -> Budget.
Formula = Callable[[Deployment, Model, Accelerator, Profile, Known], Budget]

# By the `formula` that an engine's profile names. An engine is added with one line here and one file in data/engines.
FORMULAS: Mapping[str, Formula] = {
    "llamacpp": llamacpp_budget,
    "openvino": openvino_budget,
    "pooled": pooled_budget,
    "sglang": sglang_budget,
    "tensorrt_llm": tensorrt_llm_budget,
    "transformers": transformers_budget,
    "vllm": vllm_budget,
}


def budget_of(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    *,
    known: Known | None = None,
) -> Budget:
    """What the deployment takes of each device. Raises InvalidInputError for a KV data type that is not known.

    `known` are terms read from a start-up log, or calibrated by one; they replace what the formula says. `kv_cache` is
    the pool and rules over what is left; `graph` is what this version takes from the pool for graphs.
    """
    profile = profile_of(deployment.engine, deployment.engine_version)
    if profile is None:
        note = f"The memory of {deployment.engine} is not known: planned as an engine that pools what is left."
        profile = Profile(deployment.engine, deployment.engine_version or "", {}, 1.0, (note,))
        return pooled_budget(deployment, model, accelerator, profile, known or {})
    return FORMULAS[profile.formula](deployment, model, accelerator, profile, known or {})
