"""What the gateway counts about itself, and the engines' own counters under vLLM's names."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from servolt.serve.events import Finished

__all__ = ["Telemetry"]

# A second series for each counter, which no dashboard of ours or vLLM's reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Bucket bounds of the OpenTelemetry GenAI conventions, so that dashboards made for them read ours.
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# Our reading -> the name that dashboards and autoscalers made for vLLM ask for.
ENGINE_COUNTERS = {
    "prompt_tokens": ("vllm:prompt_tokens", "Prompt tokens that the engine has read."),
    "output_tokens": ("vllm:generation_tokens", "Tokens that the engine has made."),
}
ENGINE_GAUGES = {
    "requests_running": ("vllm:num_requests_running", "Requests that the engine works on."),
    "requests_waiting": ("vllm:num_requests_waiting", "Requests that wait inside the engine."),
}


class Telemetry:
    """Counters of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "servolt_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self._finished = Counter(
            "servolt_answers", "Choices that were finished.", ["deployment", "finished_reason"], registry=registry
        )
        self._broken = Counter(
            "servolt_broken_streams", "Streams that ended in an error.", ["deployment"], registry=registry
        )
        self._aborted = Counter("servolt_aborted", "Requests whose client left early.", registry=registry)
        self._duration = Histogram(
            "servolt_answer_duration_seconds",
            "From the request to its last token.",
            ["deployment"],
            buckets=DURATION_S,
            registry=registry,
        )
        self._first = Histogram(
            "servolt_time_to_first_token_seconds",
            "From the request to its first token, streams only.",
            ["deployment"],
            buckets=FIRST_TOKEN_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "servolt_requests_in_flight", "Requests inside an engine.", ["deployment"], registry=registry
        )
        self.waiting = Gauge(
            "servolt_requests_waiting", "Requests in the gateway's queue.", ["deployment"], registry=registry
        )
        # Looking labels up costs more than counting; these are bound once.
        self._bound: dict[tuple[str, int], Counter] = {}
        self._bound_ends: dict[tuple[str, str], tuple[Counter, Histogram, Histogram]] = {}

    def answered(self, route: str, status: int) -> None:
        key = (route, status)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = self._requests.labels(route, str(status))
        bound.inc()

    def finished(self, deployment: str, finished: Finished, total_s: float, first_s: float | None) -> None:
        key = (deployment, finished.reason)
        bound = self._bound_ends.get(key)
        if bound is None:
            bound = self._bound_ends[key] = (
                self._finished.labels(*key),
                self._duration.labels(deployment),
                self._first.labels(deployment),
            )
        bound[0].inc()
        bound[1].observe(total_s)
        if first_s is not None:
            bound[2].observe(first_s)

    def broken(self, deployment: str) -> None:
        self._broken.labels(deployment).inc()

    def aborted(self) -> None:
        self._aborted.inc()

    def page(self, readings: Mapping[str, Mapping[str, float]]) -> bytes:
        """Prometheus text. `readings` has the engine's own figures for each deployment that is loaded."""
        return generate_latest(self._registry) + generate_latest(_Families(list(_families(readings))))


class _Families(CollectorRegistry):
    """Made for one page."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return iter(self._families)


def _families(readings: Mapping[str, Mapping[str, float]]) -> Iterable[Metric]:
    for reading, (name, text) in ENGINE_COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=["deployment"])
        for deployment, values in readings.items():
            if reading in values:
                counter.add_metric([deployment], values[reading])
        yield counter
    for reading, (name, text) in ENGINE_GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=["deployment"])
        for deployment, values in readings.items():
            if reading in values:
                gauge.add_metric([deployment], values[reading])
        yield gauge
