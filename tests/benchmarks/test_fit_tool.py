"""What turns reference cases into the planner's constants, on cases made up here."""

import tomllib

import numpy as np
import pytest

from servolt.catalogue import find_accelerator
from servolt.deployment import Deployment
from servolt.plan.rates import speed_table
from tests.plan.test_roofline import LLAMA, MIXTURE, model_of
from tools.planner.cases import Case
from tools.planner.data import Data, data_of
from tools.planner.parameters import PARAMETERS, table_of
from tools.planner.power import PRIOR, fitted_power
from tools.planner.spreads import FEWEST, LEAST, spreads_toml

POWER = {"floor": 0.35, "memory": 0.5, "arithmetic": 2.5}


def made_up(count: int = 60) -> Data:
    """Runs of which half are of a mixture, at growing concurrency."""
    h100 = find_accelerator("H100 SXM")
    return data_of([case(n, model_of(MIXTURE if n % 2 else LLAMA), h100) for n in range(count)])


def case(n: int, model: object, accelerator: object) -> Case:
    values = dict.fromkeys(Case._fields) | {
        "id": str(n),
        "source": "made up",
        "kind": "steady",
        "flags": "",
        "family": f"family {n % 5}",
        "deployment": Deployment(model="test", engine="vllm"),
        "model": model,
        "accelerator": accelerator,
        "devices": 1,
        "precision": "bf16",
        "version": "",
        "concurrency": 1.0 + n,
        "notes": "",
        "input_len": 500.0,
        "output_len": 500.0,
        "itl": 0.01,
        "output_throughput": 100.0 * (1 + n),
        "power_w": 400.0,
    }
    return Case(**values)  # type: ignore[arg-type]


def test_planted_watts_give_their_constants_back() -> None:
    data, table = made_up(), speed_table()
    planted = data.predicted(table, POWER)["power"]
    found = fitted_power(data._replace(seen=data.seen | {"power": planted}), table)
    again = data.predicted(table, found)["power"]
    assert np.max(np.abs(again - planted)) < 0.02


def test_the_written_constants_are_those_that_the_tool_knows() -> None:
    fitted = {(one.constant, one.trait) for one in PARAMETERS}
    shipped = {(name, trait) for name, entry in speed_table().items() for trait in entry}
    table = table_of(PARAMETERS, np.zeros(len(PARAMETERS)))
    assert shipped == {(name, trait) for name, entry in table.items() for trait in entry}
    assert fitted <= shipped


def test_widths_are_the_quantiles_of_what_was_left_out() -> None:
    data = made_up()
    off = np.random.default_rng(1).normal(0.0, 0.2, len(data.cases))
    left_out = {name: values - off for name, values in data.seen.items()}
    widths = tomllib.loads(spreads_toml(data, left_out, "today"))["class"]
    power = next(one for one in widths if one["kind"] == "power")
    assert (power["low"], power["high"]) == pytest.approx(np.percentile(off, [10, 90]), abs=0.006)
    assert len(data.cases) / 2 < FEWEST  # so that neither half has a class of its own
    assert [one["when"] for one in widths if one["kind"] == "token"] == [[]]


def test_no_width_is_less_than_what_repeats_show() -> None:
    data = made_up()
    widths = tomllib.loads(spreads_toml(data, dict(data.seen), "today"))["class"]
    assert all(one["low"] <= -LEAST and one["high"] >= LEAST for one in widths)


def test_every_prior_is_within_its_bounds() -> None:
    assert all(low < centre < high for centre, _, low, high in PRIOR.values())
    assert all((one.low or 0) <= one.centre <= (one.high or np.inf) for one in PARAMETERS)
