"""Each doubt is raised by the fault that it is about, and by no clean run."""

from typing import Any

import numpy as np
import pytest

from servolt.measure import measurement_of

METER = {"name": "rapl", "scope": "package", "kind": "counter", "period_s": 0.001}
BY_CHANCE = {"low_n_percentile"}  # a note that any short run carries

FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "client_limited": ("invalid", {"window": {"client_busiest_cpu_s": 3.9}}),
    "send_lag": ("degraded", {"lag_s": 0.005, "rate": 5.0}),
    "rate_missed": ("invalid", {"outcome": "cancelled", "rate": 5.0}),
    "failed_requests": ("invalid", {"outcome": "failed"}),
    "bundled_tokens": ("valid", {"tokens_per_event": 4}),
    "cache_contaminated": ("invalid", {"request": {"cached": 32}}),
    "foreign_process": ("degraded", {"window": {"foreign_cpu_s": 2.0}}),
    "clock_step": ("degraded", {"window": {"clock_step_ns": -5_000_000}}),
    "short_window": ("degraded", {"run": {"meter": METER}, "window": {"joules": {"package-0": 5.0}}}),
    "lengths_missed": ("degraded", {"n_in": 80}),
}


def _codes(measurement: Any) -> set[str]:
    return {flag.code for flag in measurement.validity.flags} - BY_CHANCE


def test_a_clean_run_is_valid(made: Any) -> None:
    measurement = made().measurement()
    assert measurement.validity.verdict == "valid"
    assert _codes(measurement) == set()


def test_a_clean_open_loop_is_valid(made: Any) -> None:
    assert _codes(made(rate=5.0).measurement()) == set()


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_a_planted_fault_raises_its_code(made: Any, code: str) -> None:
    verdict, fault = FAULTS[code]
    measurement = made(**fault).measurement()
    assert _codes(measurement) == {code}
    assert measurement.validity.verdict == verdict
    flag = next(flag for flag in measurement.validity.flags if flag.code == code)
    assert flag.message.endswith(".")
    assert flag.remedy


def test_streams_that_wait_for_the_client_are_a_send_lag_in_a_closed_loop(made: Any) -> None:
    assert _codes(made(lag_s=0.01).measurement()) == {"send_lag"}
    assert _codes(made(lag_s=0.002).measurement()) == set()


def test_running_counts_that_differ_from_the_total_are_a_miscount(made: Any) -> None:
    assert _codes(made(request={"n_out": 12}).measurement()) == {"token_count_mismatch", "lengths_missed"}


def test_an_end_token_without_an_event_is_no_miscount(made: Any) -> None:
    stopped = {"n_out": 12, "finish_reason": 2}
    assert "token_count_mismatch" not in _codes(made(request=stopped).measurement())


def test_no_token_at_all_is_invalid(made: Any) -> None:
    truth = made(outcome="refused")
    tables = truth.tables()
    none = {name: column[:0] for name, column in tables["events"].items()}
    measurement = measurement_of(truth.raw(), tables["requests"], none, ())
    assert "nothing_measured" in _codes(measurement)
    assert measurement.validity.verdict == "invalid"


def test_a_rate_that_falls_all_the_time_is_not_steady(made: Any) -> None:
    truth = made(windows=1, requests=200)
    tables = {name: dict(table) for name, table in truth.tables().items()}
    # the rate falls evenly to 40 %: its integral is t - 0.3 t**2, inverted here
    events = dict(tables["events"])
    span = truth.duration_s * 1e9
    share = (1 - np.sqrt(1 - 4 * 0.3 * 0.7 * events["t_ns"] / span)) / 0.6
    events["t_ns"] = np.asarray(share * span).astype(np.int64)
    measurement = measurement_of(truth.raw(), tables["requests"], events, ())
    assert "not_steady" in _codes(measurement)


def test_tokens_that_arrive_together_are_a_receive_lag(made: Any) -> None:
    assert _codes(made(gap_s=0.0).measurement()) == {"receive_lag"}


def test_arrivals_without_stamps_are_noted(made: Any) -> None:
    truth = made()
    tables = truth.tables()
    events = dict(tables["events"])
    events["lag_ns"] = np.ma.MaskedArray(events["t_ns"], mask=True)
    measurement = measurement_of(truth.raw(), tables["requests"], events, ())
    assert _codes(measurement) == {"receive_lag_unknown"}
    assert measurement.validity.verdict == "valid"
