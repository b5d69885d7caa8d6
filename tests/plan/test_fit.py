import random
from collections.abc import Callable

import pytest

from servolt.errors import EngineError
from servolt.model import Model
from servolt.plan import Constants
from servolt.plan.fit import ProbePoint, fitted
from servolt.plan.kv_cache import kv_cache_bytes_per_token
from servolt.plan.speed import law_of


def probes(make_model: Callable[..., Model]) -> list[Model]:
    thin = {"hidden": 128, "feed_forward": 256, "heads": 4, "kv_heads": 2, "head_dim": 32, "vocabulary": 512}
    small = {"layers": 6, "hidden": 384, "feed_forward": 1024, "heads": 6, "kv_heads": 3, "head_dim": 64}
    large = {"layers": 12, "hidden": 768, "feed_forward": 2048, "heads": 12, "kv_heads": 4, "head_dim": 64}
    sized = [make_model(**size, vocabulary=8192, dtype=dtype) for size in (small, large) for dtype in ("f16", "q8_0")]
    return [make_model(layers=2, **thin), make_model(layers=24, **thin), *sized]


def truth(constants: Constants, models: list[Model], noise: Callable[[], float]) -> list[ProbePoint]:
    """What an engine with these constants would show."""
    points = []
    for model in models:
        law = law_of(constants, model, threads=1, kv_bytes_per_token=kv_cache_bytes_per_token(model), ubatch=512)
        points += [ProbePoint(model, n, 8.0, 0, noise() * law.decode_s(n, 8.0)) for n in (1, 3.5, 8)]
        points.append(ProbePoint(model, 0, 0.0, 64, noise() * law.prefill_s(64)))
    return points


def fit(points: list[ProbePoint]) -> Constants:
    return fitted(
        points,
        engine="llamacpp",
        engine_version="1",
        accelerator="two cores",
        threads=1,
        request_s=1e-3,
        read_bytes_per_s=14e9,
        source="a test",
    )


@pytest.fixture
def planted(constants: Constants, make_model: Callable[..., Model]) -> Constants:
    """The constants with their sets at the sizes that the probes have."""
    return constants.model_copy(update={"weights": fit(truth(constants, probes(make_model), lambda: 1.0)).weights})


def test_planted_constants_are_found_again(planted: Constants, make_model: Callable[..., Model]) -> None:
    found = fit(truth(planted, probes(make_model), lambda: 1.0))
    for name in ("step_s", "layer_s", "sequence_s", "layer_token_s"):
        assert getattr(found, name) == pytest.approx(getattr(planted, name), rel=0.01), name
    for dtype, speed in planted.weights.items():
        assert found.weights[dtype].flops_per_s == pytest.approx(speed.flops_per_s, rel=0.01)
        assert found.weights[dtype].large_bytes_per_s == pytest.approx(speed.large_bytes_per_s, rel=0.01)


def test_a_few_disturbed_points_do_not_rule_and_widen_little(
    planted: Constants, make_model: Callable[..., Model]
) -> None:
    chance = random.Random(1)
    noisy = truth(planted, probes(make_model) * 3, lambda: 4.0 if chance.random() < 0.1 else 1.0)
    found = fit(noisy)
    for dtype, speed in planted.weights.items():
        assert found.weights[dtype].flops_per_s == pytest.approx(speed.flops_per_s, rel=0.05)
        assert found.weights[dtype].large_bytes_per_s == pytest.approx(speed.large_bytes_per_s, rel=0.1)


def test_more_noise_is_a_larger_spread(planted: Constants, make_model: Callable[..., Model]) -> None:
    chance = random.Random(1)
    noisy = fit(truth(planted, probes(make_model) * 3, lambda: chance.lognormvariate(0, 0.4)))
    assert 0.25 < noisy.spread < 0.5
    assert fit(truth(planted, probes(make_model), lambda: 1.0)).spread == pytest.approx(0.1)


def test_no_constant_is_negative_whatever_the_times(make_model: Callable[..., Model], planted: Constants) -> None:
    chance = random.Random(2)
    found = fit(truth(planted, probes(make_model), lambda: chance.uniform(0.3, 3)))
    assert min(found.step_s, found.layer_s, found.sequence_s, found.layer_token_s) >= 0


def test_times_that_do_not_grow_with_the_work_are_refused(make_model: Callable[..., Model]) -> None:
    flat = [ProbePoint(model, n, 8.0, 0, 1e-3 / n) for model in probes(make_model) for n in (1, 8)]
    with pytest.raises(EngineError, match="quieter machine"):
        fit(flat)
