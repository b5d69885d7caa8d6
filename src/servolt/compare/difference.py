"""Which facts of the measurements differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from servolt.compare.comparison import Difference
from servolt.measurement import Measurement

__all__ = ["differences"]


def differences(measurements: Sequence[Measurement]) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    """What differs, with a value for each measurement, and the names of what is the same."""
    facts = [_facts(measurement) for measurement in measurements]
    fields = dict.fromkeys(field for one in facts for field in one)
    values = {field: tuple(one.get(field) for one in facts) for field in fields}
    differing = tuple(Difference(field=field, values=seen) for field, seen in values.items() if _vary(seen))
    return differing, tuple(field for field, seen in values.items() if not _vary(seen))


def _vary(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values[1:])


def _facts(measurement: Measurement) -> dict[str, Any]:
    deployment = measurement.deployment.model_dump(mode="json", exclude={"schema_"})
    facts: dict[str, Any] = {name: value for name, value in deployment.items() if value is not None}
    facts["engine_version"] = measurement.engine_version
    # What the deployment asks for stands above; the engine's own word matters where nothing was asked.
    facts |= {f"effective {name}": value for name, value in _settings(measurement.effective).items()}
    if measurement.model is not None:
        facts |= {"weights_bytes": measurement.model.weights_bytes, "parameters": measurement.model.total_params}
    host = measurement.host
    facts |= {"cpu": host.cpu, "usable_cores": host.usable_cores, "kernel": host.kernel, "os": host.os}
    facts["tool_version"] = measurement.tool_version
    return facts


def _settings(effective: Mapping[str, Any]) -> dict[str, Any]:
    """Addresses and process ids differ always and say nothing."""
    return {
        name: value
        for name, value in effective.items()
        if name not in ("url", "pid", "event", "port", "engine_version")
    }
