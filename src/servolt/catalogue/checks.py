"""What a row must hold, and which figures can't be right."""

import datetime
import re
from collections.abc import Callable, Iterator, Mapping

from pydantic import ValidationError

from servolt.catalogue.entries import model_entry_of
from servolt.catalogue.grids import grid_of
from servolt.catalogue.hardware import accelerator_of
from servolt.catalogue.offers import price_of
from servolt.catalogue.rows import KINDS, Entry, Row, entries, number
from servolt.document import Problem
from servolt.errors import ServoltError
from servolt.gpu import Accelerator

__all__ = ["check", "problems_of"]

# GB/s of one device with such memory: the slowest and the fastest that were built, with a tenth of room on both sides.
_BANDWIDTH = {
    "DDR4": (30, 250),
    "DDR5": (60, 700),
    "MRDIMM": (500, 1000),
    "LPDDR4X": (15, 110),
    "LPDDR5": (40, 900),
    "LPDDR5X": (90, 1000),
    "GDDR5": (70, 550),
    "GDDR5X": (190, 600),
    "GDDR6": (125, 1100),
    "GDDR6X": (400, 1150),
    "GDDR7": (250, 2200),
    "HBM2": (430, 1700),
    "HBM2e": (700, 4100),
    "HBM3": (1450, 6000),
    "HBM3e": (4200, 9000),
    "HBM4": (8000, 25000),
}
RIDGE = (0.5, 1300.0)  # FLOP for each byte of memory traffic: processors without matrix units to Jetson Thor
TDP_W = (5.0, 2500.0)
USD_PER_HOUR = (0.01, 60.0)  # of one accelerator
GRAMS_PER_KWH = (0.0, 1500.0)  # oil shale emits about 1,100
STATED = 0.15  # a stated size is rounded, and counts the vision tower or the draft layers or does not


def check(kinds: tuple[str, ...] = tuple(KINDS)) -> list[Problem]:
    """Of every row that is used, the user's and the shipped ones."""
    return [problem for kind in kinds for entry in entries(kind) for problem in problems_of(entry)]


