"""What start-up logs and measurements say about the configurations of a search: memory, speed, and how surely."""

from collections.abc import Mapping
from itertools import groupby

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.adjustment import Adjustment, At, adjustment, at
from servolt.plan.idle import busy_share, draw_of
from servolt.plan.known import KnownDeployments
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of
from servolt.plan.power import power_w
from servolt.plan.recall import LEAST_OTHERS, known_budget, known_points, shifts_of
from servolt.plan.roofline import RooflineLaw
from servolt.plan.search_space import Candidate
from servolt.plan.spreads import factors_of
from servolt.plan.steady import Steady, at_request_rate, steady
from servolt.workload import Workload

__all__ = ["Learnt"]


class Learnt:
    """Made once for a search: where nothing is known of an engine or a device, nothing is looked up."""

    def __init__(self, known: KnownDeployments | None = None, *, tool_version: str = "") -> None:
        self._known, self._tool_version = known or KnownDeployments(), tool_version
        self._logged = {row.conditions.engine for row in self._known.memory}
        self._measured = _by_device(self._known)

    def budget(self, deployment: Deployment, model: Model, accelerator: Accelerator) -> Budget:
        if deployment.engine not in self._logged:
            return budget_of(deployment, model, accelerator)
        return known_budget(self._known, deployment, model, accelerator)

    def adjustment(
        self, candidate: Candidate, law: RooflineLaw, tokens: float | None, max_num_seqs: float
    ) -> Adjustment | None:
        """None where nothing that was measured says anything about this configuration."""
        deployment, model, accelerator = candidate.deployment, candidate.model, candidate.accelerator
        engines = self._measured.get(accelerator.name, {})
        # One deployment of this engine on this device may be kin; from other engines only many tell anything.
        if deployment.engine not in engines and sum(engines.values()) < LEAST_OTHERS:
            return None
        points = known_points(self._known, deployment, model, accelerator)
        shifts = shifts_of(self._known, deployment, model, accelerator, tool_version=self._tool_version)
        if not points and not shifts:
            return None

        def load(workload: Workload) -> At | None:
            found = _at(law, workload, tokens, max_num_seqs)
            if found is None:
                return None
            share = busy_share(law, workload, found.state.concurrency, found.state.running)
            draw = draw_of(law, accelerator, 0.0, share)
            return found._replace(busy=draw.busy, idle_w=draw.idle_w)

        return adjustment(
            points,
            load,
            lambda metric: factors_of(metric, deployment, model, accelerator),
            power_w=lambda state: power_w(law, state, accelerator),
            shifts=shifts,
        )


def _by_device(known: KnownDeployments) -> Mapping[str, Mapping[str, int]]:
    """By device and engine, how many deployments were measured."""
    conditions = [row.conditions for row in known.speeds]
    seen = {(one.accelerator, one.engine, one.model_dump_json()) for one in conditions}
    found: dict[str, dict[str, int]] = {}
    for (accelerator, engine), rows in groupby(sorted(seen), key=lambda one: one[:2]):
        found.setdefault(accelerator, {})[engine] = len(list(rows))
    return found


def _at(law: RooflineLaw, workload: Workload, tokens: float | None, max_num_seqs: float) -> At | None:
    """The uncorrected state at the load of a measurement; None where requests came faster than they could leave."""
    point = workload.points[0]
    input_len, output_len = float(workload.input_len), float(workload.output_len)
    state: Steady | None
    if point.request_rate is None:
        state = steady(
            law,
            input_len=input_len,
            output_len=output_len,
            concurrency=float(point.concurrency or 1),
            kv_cache_tokens=tokens,
            max_num_seqs=max_num_seqs,
        )
    else:
        state = at_request_rate(
            law,
            input_len=input_len,
            output_len=output_len,
            request_rate=point.request_rate,
            kv_cache_tokens=tokens,
            max_num_seqs=max_num_seqs,
        )
    return None if state is None else at(law, state, workload, point.request_rate)
