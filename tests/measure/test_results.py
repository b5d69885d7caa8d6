"""From raw rows to results: made-up runs whose truth is known, by the definitions of the metrics."""

from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.document import digest
from servolt.measure import IdlePower, measurement_of
from servolt.metrics import METRICS, Estimate
from servolt.statistics import clopper_pearson
from servolt.workload import Slo


def _get(measurement: Any, metric: str, statistic: str | None = None) -> Estimate:
    found = [one for one in measurement.results if one.metric == metric and statistic in (None, one.statistic)]
    assert found, metric
    estimate: Estimate = found[0]
    return estimate


def test_the_planted_truth_comes_back(made: Any) -> None:
    truth = made(ttft_s=0.1, gap_s=0.01, n_out=11, lag_s=0.001)
    measurement = truth.measurement()
    seconds = truth.duration_s + 0.001
    expected = {
        "ttft": 0.1, "ttft_service": 0.099, "tpot": 0.01, "itl": 0.01, "e2el": 0.2,
        "request_throughput": 20 / seconds, "output_throughput": 220 / seconds,
        "total_throughput": 20 * 75 / seconds, "prefill_throughput": 64 / 0.099, "decode_throughput": 100.0,
        "resident_memory": 10**8, "cpu_seconds_per_output_token": 0.5 * truth.duration_s / 220, "failed_share": 0.0,
    }  # fmt: skip
    for metric, value in expected.items():
        found = _get(measurement, metric)
        assert found.value == pytest.approx(value, rel=1e-6), metric
        assert found.unit == METRICS[metric].unit
        assert found.basis == "measured"


def test_each_window_carries_its_own_figures(made: Any) -> None:
    windows = made().measurement().windows
    assert len(windows) == 4
    assert all(window.metrics["ttft"] == pytest.approx(0.1) for window in windows)
    assert all("energy" not in window.metrics for window in windows)


def test_intervals_hold_their_value_and_say_how_they_were_made(made: Any) -> None:
    for estimate in made().measurement().results:
        if estimate.low is not None:
            assert estimate.value is not None
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.method
            assert estimate.level == 0.95


def test_without_a_meter_energy_is_null_in_words_and_never_0(made: Any) -> None:
    measurement = made().measurement()
    energies = [one for one in measurement.results if one.metric.startswith("energy")]
    assert len(energies) == 5
    assert {one.value for one in energies} == {None}
    assert {one.reason for one in energies} == {"not measured: no readable counter"}


METER = {"name": "rapl", "scope": "package", "kind": "counter", "period_s": 0.001}


def test_joules_are_a_ratio_of_sums_and_net_energy_may_be_negative(made: Any) -> None:
    run = {"meter": METER, "idle_empty": IdlePower(duration_s=30, watts={"package-0": 10.0})}
    truth = made(window={"joules": {"package-0": 22.0}}, run=run)
    measurement = truth.measurement()
    assert _get(measurement, "energy").value == 22.0
    assert _get(measurement, "energy_per_output_token").value == pytest.approx(0.1)
    assert _get(measurement, "energy_per_request").value == pytest.approx(1.1)
    assert _get(measurement, "energy_net_empty").value == pytest.approx(22 - 10 * (truth.duration_s + 0.001))
    assert _get(measurement, "energy_net_loaded").value is None
    assert _get(measurement, "energy_net_loaded").reason == "not measured: no reading of the idle machine"


def test_effort_of_a_window_in_which_nothing_was_completed_counts(made: Any) -> None:
    truth = made(window={"joules": {"package-0": 22.0}}, run={"meter": METER}, idle=(3,))
    measurement = truth.measurement()
    assert _get(measurement, "energy_per_output_token").value == pytest.approx(4 * 22 / (3 * 220))
    assert _get(measurement, "energy_per_request").value == pytest.approx(4 * 22 / (3 * 20))
    per_token = _get(measurement, "cpu_seconds_per_output_token").value
    assert per_token == pytest.approx(4 * 0.5 * truth.duration_s / (3 * 220))


def test_no_joules_are_a_reading_and_no_gap(made: Any) -> None:
    differ = {number: {"joules": {"package-0": 0.0}} for number in (0, 1)}
    truth = made(window={"joules": {"package-0": 22.0}}, run={"meter": METER}, windows_differ=differ)
    measurement = truth.measurement()
    assert _get(measurement, "energy_per_output_token").value == pytest.approx(2 * 22 / (4 * 220))
    assert measurement.windows[0].metrics["energy_per_output_token"] == 0.0


def test_joules_of_some_devices_only_are_not_those_of_the_machine(made: Any) -> None:
    both = {"joules": {"package-0": 22.0, "package-1": 22.0}}
    truth = made(window=both, run={"meter": METER}, windows_differ={3: {"joules": {"package-1": 22.0}}})
    measurement = truth.measurement()
    assert _get(measurement, "energy").value == 44.0
    assert _get(measurement, "energy_per_output_token").value == pytest.approx(0.2)
    assert "energy" not in measurement.windows[3].metrics


