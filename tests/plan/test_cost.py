"""Costs against sums done by hand."""

import pytest

from servolt.plan.cost import Economy, costs_of


def test_rent_falls_on_the_tokens() -> None:
    costs = costs_of(Economy(usd_per_device_hour=3.0, source="a list, 2026"), 700.0, 1000.0, 2)
    assert costs["cost_per_hour"] == 6.0
    assert costs["cost_per_million_output_tokens"] == pytest.approx(6.0 / 3.6)
    assert "carbon_per_million_output_tokens" not in costs


def test_half_of_the_time_idle_doubles_the_price_of_a_token() -> None:
    busy, half = (
        costs_of(Economy(usd_per_device_hour=3.0, utilisation=share, source="x"), 700.0, 1000.0, 1)
        for share in (1, 0.5)
    )
    assert half["cost_per_hour"] == busy["cost_per_hour"]
    assert half["cost_per_million_output_tokens"] == pytest.approx(2 * (busy["cost_per_million_output_tokens"] or 0))


def test_owned_hardware_pays_capital_and_electricity() -> None:
    """4 years of 8,766 hours; 1 kW at 0.20 USD and PUE 1.5 is 0.30 USD an hour."""
    owned = Economy(capital_usd=35064.0, electricity_usd_per_kwh=0.2, pue=1.5, carbon_g_per_kwh=400.0, source="x")
    costs = costs_of(owned, 1000.0, 1000.0, 1)
    assert costs["cost_per_hour"] == pytest.approx(1.0 + 0.3)
    assert costs["carbon_per_million_output_tokens"] == pytest.approx(1.5 * 400 / 3.6)


def test_the_idle_share_draws_idle_power_and_the_machine_always_draws() -> None:
    economy = Economy(electricity_usd_per_kwh=1.0, utilisation=0.25, idle_w=100.0, host_w=50.0, source="x")
    assert costs_of(economy, 800.0, 1.0, 2)["cost_per_hour"] == pytest.approx((0.25 * 800 + 0.75 * 200 + 100) / 1e3)


def test_what_is_not_known_is_none_and_not_nothing() -> None:
    assert costs_of(Economy(source="x"), 700.0, 1.0, 1)["cost_per_hour"] is None
    assert costs_of(Economy(electricity_usd_per_kwh=0.2, source="x"), None, 1.0, 1)["cost_per_hour"] is None


def test_rented_and_owned_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rented .* or owned"):
        Economy(usd_per_device_hour=1.0, capital_usd=1.0, source="x")
