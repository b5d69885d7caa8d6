"""Prices for a plan: what was given, and from the catalogue what was not."""

from collections.abc import Mapping
from typing import Any

from servolt.catalogue import UnknownNameError, grid_intensity, prices
from servolt.deployment import Deployment
from servolt.plan.cost import Economy
from servolt.study.plan import accelerator_of

__all__ = ["economy_for"]

# What is given under a name of its own, and as what it is kept.
FIELDS = {"capital_usd": "capital_usd", "lifetime_years": "lifetime_years", "usd_per_kwh": "electricity_usd_per_kwh"}


def economy_for(deployment: Deployment, given: Mapping[str, Any]) -> Economy | None:
    """Of a deployment on named hardware: the rent that was given, else the catalogue's cheapest offer of that device.

    None where nothing is known and nothing was given. Raises InvalidInputError for a region that is not known, with the
    nearest names.
    """
    if deployment.hardware is None or deployment.hardware.accelerator is None:
        return None
    accelerator = accelerator_of(deployment)
    fields: dict[str, Any] = {field: given[name] for name, field in FIELDS.items() if name in given}
    fields |= {name: given[name] for name in ("pue", "utilisation") if name in given}
    sources = ["given"] if given else []
    if "region" in given:
        grid = grid_intensity(given["region"])
        fields["carbon_g_per_kwh"] = grid.gco2e_per_kwh
        sources.append(f"{grid.name} {grid.year or grid.date}: {grid.gco2e_per_kwh:g} gCO2e/kWh ({grid.source})")
    if "usd_per_hour" in given:
        fields["usd_per_device_hour"] = given["usd_per_hour"]
    elif "capital_usd" not in given and "usd_per_kwh" not in given:
        offer = _cheapest(accelerator.name, spot=bool(given.get("spot")))
        if offer is not None:
            fields["usd_per_device_hour"], said = offer
            sources.append(said)
    if not fields:
        return None
    if accelerator.idle_w is not None:
        fields["idle_w"] = accelerator.idle_w
    return Economy.from_fields(fields, source="; ".join(sources))


def _cheapest(accelerator: str, *, spot: bool) -> tuple[float, str] | None:
    """USD per device and hour, and where that is from."""
    try:
        offers = prices(accelerator)
    except UnknownNameError:
        return None
    priced = [
        (price, one) for one in offers if (price := one.spot_usd_per_hour if spot else one.usd_per_hour) is not None
    ]
    if not priced:
        return None
    usd, offer = min(priced, key=lambda pair: pair[0] / pair[1].count)
    kind = "spot" if spot else "on demand"
    return usd / offer.count, f"{offer.provider} {offer.instance}, {kind}, {offer.date} ({offer.source})"