def test_a_counter_that_was_reset_leaves_energy_null_and_says_so(made: Any) -> None:
    measurement = made(window={"joules": None}, run={"meter": METER}).measurement()
    energy = _get(measurement, "energy")
    assert energy.value is None
    assert "was reset" in (energy.reason or "")


def test_percentiles_of_windows_that_differ_are_less_sure(made: Any) -> None:
    found = _get(made(windows=3).measurement(), "ttft", "p50")
    assert "jackknife over windows" in (found.method or "")
    assert _get(made(windows=1, requests=60).measurement(), "ttft", "p50").method == "order statistics"


def test_few_gaps_in_each_window_leave_the_windows_to_make_the_interval(made: Any) -> None:
    found = _get(made(windows=3).measurement(), "itl", "p99")  # 200 gaps in each, and 459 are needed
    assert "jackknife over windows" in (found.method or "")


@pytest.mark.parametrize(
    ("slo", "share"),
    [
        (Slo(ttft=0.2), 1.0),  # the first token had come in time
        (Slo(ttft=0.05), 0.0),  # and here it had not
        (Slo(e2el=0.19), 0.0),  # 0.2 s had passed, and the answer was not over
    ],
)
def test_a_request_that_is_cut_has_kept_and_missed_what_was_settled_by_then(made: Any, slo: Slo, share: float) -> None:
    found = _get(made(run={"slo": slo}, cut=1).measurement(), "slo_attainment")
    assert (found.value, found.n, found.reason) == (share, 80, None)


def test_the_interval_of_attainment_holds_both_ends_of_requests_that_were_cut(made: Any) -> None:
    found = _get(made(run={"slo": Slo(e2el=0.25)}, cut=1).measurement(), "slo_attainment")
    assert found.value == 1.0  # of the 76 that are settled
    assert found.low == pytest.approx(clopper_pearson(76, 80).low)
    assert found.high == 1.0
    assert found.reason == (
        "the end of a window cut 4 of 80 requests before it was settled: the interval holds both ways"
    )


def test_where_every_answer_is_cut_attainment_is_not_known(made: Any) -> None:
    found = _get(made(run={"slo": Slo(e2el=0.25)}, cut=20).measurement(), "slo_attainment")
    assert (found.value, found.reason) == (None, "no request ended inside a window")


def test_goodput_of_a_closed_loop_counts_what_ends_inside_the_window(made: Any) -> None:
    # the first request of each window began a little before it, as a stream's first one does
    truth = made(run={"slo": Slo(e2el=0.25)})
    run = truth.raw()
    windows = tuple(one.model_copy(update={"start_ns": one.start_ns + 1_000_000}) for one in run.windows)
    tables = truth.tables()
    late = measurement_of(run.model_copy(update={"windows": windows}), tables["requests"], tables["events"], ())
    assert _get(late, "request_goodput").value == _get(late, "request_throughput").value


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("/home/me/models/a.gguf", "a.gguf"),
        ("~/models/Llama-3-folder/", "Llama-3-folder"),
        (r"C:\Users\me\a.safetensors", "a.safetensors"),
        ("guide:q8_0", "guide:q8_0"),
        ("replay?step_s=0.002", "replay?step_s=0.002"),
    ],
)
def test_a_run_names_files_and_no_folders_of_this_machine(made: Any, model: str, kept: str) -> None:
    assert made(run={"deployment": Deployment(model=model)}).raw().deployment.model == kept


def test_a_run_names_no_folders_in_any_option(made: Any) -> None:
    options: dict[str, Any] = {"speculative_config": {"method": "draft_model", "model": "/home/me/draft.gguf"}}
    options |= {"engine_args": {"chat-template-file": "/home/me/t.jinja", "seed": 1}, "engine_executable": "./bin/mine"}
    kept = made(run={"deployment": Deployment.from_plain({"model": "guide", **options})}).raw().deployment
    assert kept.speculative_config is not None
    assert kept.speculative_config.model == "draft.gguf"
    assert kept.engine_args == {"chat-template-file": "t.jinja", "seed": 1}
    assert kept.engine_executable == "mine"


def test_power_over_throughput_is_energy_per_token(made: Any) -> None:
    measurement = made(window={"joules": {"package-0": 22.0}}, run={"meter": METER}).measurement()
    window = measurement.windows[0]
    watts = 22.0 / ((window.end_ns - window.start_ns) / 1e9)
    per_token = watts / window.metrics["output_throughput"]
    assert window.metrics["energy_per_output_token"] == pytest.approx(per_token)


def test_modelled_joules_are_called_estimated(made: Any) -> None:
    run = {"meter": METER | {"kind": "model"}}
    measurement = made(window={"joules": {"replay-0": 22.0}}, run=run).measurement()
    assert _get(measurement, "energy").basis == "estimated"


