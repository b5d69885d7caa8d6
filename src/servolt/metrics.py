"""The metrics, one line each, and an estimate: one metric's value with its interval and its basis."""

from typing import Literal, NamedTuple

from pydantic import Field

from servolt.document import Document, Value

__all__ = ["METRICS", "Basis", "Estimate", "Metric", "Metrics"]

Basis = Literal["exact", "formula", "calibrated", "measured", "estimated", "imported"]


class Metric(NamedTuple):
    unit: str
    better: Literal["lower", "higher", "neither"]
    sentence: str


METRICS: dict[str, Metric] = {
    "ttft": Metric("s", "lower", "Time to first token: from the scheduled time to the first event that bears a token."),
    "ttft_service": Metric("s", "lower", "Time to first token counted from when the request was sent."),
    "tpot": Metric("s", "lower", "Time per output token after the first event, per request."),
    "itl": Metric(
        "s", "lower", "Inter-token latency: gaps between tokens; defined only where each event is one token."
    ),
    "icl": Metric("s", "lower", "Inter-chunk latency: gaps between events that bear tokens."),
    "e2el": Metric("s", "lower", "End-to-end latency: from the scheduled time to the last token."),
    "request_throughput": Metric("requests/s", "higher", "Requests completed in the window, per second."),
    "output_throughput": Metric("tokens/s", "higher", "Output tokens that arrived in the window, per second."),
    "total_throughput": Metric("tokens/s", "higher", "Input and output tokens of the window, per second."),
    "request_goodput": Metric("requests/s", "higher", "Requests per second that met every bound of the SLO."),
    "slo_attainment": Metric("share", "higher", "Share of the scheduled requests that met every bound of the SLO."),
    "prefill_throughput": Metric(
        "tokens/s", "higher", "Prompt tokens processed per second of prefill, by the engine's clock."
    ),
    "decode_throughput": Metric("tokens/s", "higher", "Tokens per second of decode over all running streams."),
    "resident_memory": Metric("bytes", "lower", "Largest resident memory of the engine's process tree."),
    "cpu_seconds_per_output_token": Metric(
        "s", "lower", "Processor seconds of the engine's process tree per output token. Not energy."
    ),
    "energy": Metric("J", "lower", "Joules of the window, idle included."),
    "energy_net_empty": Metric("J", "lower", "Joules of the window less what the machine draws without the model."),
    "energy_net_loaded": Metric(
        "J", "lower", "Joules of the window less what it draws with the model loaded and idle."
    ),
    "energy_per_output_token": Metric("J", "lower", "Joules of the window per output token, idle included."),
    "energy_per_request": Metric("J", "lower", "Joules of the window per completed request, idle included."),
    "ttft_cold": Metric("s", "lower", "Time to first token of a request that comes alone."),
    "saturation_concurrency": Metric(
        "streams", "higher", "Streams beyond which more gain nothing: by KV capacity, batch limit or the SLO."
    ),
    "saturation_request_rate": Metric(
        "requests/s", "higher", "Requests per second that can leave: beyond it the queue grows, or the SLO breaks."
    ),
    "kv_concurrency": Metric(
        "requests", "higher", "Requests of the workload's lengths that the KV cache holds at once."
    ),
    "utilisation": Metric("share", "neither", "Share of the time in which a device of the deployment has work."),
    "idle_energy_share": Metric("share", "lower", "Share of the joules that devices draw while they have no work."),
    "queue_time": Metric("s", "lower", "From the arrival of a request until it has a place in the batch."),
    "preemptions": Metric("per request", "lower", "Times that a request loses its place since the KV cache is full."),
    "power": Metric("W", "lower", "Mean power of all devices of the deployment under the load."),
    "cost_per_hour": Metric("USD/h", "lower", "Price of all devices of the deployment."),
    "cost_per_million_output_tokens": Metric("USD", "lower", "Price of the devices per million output tokens."),
    "carbon_per_million_output_tokens": Metric(
        "g", "lower", "CO2 equivalent of the electricity per million output tokens, PUE included."
    ),
    "load_time": Metric("s", "lower", "From the engine's start to its first 200 on the ready path."),
    "failed_share": Metric("share", "lower", "Share of the scheduled requests that did not complete."),
}


class Estimate(Value):
    """One metric with its interval. A value of None carries the reason: it is unknown, not 0."""

    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str
    basis: Basis
    statistic: str | None = Field(None, description="mean, p50, p90, p99 ...; None where there is only one")
    concurrency: int | None = Field(None, description="closed loop: streams in flight")
    request_rate: float | None = Field(None, description="open loop: requests per second")
    level: float | None = Field(None, description="confidence level of low and high")
    method: str | None = Field(None, description="how low and high were obtained")
    n: int | None = Field(None, description="how many observations the value rests on")
    reason: str | None = Field(None, description="why the value is None, or what it rests on")


class Metrics(Document):
    """Estimates, at most one for each metric, statistic and load point."""

    schema_: Literal["servolt.metrics/1"] = Field("servolt.metrics/1", alias="schema")
    items: tuple[Estimate, ...] = ()

    def get(
        self,
        metric: str,
        *,
        statistic: str | None = None,
        concurrency: int | None = None,
        request_rate: float | None = None,
    ) -> Estimate | None:
        """The estimate at this load point, or None. With no statistic asked, the first that is there."""
        for item in self.items:
            if (
                item.metric == metric
                and statistic in (None, item.statistic)
                and item.concurrency == concurrency
                and item.request_rate == request_rate
            ):
                return item
        return None
