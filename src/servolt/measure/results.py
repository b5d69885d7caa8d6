"""From the raw files to the measurement: a pure function, so that anyone can compute it again, to the same bytes."""

from collections.abc import Mapping, Sequence

from servolt.document import digest
from servolt.measure.estimates import estimates_at
from servolt.measure.figures import rounded, window_metrics
from servolt.measure.run import RawRun
from servolt.measure.samples import WindowSamples, by_window
from servolt.measure.validity import validity_of
from servolt.measurement import Measurement, SampleFile
from servolt.metrics import METRICS, Estimate
from servolt.results import Table
from servolt.workload import LoadPoint

__all__ = ["measurement_from_files", "measurement_of"]


def measurement_from_files(
    run_json: bytes, tables: Mapping[str, Table], samples: tuple[SampleFile, ...]
) -> Measurement:
    """What the store calls when it saves and when it recomputes."""
    return measurement_of(RawRun.from_json(run_json), tables["requests"], tables["events"], samples)


def measurement_of(run: RawRun, requests: Table, events: Table, files: tuple[SampleFile, ...]) -> Measurement:
    """Nothing but the arguments goes in: no clock, no random seed that is not fixed."""
    seen = list(by_window(run.windows, requests, events))
    draft = Measurement(
        id="",
        tool_version=run.tool_version,
        created=run.created,
        study=run.study,
        deployment=run.deployment,
        deployment_digest=run.deployment_digest or run.deployment.digest,
        command=run.command,
        effective=run.effective,
        engine=run.engine,
        engine_version=run.engine_version,
        model=run.model,
        accelerators=run.accelerators,
        host=run.host,
        workload=run.workload,
        workload_digest=run.workload.digest,
        slo=run.slo,
        windows=tuple(one.window.model_copy(update={"metrics": window_metrics(one, run)}) for one in seen),
        load_time_s=run.load_time_s,
        samples=files,
        meter=run.meter,
        results=(*_load_time(run), *_at_all_points(run, seen)),
        validity=validity_of(run, seen),
        prediction=run.prediction,
    )
    identity = digest(draft.model_dump(mode="json", exclude={"id"}))
    return draft.model_copy(update={"id": identity})


def _load_time(run: RawRun) -> list[Estimate]:
    known = run.load_time_s is not None
    return [
        Estimate(
            metric="load_time",
            value=rounded(run.load_time_s) if run.load_time_s is not None else None,
            unit=METRICS["load_time"].unit,
            basis="measured",
            n=1 if known else None,
            reason=None if known else "the server was running already",
        )
    ]


def _at_all_points(run: RawRun, seen: Sequence[WindowSamples]) -> list[Estimate]:
    return [
        estimate
        for point in run.workload.points
        if (here := [one for one in seen if _stands_at(one, point)])
        for estimate in estimates_at(point, here, run)
    ]


def _stands_at(samples: WindowSamples, point: LoadPoint) -> bool:
    window = samples.window
    return (window.concurrency, window.request_rate) == (point.concurrency, point.request_rate)
