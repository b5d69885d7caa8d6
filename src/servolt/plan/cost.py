"""What a deployment costs: rented or owned hardware, electricity, and the carbon of it."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from servolt.document import Value
from servolt.errors import InvalidInputError

__all__ = ["HOURS_PER_YEAR", "Economy", "costs_of", "costs_said"]

HOURS_PER_YEAR = 365.25 * 24
JOULES_PER_KWH = 3.6e6


class Economy(Value):
    """Prices of one device, rented by the hour or bought. What is not given is not charged.

    A rent holds the electricity; what is owned pays for its own.
    """

    usd_per_device_hour: float | None = Field(None, ge=0, description="rent of one device, spot or on demand")
    capital_usd: float | None = Field(None, ge=0, description="of one device with its share of the machine")
    lifetime_years: float = Field(4.0, gt=0, description="over which capital is written off, in a straight line")
    electricity_usd_per_kwh: float | None = Field(None, ge=0)
    host_w: float = Field(0.0, ge=0, description="of the machine beside its devices, the share of one device")
    pue: float = Field(1.0, ge=1, description="power of the facility over that of the machines")
    carbon_g_per_kwh: float | None = Field(None, ge=0, description="CO2 equivalent of the grid")
    utilisation: float = Field(1.0, gt=0, le=1, description="share of the paid time under this load; the rest is idle")
    idle_w: float | None = Field(None, ge=0, description="of one device that waits, for the idle share")
    source: str = Field(description="where the prices come from, with the date")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], *, source: str) -> Self:
        """Raises InvalidInputError."""
        try:
            return cls(**fields, source=source)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise InvalidInputError(f"the prices can't be: {fault['msg']}.", "Give a rent, or capital.") from error

    @model_validator(mode="after")
    def _rented_or_owned(self) -> Self:
        if self.usd_per_device_hour is not None and self.capital_usd is not None:
            raise ValueError("hardware is rented (usd_per_device_hour) or owned (capital_usd), not both")
        return self


def costs_of(
    economy: Economy, power_w: float | None, output_throughput: float, devices: int
) -> Mapping[str, float | None]:
    """By metric. `power_w` is of all devices under the load, None where it is not known.

    All that is paid falls on the output tokens, idle time included. Ten H100 hours of rent at 2 USD and 1,000 tokens/s:

    >>> costs_of(Economy(usd_per_device_hour=2.0, source="a price list"), None, 1000.0, 10)["cost_per_hour"]
    20.0
    """
    mean_w = _mean_power_w(economy, power_w, devices)
    kilowatts = None if mean_w is None else mean_w * economy.pue / 1e3
    per_hour = _usd_per_hour(economy, kilowatts, devices)
    tokens_per_hour = output_throughput * economy.utilisation * 3600
    found: dict[str, float | None] = {
        "cost_per_hour": per_hour,
        "cost_per_million_output_tokens": None if per_hour is None else per_hour / tokens_per_hour * 1e6,
    }
    if economy.carbon_g_per_kwh is not None:
        grams = None if kilowatts is None else kilowatts * economy.carbon_g_per_kwh
        found["carbon_per_million_output_tokens"] = None if grams is None else grams / tokens_per_hour * 1e6
    return found


def costs_said(economy: Economy, power_w: float | None, output_throughput: float, devices: int) -> Mapping[str, str]:
    """How each of `costs_of` comes about, with its values."""
    mean_w = _mean_power_w(economy, power_w, devices)
    energy = "" if mean_w is None else f"{mean_w / 1e3:.6g} kW x PUE {economy.pue:g}"
    tokens = f"({output_throughput:.6g} tokens/s x 3600 s x {economy.utilisation:g} of the time)"
    hourly = f"{economy.usd_per_device_hour:g} USD/h x {devices}" if economy.usd_per_device_hour is not None else ""
    if economy.capital_usd is not None:
        hourly = f"{economy.capital_usd:g} USD / ({economy.lifetime_years:g} years x {HOURS_PER_YEAR:g} h) x {devices}"
    if economy.usd_per_device_hour is None and economy.electricity_usd_per_kwh is not None and energy:
        hourly += f"{' + ' if hourly else ''}{energy} x {economy.electricity_usd_per_kwh:g} USD/kWh"
    source = f"; {economy.source}"
    grams = (
        "" if economy.carbon_g_per_kwh is None else f"{energy} x {economy.carbon_g_per_kwh:g} g/kWh / {tokens} x 1e6"
    )
    return {
        "cost_per_hour": (hourly or "not priced") + source,
        "cost_per_million_output_tokens": f"({hourly or 'not priced'}) / {tokens} x 1e6{source}",
        "carbon_per_million_output_tokens": grams + source,
    }


def _mean_power_w(economy: Economy, power_w: float | None, devices: int) -> float | None:
    """Over busy and idle time, with the machine around the devices."""
    if power_w is None:
        return None
    idle_w = power_w if economy.idle_w is None else economy.idle_w * devices
    return economy.utilisation * power_w + (1 - economy.utilisation) * idle_w + economy.host_w * devices


def _usd_per_hour(economy: Economy, kilowatts: float | None, devices: int) -> float | None:
    """None where nothing is priced, or where the power is not known that would have to be paid for."""
    if economy.usd_per_device_hour is not None:
        return economy.usd_per_device_hour * devices
    if economy.capital_usd is None and economy.electricity_usd_per_kwh is None:
        return None
    capital = (economy.capital_usd or 0.0) / (economy.lifetime_years * HOURS_PER_YEAR) * devices
    if economy.electricity_usd_per_kwh is None:
        return capital
    return None if kilowatts is None else capital + kilowatts * economy.electricity_usd_per_kwh
