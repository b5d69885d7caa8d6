"""Documents read what they write, refuse what they do not know, and name themselves."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servolt import settings
from servolt.deployment import Deployment
from servolt.document import canonical_json, digest, plain_of
from servolt.errors import InvalidInputError
from servolt.metrics import METRICS, Estimate, Metrics
from servolt.plan import Plan
from servolt.study.plan import plan_here
from servolt.workload import LoadPoint, Workload


def test_json_and_yaml_give_back_the_same_deployment() -> None:
    deployment = Deployment(model="guide", quantization="q8_0", max_num_seqs=4)
    assert Deployment.from_json(deployment.to_json()) == deployment
    assert Deployment.from_yaml(deployment.to_yaml()) == deployment


def test_a_document_names_its_schema() -> None:
    assert json.loads(Deployment(model="guide").to_json())["schema"] == "servolt.deployment/1"


def test_the_digest_covers_only_the_fields_that_are_set() -> None:
    plain = Deployment(model="guide")
    assert plain.digest == Deployment.from_plain({"model": "guide", "threads": None}).digest
    assert plain.digest != Deployment(model="guide", threads=1).digest
    # Renaming all deployments of all users is a decision, not an accident.
    assert plain.digest == digest({"engine": "llamacpp", "model": "guide", "schema": "servolt.deployment/1"})


@pytest.mark.parametrize(
    ("name", "model", "quantization"),
    [
        ("guide", "guide", None),
        ("guide:latest", "guide", None),
        ("guide:F16", "guide", "f16"),
        ("/models/a:b/weights.gguf", "/models/a:b/weights.gguf", None),
        ("C:\\models\\weights.gguf", "C:\\models\\weights.gguf", None),
    ],
)
def test_a_name_may_carry_its_weights(name: str, model: str, quantization: str | None) -> None:
    deployment = Deployment.of(name)
    assert (deployment.model, deployment.quantization) == (model, quantization)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": "a\nb"},
        {"model": "guide", "threads": 0},
        {"model": "guide", "max_num_seqs": -1},
        {"model": "guide", "max_model_len": 10**30},
        {"model": "guide", "threds": 2},
        {},
    ],
)
def test_a_bad_deployment_is_refused_with_the_field_and_a_remedy(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        Deployment.from_plain(fields)
    assert "servolt schema deployment" in refusal.value.remedy
    assert any(name in refusal.value.cause for name in ("model", "threads", "max_num_seqs", "max_model_len", "threds"))


def test_text_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not YAML"):
        Deployment.from_yaml("a: [")


@pytest.mark.parametrize(
    ("schema", "told", "remedy"),
    [
        ("servolt.workload/2", "a newer servolt wrote it, as servolt.workload/2", "Update servolt"),
        ("servolt.workload/0", "an older servolt wrote it", "the servolt that wrote it"),
        ("servolt.plan/1", "'servolt.plan/1' stands where a servolt.workload/1 is needed", "servolt.workload/1"),
        ("nonsense", "'nonsense' stands where", "servolt.workload/1"),
    ],
)
def test_a_document_of_another_schema_is_told_by_its_name_and_number(schema: str, told: str, remedy: str) -> None:
    # whatever else is in it: the fields of another schema are no faults of this one
    with pytest.raises(InvalidInputError) as refusal:
        Workload.from_json(json.dumps({"schema": schema, "levels": [1, 2]}))
    assert refusal.value.cause.startswith(told)
    assert remedy in refusal.value.remedy


def test_a_newer_document_inside_another_is_told_too() -> None:
    with pytest.raises(InvalidInputError, match=r"newer servolt wrote it, as servolt\.accelerator/7"):
        Plan.from_plain({"accelerator": {"schema": "servolt.accelerator/7"}})


def test_nan_is_no_value() -> None:
    with pytest.raises(InvalidInputError):
        Metrics.from_json('{"items": [{"metric": "ttft", "value": NaN, "unit": "s", "basis": "measured"}]}')


@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text()))
def test_canonical_json_does_not_depend_on_the_order_of_keys(plain: dict[str, object]) -> None:
    assert canonical_json(plain) == canonical_json(dict(reversed(plain.items())))


def test_canonical_json_has_one_spelling_for_one_number() -> None:
    assert canonical_json([1.0, 0.1 + 0.2]) == b"[1,0.3]"


def test_a_workload_has_a_point_for_each_level() -> None:
    assert Workload(concurrency=(1, 4)).points == (LoadPoint(1, None), LoadPoint(4, None))
    assert Workload(arrival="poisson", request_rate=(0.5,)).points == (LoadPoint(None, 0.5),)


@pytest.mark.parametrize(
    "fields",
    [
        {"concurrency": []},
        {"concurrency": [0]},
        {"arrival": "poisson"},
        {"arrival": "poisson", "request_rate": [0]},
        {"duration_s": -1},
    ],
)
def test_a_workload_without_a_load_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        Workload.from_plain(fields)


def test_an_estimate_is_found_at_its_load_point_only() -> None:
    one = Estimate(metric="ttft", value=0.1, unit="s", basis="measured", statistic="p50", concurrency=4)
    metrics = Metrics(items=(one,))
    assert metrics.get("ttft", concurrency=4) == one
    assert metrics.get("ttft", concurrency=1) is None
    assert metrics.get("ttft", statistic="p99", concurrency=4) is None


def test_each_metric_has_a_unit_and_a_sentence() -> None:
    for name, metric in METRICS.items():
        assert metric.unit, name
        assert metric.sentence.endswith("."), name


def test_a_plan_survives_yaml_with_its_unknowns(tmp_path: Path) -> None:
    plan = plan_here(Deployment.of("guide"), Workload(), settings.folders({"SERVOLT_HOME": str(tmp_path)}))
    unknown = plan.estimates[0].model_copy(update={"value": None, "low": None, "high": None, "reason": "unknown"})
    plan = plan.model_copy(update={"estimates": (unknown,), "engine_version": None})
    assert Plan.from_yaml(plan.to_yaml()) == plan
    assert Plan.from_json(plan.to_json()) == plan


def test_a_number_of_json_is_a_number() -> None:
    """YAML 1.1 reads 1e5 as a word."""
    assert plain_of('{"a": 1e5}') == {"a": 1e5}
    assert plain_of("{a: 1, b: [2]}") == {"a": 1, "b": [2]}


def test_an_error_does_not_say_back_megabytes() -> None:
    with pytest.raises(InvalidInputError) as refusal:
        Deployment.from_plain({"model": "guide", "x" * 5_000_000: 1})
    assert len(str(refusal.value)) < 10_000
    with pytest.raises(InvalidInputError) as refusal:
        Deployment.from_plain({"model": "x" * 5_000_000})
    assert len(str(refusal.value)) < 500
