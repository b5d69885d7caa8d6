"""`servolt catalog`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servolt.cli.output import Human, Output, output_options, say
from servolt.errors import ConditionFailedError, InvalidInputError

if TYPE_CHECKING:
    from servolt.catalogue.rows import Entry

__all__ = ["command"]

KINDS = ("accelerators", "models", "prices", "grid")
Row = dict[str, Any]


@click.command()
@click.argument("action", type=click.Choice(["list", "show", "add", "check"]), default="list")
@click.argument("words", nargs=-1, metavar="[accelerators|models|prices|grid] [NAME|FILE|COLUMN=VALUE]...")
@output_options
def command(action: str, words: tuple[str, ...], out: Output) -> None:
    """Accelerators, models, prices and grids: what is known of them, from where, and since when.

    \b
    list [KIND] [WORD]...    what there is, with those words in it; of prices, those of one accelerator
    show [KIND] NAME         all that is known of one
    add KIND FILE            rows of your own from CSV (models: JSON Lines); - reads stdin
    add KIND COLUMN=VALUE... one row of your own
    check [KIND]             that every row has its source and date and that its figures can be

    Your rows stand in the folder `catalogue` beside the settings and win over those that ship with servolt.
    """
    kind, rest = (words[0], words[1:]) if words and words[0] in KINDS else (None, words)
    if action == "add":
        _add(kind, rest, out)
    elif action == "show":
        _show(kind, " ".join(rest), out)
    elif action == "check":
        _check(kind, rest, out)
    else:
        _list(kind or "accelerators", rest, out)


def _list(kind: str, words: Sequence[str], out: Output) -> None:
    from servolt.catalogue.rows import entries

    rows = [_SUMMARY[kind](entry) for entry in entries(kind)]
    if kind == "prices":
        rows = _priced(rows, " ".join(words))
    elif words:
        rows = [row for row in rows if all(word.casefold() in _text(row) for word in words)]

    def human() -> Human:
        from servolt.cli.tables import table

        columns, cells = _TABLE[kind](rows)
        return [table(columns, cells)] if rows else "nothing has these words in it"

    out.items(f"servolt.catalogue.{kind}/1", rows, ids=[str(next(iter(row.values()))) for row in rows], human=human)


def _priced(rows: list[Row], accelerator: str) -> list[Row]:
    if accelerator:
        from servolt.catalogue import find_accelerator

        wanted = find_accelerator(accelerator).name
        rows = [row for row in rows if row["accelerator"] == wanted]
    return sorted(rows, key=lambda row: float(row["usd_per_accelerator_hour"]))


def _text(row: Row) -> str:
    return " ".join(str(value) for value in row.values()).casefold()


def _show(kind: str | None, name: str, out: Output) -> None:
    if not name:
        raise InvalidInputError("a name is missing.", "`servolt catalog list` prints them.")
    if kind == "prices":
        raise InvalidInputError("an offer has no name.", f"`servolt catalog list prices {name}` prints all of them.")
    if kind is not None:
        _SHOW[kind](name, out)
        return
    from servolt.catalogue import UnknownNameError

    nearest: list[str] = []
    for show in _SHOW.values():
        try:
            show(name, out)
            return
        except UnknownNameError as error:
            nearest += error.nearest
    raise UnknownNameError("accelerator, model or grid", name, nearest, "`servolt catalog list KIND` prints them all.")


def _show_accelerator(name: str, out: Output) -> None:
    from servolt.catalogue import find_accelerator

    found = find_accelerator(name)
    rows = [{"fact": key, "value": value} for key, value in found.model_dump(mode="json").items() if key != "schema"]

    def human() -> Human:
        from servolt.cli.tables import labelled

        known = [row for row in rows if row["value"] not in (None, {}, [])]
        return [labelled(row["fact"], _said(row["fact"], row["value"]), 26) for row in known]

    out.document(found, rows=rows, ids=[found.name], human=human)


def _show_model(name: str, out: Output) -> None:
    from servolt.catalogue import find_model_entry

    found = find_model_entry(name)
    model = found.model()
    computed = {"total_params": model.total_params, "active_params": model.active_params, "layers": model.num_layers}
    row = {**found.model_dump(mode="json"), "computed": computed}

    def human() -> Human:
        from servolt.cli.tables import labelled

        facts = {**{key: value for key, value in row.items() if key not in ("config", "computed")}, **computed}
        return [labelled(key, _said(key, value), 26) for key, value in facts.items() if value not in (None, [])]

    out.items("servolt.catalogue.models/1", [row], ids=[found.name], human=human)


def _show_grid(name: str, out: Output) -> None:
    from servolt.catalogue import grid_intensity

    row = grid_intensity(name).model_dump(mode="json")

    def human() -> Human:
        from servolt.cli.tables import labelled

        return [labelled(key, _said(key, value), 26) for key, value in row.items() if value not in (None, [])]

    out.items("servolt.catalogue.grid/1", [row], ids=[str(row["region"])], human=human)


def _said(key: str, value: Any) -> str:
    if key.endswith("_bytes"):
        from servolt.units import format_bytes

        return format_bytes(value)
    if key.endswith("_bytes_per_s"):
        return f"{value / 1e9:,.5g} GB/s"
    if key == "flops_per_s":
        return ", ".join(f"{kind} {rate / 1e12:,.5g}" for kind, rate in value.items()) + " TFLOP/s"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def _add(kind: str | None, words: Sequence[str], out: Output) -> None:
    if kind is None or not words:
        raise InvalidInputError(
            "a kind and rows are needed.", "`servolt catalog add prices offers.csv`, or COLUMN=VALUE for one row."
        )
    from servolt.catalogue import KINDS as FILES
    from servolt.catalogue import add, parse, row_of, user_file

    if len(words) == 1 and "=" not in words[0]:
        path = Path(words[0])
        rows = [entry.row for entry in parse(FILES[kind], _read(path), path)]
    else:
        rows = [row_of(kind, words)]
    added = add(kind, rows)
    shown = [{"row": " ".join(entry.key), "kind": kind, "file": str(user_file(kind))} for entry in added.entries]

    def human() -> Human:
        many = "1 row" if len(shown) == 1 else f"{len(shown)} rows"
        return f"{many} added to {user_file(kind)}"

    out.items("servolt.catalogue.added/1", shown, ids=[row["row"] for row in shown], human=human)
    for entry in added.replaced:
        said = "your earlier row" if entry.path else "the shipped row, which yours now wins over"
        say(f"{' '.join(entry.key)}: in place of {said}.")


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} can't be read: {error}.", "Name a CSV or JSON Lines file, or -.") from error


def _check(kind: str | None, rest: Sequence[str], out: Output) -> None:
    if rest:
        raise InvalidInputError(f"{' '.join(rest)} is no kind.", f"The kinds are {', '.join(KINDS)}.")
    from servolt.catalogue import check
    from servolt.catalogue.rows import entries

    kinds = (kind,) if kind else KINDS
    problems = check(kinds)
    rows = [problem.model_dump(mode="json") for problem in problems]

    def human() -> Human:
        counts = ", ".join(
            f"{len(entries(one))} {one} ({sum(entry.path is not None for entry in entries(one))} yours)"
            for one in kinds
        )
        return "\n".join([*(problem.message for problem in problems), f"{counts}: {len(problems)} faults"])

    out.items("servolt.catalogue.check/1", rows, ids=[problem.message for problem in problems], human=human)
    if problems:
        raise ConditionFailedError(f"{len(problems)} faults in the catalogue.", problems[0].remedy)


def _accelerator_row(entry: "Entry") -> Row:
    from servolt.catalogue.hardware import accelerator_of

    found = accelerator_of(entry)
    rates = found.flops_per_s
    return {
        "name": found.name,
        "vendor": found.vendor,
        "architecture": found.architecture,
        "memory_bytes": found.memory_bytes,
        "bandwidth_bytes_per_s": found.bandwidth_bytes_per_s,
        "flops_per_s_16_bit": rates.get("bfloat16") or rates.get("float16"),
        "flops_per_s_8_bit": rates.get("fp8") or rates.get("int8"),
        "tdp_w": found.tdp_w,
        "link": found.link,
        "verified": entry.row.get("verified") == "yes",
        "origin": entry.origin,
        "source": found.source,
    }


def _model_row(entry: "Entry") -> Row:
    from servolt.catalogue.entries import model_entry_of

    plain = model_entry_of(entry).model_dump(mode="json")
    wanted = ("name", "hub_id", "family", "parameters", "active_parameters", "context", "licence", "verified")
    return {**{key: plain[key] for key in wanted}, "origin": entry.origin, "source": plain["source"]}


def _price_row(entry: "Entry") -> Row:
    from servolt.catalogue.offers import price_of

    found = price_of(entry)
    plain = found.model_dump(mode="json", exclude={"notes"})
    return {**plain, "usd_per_accelerator_hour": found.usd_per_accelerator_hour, "origin": entry.origin}


def _grid_row(entry: "Entry") -> Row:
    from servolt.catalogue.grids import grid_of

    return {**grid_of(entry).model_dump(mode="json", exclude={"notes", "aliases"}), "origin": entry.origin}


def _accelerator_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    columns = ["name", "architecture", "memory>", "GB/s>", "TFLOP/s 16 bit>", "8 bit>", "W>", "checked", "row"]
    return columns, [
        [
            row["name"],
            row["architecture"] or "",
            f"{row['memory_bytes'] / 2**30:g} GB",
            _rate(row["bandwidth_bytes_per_s"], 1e9),
            _rate(row["flops_per_s_16_bit"], 1e12),
            _rate(row["flops_per_s_8_bit"], 1e12),
            _rate(row["tdp_w"], 1),
            "yes" if row["verified"] else "no",
            row["origin"],
        ]
        for row in rows
    ]


def _model_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    from servolt.units import format_count

    return ["name", "hub id", "parameters>", "active>", "context>", "licence", "checked", "row"], [
        [
            row["name"],
            row["hub_id"],
            format_count(row["parameters"]),
            format_count(row["active_parameters"]) if row["active_parameters"] else "",
            f"{row['context']:,}",
            row["licence"],
            "yes" if row["verified"] else "no",
            row["origin"],
        ]
        for row in rows
    ]


def _price_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    columns = ["accelerator", "each/h>", "machine/h>", "spot/h>", "of>", "provider", "instance", "region", "date"]
    return [*columns, "checked"], [
        [
            row["accelerator"],
            f"${row['usd_per_accelerator_hour']:.2f}",
            f"${row['usd_per_hour']:.2f}",
            f"${row['spot_usd_per_hour']:.2f}" if row["spot_usd_per_hour"] else "",
            str(row["count"]),
            row["provider"],
            row["instance"],
            row["region"],
            row["date"],
            "yes" if row["verified"] else "no",
        ]
        for row in rows
    ]


def _grid_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    return ["region", "name", "gCO2e/kWh>", "year>", "checked", "row"], [
        [
            row["region"],
            row["name"],
            f"{row['gco2e_per_kwh']:.0f}",
            str(row["year"] or ""),
            "yes" if row["verified"] else "no",
            row["origin"],
        ]
        for row in rows
    ]


def _rate(value: float | None, scale: float) -> str:
    return "" if value is None else f"{value / scale:,.4g}"


_SHOW: Mapping[str, Callable[[str, Output], None]] = {
    "accelerators": _show_accelerator,
    "models": _show_model,
    "grid": _show_grid,
}
_SUMMARY: Mapping[str, Callable[["Entry"], Row]] = {
    "accelerators": _accelerator_row,
    "models": _model_row,
    "prices": _price_row,
    "grid": _grid_row,
}
_TABLE: Mapping[str, Callable[[Sequence[Row]], tuple[list[str], list[list[str]]]]] = {
    "accelerators": _accelerator_table,
    "models": _model_table,
    "prices": _price_table,
    "grid": _grid_table,
}