def test_bundled_tokens_leave_tpot_right_and_make_itl_undefined(made: Any) -> None:
    # 9 tokens in events of 4, 4 and 1: tpot counts from the first event's tokens on
    measurement = made(n_out=9, gap_s=0.01, tokens_per_event=4).measurement()
    assert _get(measurement, "tpot").value == pytest.approx(0.08 / 5)
    assert _get(measurement, "itl").value is None
    assert _get(measurement, "icl").value == pytest.approx(0.04)
    assert _get(measurement, "output_throughput").value == pytest.approx(20 * 9 / (20 * 0.18 + 0.001))


def test_tokens_are_the_servers_count_and_not_the_number_of_events(made: Any) -> None:
    truth = made(n_out=9, tokens_per_event=4, running_count=False)
    measurement = truth.measurement()
    assert _get(measurement, "output_throughput").value == pytest.approx(20 * 9 / (truth.duration_s + 0.001))
    assert "bundled_tokens" in {flag.code for flag in measurement.validity.flags}


def test_decode_is_what_happens_while_no_stream_is_in_prefill(made: Any) -> None:
    # 0.1 s of prefill, then 10 tokens in 0.1 s: the prefill has no part in the 100 tokens/s
    assert _get(made().measurement(), "decode_throughput").value == pytest.approx(100)
    unknown = made(request={"prefill_ns": -(2**63)}).measurement()
    assert _get(unknown, "decode_throughput").value is None
    assert _get(unknown, "decode_throughput").reason == "the engine does not say how long prefill took"


def test_answers_of_one_token_have_no_tpot_and_say_why(made: Any) -> None:
    measurement = made(n_out=1).measurement()
    assert _get(measurement, "tpot").reason == "an answer of one token has none after the first"
    assert _get(measurement, "decode_throughput").value is None
    assert _get(measurement, "ttft").value == pytest.approx(0.1)


def test_a_percentile_of_too_few_requests_is_null_and_says_how_many_it_needs(made: Any) -> None:
    found = _get(made(windows=3).measurement(), "ttft", "p99")
    assert found.value is None
    assert found.reason == "60 requests say nothing of p99: 459 are needed"


def test_what_is_cut_by_the_end_of_the_window_is_no_failure(made: Any) -> None:
    measurement = made(outcome="cancelled").measurement()
    assert _get(measurement, "failed_share").value is None
    assert _get(measurement, "ttft").value == pytest.approx(0.1)
    assert _get(measurement, "e2el").value is None
    assert _get(measurement, "request_throughput").value is None
    assert _get(measurement, "output_throughput").value == pytest.approx(20 * 11 / (20 * 0.2 + 0.001))


def test_goodput_counts_what_keeps_every_bound_and_meeting_one_is_keeping_it(made: Any) -> None:
    truth = made()
    kept = made(run={"slo": Slo(ttft=0.1, e2el=0.25)}).measurement()
    assert _get(kept, "slo_attainment").value == 1.0
    assert _get(kept, "request_goodput").value == pytest.approx(20 / (truth.duration_s + 0.001))
    missed = made(run={"slo": Slo(ttft=0.1, tpot=0.009)}).measurement()
    assert _get(missed, "slo_attainment").value == 0.0


def test_failures_count_against_the_slo(made: Any) -> None:
    measurement = made(outcome="failed", run={"slo": Slo(ttft=10)}).measurement()
    assert _get(measurement, "slo_attainment").value == 0.0
    assert _get(measurement, "failed_share").value == 1.0


def test_the_id_is_the_digest_of_all_the_rest(made: Any) -> None:
    measurement = made().measurement()
    assert measurement.id == digest(measurement.model_dump(mode="json", exclude={"id"}))
    assert measurement.id != made(gap_s=0.02).measurement().id


def test_one_window_alone_gives_intervals_from_its_requests(made: Any) -> None:
    measurement = made(windows=1, requests=60).measurement()
    assert "bootstrap" in (_get(measurement, "ttft").method or "")
    assert _get(measurement, "output_throughput").low is not None


def test_a_run_without_a_single_row_is_invalid_and_not_an_accident(made: Any) -> None:
    truth = made(windows=1)
    tables = truth.tables()
    empty = {name: {column: values[:0] for column, values in table.items()} for name, table in tables.items()}
    measurement = measurement_of(truth.raw(), empty["requests"], empty["events"], ())
    assert measurement.validity.verdict == "invalid"
    throughput = _get(measurement, "output_throughput")
    assert throughput.value is None  # nothing was seen: that is no speed of 0
    assert "--duration" in (throughput.reason or "")
    assert _get(measurement, "ttft").value is None
    (flag,) = (flag for flag in measurement.validity.flags if flag.code == "nothing_measured")
    assert "--duration" in flag.remedy


def test_a_server_that_fails_every_request_has_a_throughput_of_0(made: Any) -> None:
    truth = made(outcome="failed")
    tables = truth.tables()
    none = {name: column[:0] for name, column in tables["events"].items()}
    measurement = measurement_of(truth.raw(), tables["requests"], none, ())
    assert _get(measurement, "output_throughput").value == 0.0
    assert _get(measurement, "request_throughput").value == 0.0
