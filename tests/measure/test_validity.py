"""Each doubt is raised by the fault that it is about, and by no clean run."""

from typing import Any

import numpy as np
import pytest

from servolt.measure import measurement_of
from servolt.workload import Workload

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
    "impossible_times": ("invalid", {"request": {"prefill_ns": 150_000_000}}),
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


def test_first_tokens_that_the_engine_sent_long_before_are_a_receive_lag(made: Any) -> None:
    # 0.1 s lie between the first token and the last as seen, and 0.11 s by the engine's clock
    measurement = made(request={"decode_ns": 110_000_000}).measurement()
    assert _codes(measurement) == {"receive_lag"}
    (flag,) = (flag for flag in measurement.validity.flags if flag.code == "receive_lag")
    assert "first tokens came 10.0 ms before that, of a ttft of 100.0 ms" in flag.message
    assert measurement.validity.evidence["first_tokens_seen_late_s"] == pytest.approx(0.01)
    within = made(request={"decode_ns": 101_000_000}).measurement()
    assert _codes(within) == set()
    stopped = made(request={"decode_ns": 110_000_000, "finish_reason": 2}).measurement()
    assert _codes(stopped) == set()  # the end token took the 10 ms


def test_arrivals_without_stamps_are_noted(made: Any) -> None:
    truth = made()
    tables = truth.tables()
    events = dict(tables["events"])
    events["lag_ns"] = np.ma.MaskedArray(events["t_ns"], mask=True)
    measurement = measurement_of(truth.raw(), tables["requests"], events, ())
    assert _codes(measurement) == {"receive_lag_unknown"}
    assert measurement.validity.verdict == "valid"


def _with_cached(truth: Any, cached: np.ndarray[Any, Any], **columns: Any) -> Any:
    tables = truth.tables()
    requests = {**tables["requests"], "cached": cached, **columns}
    return measurement_of(truth.raw(), requests, tables["events"], ())


NATURAL = {"workload": Workload(input_len=64, output_len=11, repetitions=4, length_control="natural")}


def test_a_template_that_every_prompt_begins_with_is_no_contamination(made: Any) -> None:
    # 14 tokens of a template before the words and some after; by chance a nonce begins as another one did
    random = np.random.default_rng(1)
    truth = made(n_in=90, run=NATURAL)
    cached = 14 + (random.random(80) < 0.2)
    measurement = _with_cached(truth, cached)
    assert _codes(measurement) == set()
    assert measurement.validity.evidence["prefix_tokens_shared"] == 14


def test_prompts_that_a_server_has_seen_before_are_a_contamination(made: Any) -> None:
    truth = made(n_in=90, run=NATURAL)
    some = np.where(np.arange(80) % 5 == 0, 89, 14)
    for cached in (some, np.full(80, 89)):
        measurement = _with_cached(truth, cached)
        assert _codes(measurement) == {"cache_contaminated"}
    (flag,) = (flag for flag in _with_cached(truth, some).validity.flags if flag.code == "cache_contaminated")
    assert "beyond the 14 with which every prompt begins" in flag.message


def test_first_prompts_that_find_an_empty_cache_don_t_count_the_template_as_contamination(made: Any) -> None:
    cached = np.full(80, 14)
    cached[:4] = 0
    assert _codes(_with_cached(made(n_in=90, run=NATURAL), cached)) == set()


def test_short_prompts_that_are_repeated_are_a_contamination_too(made: Any) -> None:
    workload = Workload(input_len=8, output_len=11, repetitions=4)
    truth = made(n_in=8, run={"workload": workload})
    assert _codes(_with_cached(truth, np.full(80, 7))) == {"cache_contaminated"}


def test_a_server_that_says_nothing_of_its_cache_is_not_judged_by_it(made: Any) -> None:
    unknown = np.ma.MaskedArray(np.zeros(80, dtype=np.int64), mask=True)
    measurement = _with_cached(made(), unknown)
    assert _codes(measurement) == set()
    assert "prompt_tokens_cached" not in measurement.validity.evidence


def test_a_throughput_that_falls_from_window_to_window_is_a_drift(made: Any) -> None:
    def falling(slower: float) -> Any:
        # windows of one length in which ever fewer tokens come
        truth = made(windows=6)
        tables = truth.tables()
        requests, events = tables["requests"], tables["events"]
        kept = events["i"] < 20 - np.round(slower * np.asarray(events["window"])).astype(int)
        return measurement_of(truth.raw(), requests, {name: column[kept] for name, column in events.items()}, ())

    assert "drift" not in _codes(falling(0.0))
    measurement = falling(1.0)
    (flag,) = (flag for flag in measurement.validity.flags if flag.code == "drift")
    assert flag.severity == "warning"
    assert "-25%" in flag.message  # from 20 answers to 15


def test_windows_that_only_differ_are_no_drift(made: Any) -> None:
    flagged = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        truth = made(windows=6)
        tables = truth.tables()
        events = tables["events"]
        most = random.integers(12, 21, size=6)
        kept = events["i"] < most[np.asarray(events["window"])]
        some = {name: column[kept] for name, column in events.items()}
        flagged += "drift" in _codes(measurement_of(truth.raw(), tables["requests"], some, ()))
    assert flagged <= 2  # one in a hundred by chance


def test_a_token_before_its_request_is_impossible(made: Any) -> None:
    truth = made()
    tables = truth.tables()
    requests = dict(tables["requests"])
    requests["c1_ns"] = np.where(np.arange(80) == 3, requests["d_ns"] - 1, requests["c1_ns"])
    measurement = measurement_of(truth.raw(), requests, tables["events"], ())
    assert "impossible_times" in _codes(measurement)
    assert measurement.validity.verdict == "invalid"


def test_what_a_run_is_judged_by_is_kept_without_a_flag_too(made: Any) -> None:
    measurement = made(window={"foreign_cpu_s": 0.4, "client_busiest_cpu_s": 1.0}, windows=2, cut=1).measurement()
    evidence = measurement.validity.evidence
    assert measurement.validity.verdict == "valid"
    assert evidence["receive_lag_p50_s"] == evidence["receive_lag_p99_s"] == 40e-6  # of every event
    assert evidence["send_lag_p99_s"] == 0.0001
    assert evidence["foreign_processors"] == pytest.approx(0.4 / 2 / 4.001)
    assert evidence["client_core"] == pytest.approx(1 / 4.001)
    assert evidence["requests_cut"] == 1 / 20
    assert evidence["events_read_together"] == 0


def test_a_point_at_which_nothing_came_is_named(made: Any) -> None:
    workload = Workload(input_len=64, output_len=11, repetitions=4, concurrency=(1, 64))
    measurement = made(run={"workload": workload}).measurement()
    (flag,) = (flag for flag in measurement.validity.flags if flag.code == "nothing_measured")
    assert "At c=64" in flag.message