def problems_of(entry: Entry) -> list[Problem]:
    """Empty for a row that can be used."""
    found = list(_said(entry.row))
    try:
        found += _CHECKS[entry.kind.name](entry)
    except ServoltError as error:  # what is missing may be what was just said
        found = found or [error.cause.removeprefix(f"{entry.where}: ").rstrip(".")]
    except ValidationError as error:
        found += [f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Input ')}" for one in error.errors()]
    except ValueError as error:
        found.append(str(error))
    return [_problem(f"{entry.where}: {text}.") for text in found]


def _problem(message: str) -> Problem:
    return Problem(code="catalogue_row", severity="error", message=message, remedy="Correct it from its source.")


def _said(row: Row) -> Iterator[str]:
    if not str(row.get("source") or "").strip():
        yield "it names no source"
    if row.get("verified") not in ("yes", "no"):
        yield f"verified is {row.get('verified')!r}, neither yes nor no"
    try:
        day = datetime.date.fromisoformat(str(row.get("date") or ""))
    except ValueError:
        yield f"date is {row.get('date')!r}, which is no day as YYYY-MM-DD"
        return
    if not 2000 <= day.year <= 2100:
        yield f"date is {day}, which can't be meant"


def _accelerator(entry: Entry) -> Iterator[str]:
    row, found = entry.row, accelerator_of(entry)
    if row.get("kind") not in ("gpu", "cpu", "tpu"):
        yield f"kind is {row.get('kind')!r}, none of gpu, cpu, tpu"
    if not row.get("vendor") and found.kind != "cpu":
        yield "it names no vendor"
    if found.memory_bytes <= 0:
        yield "memory_gib is missing"
    yield from _memory(row)
    yield from _rates(row, found)
    if found.tdp_w is not None and not TDP_W[0] <= found.tdp_w <= TDP_W[1]:
        yield f"tdp_w is {found.tdp_w:g}, outside {TDP_W[0]:g} to {TDP_W[1]:g}"
    if found.idle_w is not None and found.tdp_w is not None and found.idle_w > found.tdp_w / 3:
        yield f"idle_w is {found.idle_w:g}, over a third of {found.tdp_w:g} W"
    if row.get("host_link") and found.host_link_bytes_per_s is None:
        yield f"host_link {row['host_link']!r} is no `PCIe 4.0 x16` and has no host_link_gb_per_s"


def _memory(row: Row) -> Iterator[str]:
    label, shown, visible = (number(row, column) for column in ("memory_gib", "smi_mib", "visible_gib"))
    if label and shown and not 0.9 <= shown / 1024 / label <= 1.01:
        yield f"smi_mib {shown:g} is not what {label:g} GB shows as"
    if shown and visible and not shown / 1024 * 0.9 <= visible <= shown / 1024:
        yield f"visible_gib {visible:g} is not what {shown:g} MiB leaves"
    kind = row.get("memory_type") or ""
    if kind not in _BANDWIDTH:
        yield f"memory_type is {kind!r}, none of {', '.join(_BANDWIDTH)}"
        return
    bandwidth = number(row, "bandwidth_gb_per_s")
    low, high = _BANDWIDTH[kind]
    if bandwidth is None:
        yield "bandwidth_gb_per_s is missing"
    elif not low <= bandwidth <= high:
        yield f"bandwidth_gb_per_s is {bandwidth:g}, and no {kind} reads outside {low} to {high}"


def _rates(row: Row, found: Accelerator) -> Iterator[str]:
    rates = found.flops_per_s
    if not rates:
        yield "it has no rate of any data type"
    elif found.bandwidth_bytes_per_s:
        fastest = max(rates.get(kind, 0.0) for kind in ("float32", "tf32", "float16", "bfloat16"))
        ridge = fastest / found.bandwidth_bytes_per_s
        if not RIDGE[0] <= ridge <= RIDGE[1]:
            yield f"{ridge:.1f} FLOP for each byte is outside {RIDGE[0]:g} to {RIDGE[1]:g}"
    yield from _steps(rates)


def _steps(rates: Mapping[str, float]) -> Iterator[str]:
    """Half the bits are worth 2 at most 4 times the rate (B300: 3 for fp4). A rate with sparsity shows as 4 or more."""
    for wide, narrow, least, most in (
        ("tf32", "bfloat16", 1.0, 4.1),
        ("bfloat16", "fp8", 0.9, 2.1),
        ("fp8", "fp4", 1.9, 4.1),
    ):
        if wide in rates and narrow in rates and not least <= rates[narrow] / rates[wide] <= most:
            yield f"{narrow} is {rates[narrow] / rates[wide]:.2f} times {wide}"
    if {"float16", "bfloat16"} <= set(rates) and not 0.45 <= rates["bfloat16"] / rates["float16"] <= 1.05:
        yield "float16 and bfloat16 are too far apart"


def _model(entry: Entry) -> Iterator[str]:
    found = model_entry_of(entry)
    model = found.model()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", found.hub_id):
        yield f"hub_id {found.hub_id!r} is no ORGANISATION/NAME"
    if found.total is not None and model.total_params != found.total:
        yield f"the config has {model.total_params:,} weights, and {found.total:,} are published"
    if abs(model.total_params / found.parameters - 1) > STATED:
        yield f"the config has {model.total_params:,} weights, and {found.parameters:,} are stated"


def _price(entry: Entry) -> Iterator[str]:
    found = price_of(entry)
    low, high = USD_PER_HOUR
    if not low <= found.usd_per_accelerator_hour <= high:
        yield f"{found.usd_per_accelerator_hour:g} USD an hour for one accelerator is outside {low:g} to {high:g}"
    if found.spot_usd_per_hour is not None and found.spot_usd_per_hour > found.usd_per_hour:
        yield "the spot price is above the price on demand"


def _grid(entry: Entry) -> Iterator[str]:
    found = grid_of(entry)
    low, high = GRAMS_PER_KWH
    if not low <= found.gco2e_per_kwh <= high:
        yield f"{found.gco2e_per_kwh:g} g is outside {low:g} to {high:g}"
    if found.year is not None and not 2000 <= found.year <= 2100:
        yield f"year is {found.year}"


_CHECKS: Mapping[str, Callable[[Entry], Iterator[str]]] = {
    "accelerators": _accelerator,
    "models": _model,
    "prices": _price,
    "grid": _grid,
}
