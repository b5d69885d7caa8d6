"""What was predicted beside what was measured."""

from collections.abc import Iterator

from servolt.compare.comparison import PredictedBesideMeasured
from servolt.measurement import Measurement
from servolt.metrics import Estimate, Metrics

__all__ = ["predicted_beside_measured"]


def predicted_beside_measured(measurement: Measurement) -> tuple[PredictedBesideMeasured, ...]:
    """One row for each predicted metric and load point that was measured too."""
    return tuple(_rows(measurement))


def _rows(measurement: Measurement) -> Iterator[PredictedBesideMeasured]:
    if measurement.prediction is None:
        return
    results = Metrics(items=measurement.results)
    for predicted in measurement.prediction.items:
        measured = results.get(
            predicted.metric,
            statistic=predicted.statistic,
            concurrency=predicted.concurrency,
            request_rate=predicted.request_rate,
        )
        if measured is not None:
            yield _row(measurement, predicted, measured)


def _row(measurement: Measurement, predicted: Estimate, measured: Estimate) -> PredictedBesideMeasured:
    known = predicted.value is not None and measured.value is not None
    bounded = measured.value is not None and predicted.low is not None and predicted.high is not None
    return PredictedBesideMeasured(
        measurement=measurement.id,
        label=measurement.deployment.label,
        metric=predicted.metric,
        statistic=predicted.statistic,
        concurrency=predicted.concurrency,
        request_rate=predicted.request_rate,
        unit=predicted.unit,
        predicted=predicted.value,
        predicted_low=predicted.low,
        predicted_high=predicted.high,
        basis=predicted.basis,
        measured=measured.value,
        measured_low=measured.low,
        measured_high=measured.high,
        error=predicted.value / measured.value - 1 if known and measured.value else None,  # type: ignore[operator]
        inside=predicted.low <= measured.value <= predicted.high if bounded else None,  # type: ignore[operator]
    )
