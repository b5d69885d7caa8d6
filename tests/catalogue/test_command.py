"""`servolt catalog`."""

import json
from pathlib import Path

import pytest

from servolt.cli.main import run

PRICE = (
    *("provider=cousin", "instance=cellar", "accelerator=RTX 3090", "count=4", "usd_per_hour=0.8", "region=home"),
    *("source=a handshake", "date=2026-11-01"),
)


@pytest.mark.parametrize(
    ("kind", "name"), [("accelerators", "H100 SXM5 80GB"), ("models", "Qwen3 8B"), ("prices", "oci"), ("grid", "DEU")]
)
def test_list_prints_every_kind_in_every_format(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", "list", kind]) == 0
    assert name in capsys.readouterr().out
    assert run(["catalog", "list", kind, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == f"servolt.catalogue.{kind}/1"
    assert all(row["source"] for row in document["items"])
    assert run(["catalog", "list", kind, "-q"]) == 0
    assert name in capsys.readouterr().out.splitlines()


def test_list_takes_words_and_prices_take_an_accelerator(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", "list", "accelerators", "hopper", "bridge", "-q"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == ["H100 NVL 94GB", "H200 NVL 141GB"]
    assert run(["catalog", "list", "prices", "mi300x", "--json"]) == 0
    assert {row["accelerator"] for row in json.loads(capsys.readouterr().out)["items"]} == {"Instinct MI300X"}


def test_show_finds_the_kind_by_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", "show", "8xH100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["name"], found["count"]) == ("servolt.accelerator/1", "H100 SXM5 80GB", 8)
    assert run(["catalog", "show", "Qwen3-8B-Q4_K_M.gguf", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"][0]["computed"]["total_params"] == 8_190_735_360
    assert run(["catalog", "show", "germany"]) == 0
    assert "381" in capsys.readouterr().out


def test_what_nobody_has_heard_of_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", "show", "accelerators", "RTX", "6090"]) == 2
    assert "RTX 5090" in capsys.readouterr().err
    assert run(["catalog", "show", "Qwen3-9B"]) == 2
    assert "Qwen3 8B" in capsys.readouterr().err


def test_add_writes_where_the_settings_are_and_check_counts_it(
    own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["catalog", "add", "prices", *PRICE]) == 0
    assert str(own_folder / "prices.csv") in capsys.readouterr().out
    assert run(["catalog", "check", "prices"]) == 0
    assert "(1 yours): 0 faults" in capsys.readouterr().out
    assert run(["catalog", "add", "prices", *PRICE]) == 0
    assert "in place of your earlier row" in capsys.readouterr().err


def test_add_takes_a_file_of_the_same_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns, values = zip(*(word.split("=", 1) for word in PRICE), strict=True)
    offers = tmp_path / "offers.csv"
    offers.write_text(",".join(columns) + "\n" + ",".join(values) + "\n")
    assert run(["catalog", "add", "prices", str(offers)]) == 0
    assert "1 row added" in capsys.readouterr().out


def test_check_names_every_fault_and_fails(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ("region,name,gco2e_per_kwh,source,date,verified", "a,A,99999,meter,2026-11-01,yes", "b,B,9,,,yes")
    (own_folder / "grid.csv").write_text("\n".join(rows))
    assert run(["catalog", "check", "grid"]) == 3
    captured = capsys.readouterr()
    assert "names no source" in captured.out
    assert "99999" in captured.out
    assert captured.err.startswith("Error [E-FIT-001]")


@pytest.mark.parametrize("args", [["add"], ["add", "prices"], ["add", "models", "name=x"], ["show"], ["check", "H100"]])
def test_what_is_missing_is_a_usage_error(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", *args]) == 2
    assert capsys.readouterr().out == ""
