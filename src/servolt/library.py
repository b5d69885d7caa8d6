"""servolt as a library: the verbs as functions over plain values or documents."""

from collections.abc import Mapping, Sequence
from typing import Any

from servolt import settings
from servolt.deployment import Deployment
from servolt.plan import KnownPoint, Plan, read_points
from servolt.study.plan import plan_for
from servolt.workload import Workload

__all__ = ["plan"]


def plan(
    deployment: Deployment | Mapping[str, Any] | str,
    workload: Workload | Mapping[str, Any] | None = None,
    *,
    measured: Sequence[KnownPoint | Mapping[str, Any]] | None = None,
) -> Plan:
    """What a deployment takes and gives, on this machine or on the hardware that it names.

    `deployment` is a name such as "guide:q8_0", or fields: {"model": "Qwen/Qwen3-8B", "engine": "vllm", "hardware":
    {"accelerator": "H100", "count": 1}}. `workload` is {"input_tokens": 1024, "output_tokens": 256, "concurrency": 8},
    or has a "rate" in requests per second. `measured` holds known points of this deployment, {"metric": "tpot",
    "workload": {...}, "value": 0.012}, which correct this plan alone. Raises ServoltError.

    >>> plan("guide").verdict
    'fits'
    """
    if isinstance(deployment, str):
        deployment = Deployment.of(deployment)
    elif not isinstance(deployment, Deployment):
        deployment = Deployment.from_plain(dict(deployment))
    if not isinstance(workload, Workload):
        workload = Workload.from_plain(dict(workload or {}))
    given = measured or ()
    known = [one for one in given if isinstance(one, KnownPoint)]
    plain = [one for one in given if not isinstance(one, KnownPoint)]
    points = (*known, *(read_points(plain) if plain else ()))
    return plan_for(deployment, workload, settings.folders(), measured=points)
