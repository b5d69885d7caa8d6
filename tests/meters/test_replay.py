"""The replay meter keeps its law."""

import pytest

from servolt import registry
from servolt.meters.replay import ReplayMeter


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_integrates_its_law_in_steps_of_its_period() -> None:
    clock = _Clock()
    meter = ReplayMeter(idle_w=10.0, busy_w=30.0, load_s=lambda t: 0.5 * t, period_s=0.5, clock=clock)
    clock.now = 104.3
    assert meter.read() == {"replay-0": pytest.approx(4.0 * 10.0 + 2.0 * 30.0)}


def test_it_calls_itself_a_model_so_that_nothing_is_called_measured() -> None:
    assert registry.meter("replay").kind == "model"


def test_every_registered_meter_states_its_sensor_and_only_grows() -> None:
    for name in registry.names("meters"):
        meter = registry.meter(name)
        assert meter.name == name
        assert meter.period_s > 0
        assert meter.source
        first, second = meter.read(), meter.read()
        assert all(second[device] >= first[device] for device in first)
