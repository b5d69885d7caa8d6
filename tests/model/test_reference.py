"""Configs of published models and totals from a second source, where a copy of them lies beside the project."""

import csv
import json
import os
from pathlib import Path

import pytest

from servolt.model import model_from_config

FOLDER = Path(os.environ.get("SERVOLT_REFERENCE") or Path(__file__).parents[3] / "shared" / "data") / "models"
TABLE = FOLDER / "params.csv"
ROUNDED_TO = 1e-5  # totals read from logs and cards have four digits and more


@pytest.mark.skipif(not TABLE.is_file(), reason="no reference data: set SERVOLT_REFERENCE to their folder")
def test_totals_equal_those_of_a_second_source() -> None:
    with TABLE.open() as file:
        rows = [row for row in csv.DictReader(file) if row["true_total"]]
    assert len(rows) > 40
    wrong = {}
    for row in rows:
        model = model_from_config(json.loads((FOLDER / row["file"]).read_text()), name=row["model"])
        text = model.total_params - sum(part.parameters for part in model.parts if part.component == "vision")
        if abs(text - int(row["true_total"])) > ROUNDED_TO * text:
            wrong[row["model"]] = (text, int(row["true_total"]))
    assert not wrong


@pytest.mark.skipif(not TABLE.is_file(), reason="no reference data: set SERVOLT_REFERENCE to their folder")
def test_every_config_gives_a_model() -> None:
    for path in sorted(FOLDER.glob("*.json")):
        model = model_from_config(json.loads(path.read_text()), name=path.stem)
        assert model.total_params > 0
        assert len(model.layer_order) == model.num_layers > 0
