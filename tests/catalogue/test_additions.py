"""A user's own rows."""

import json
from pathlib import Path

import pytest

from servolt.catalogue import add, find_accelerator, find_model_entry, grid_intensity, prices, row_of
from servolt.errors import InvalidInputError

FACTS = (
    *("name=Homemade 9000", "vendor=Homemade", "kind=gpu", "architecture=Shed", "memory_gib=48", "memory_type=GDDR7"),
    *("bandwidth_gb_per_s=1500", "bfloat16_tflops=300", "tdp_w=300", "source=the box it came in", "date=2026-11-01"),
)


def test_a_row_in_words_is_found_afterwards(own_folder: Path) -> None:
    add("accelerators", [row_of("accelerators", FACTS)])
    found = find_accelerator("homemade-9000")
    assert found.memory_bytes == 48 * 2**30
    assert str(own_folder / "accelerators.csv") in found.source


def test_a_users_row_wins_over_the_shipped_one_and_says_so() -> None:
    shipped = find_accelerator("Tesla T4")
    facts = [fact for fact in FACTS if not fact.startswith("name=")]
    added = add("accelerators", [row_of("accelerators", ["name=Tesla T4", "aliases=T4", *facts])])
    assert [entry.row["name"] for entry in added.replaced] == ["Tesla T4"]
    found = find_accelerator("nvidia t4")
    assert found.bandwidth_bytes_per_s == 1500e9 != shipped.bandwidth_bytes_per_s
    assert "your row" in found.source


def test_the_same_row_again_replaces_the_earlier_one(own_folder: Path) -> None:
    add("grid", [row_of("grid", ["region=shed", "name=Shed", "gco2e_per_kwh=20", "source=meter", "date=2026-11-01"])])
    add("grid", [row_of("grid", ["region=shed", "name=Shed", "gco2e_per_kwh=25", "source=meter", "date=2026-11-02"])])
    assert grid_intensity("shed").gco2e_per_kwh == 25
    assert len((own_folder / "grid.csv").read_text().splitlines()) == 2


def test_nothing_is_written_where_a_row_has_a_fault(own_folder: Path) -> None:
    bad = [fact for fact in FACTS if not fact.startswith(("source=", "bandwidth_gb_per_s="))]
    with pytest.raises(InvalidInputError, match=r"no source.*bandwidth_gb_per_s is missing"):
        add("accelerators", [row_of("accelerators", bad)])
    assert not list(own_folder.iterdir())


def test_a_price_names_its_accelerator_in_any_spelling() -> None:
    words = ("provider=cousin", "instance=cellar", "accelerator=rtx3090", "count=4", "usd_per_hour=0.8", "region=home")
    add("prices", [row_of("prices", [*words, "source=a handshake", "date=2026-11-01"])])
    cheapest = prices("GeForce RTX 3090")[0]
    assert (cheapest.provider, cheapest.usd_per_accelerator_hour) == ("cousin", 0.2)


def test_a_model_is_added_as_an_object_with_its_config(own_folder: Path) -> None:
    config = {**find_model_entry("Llama 3.2 1B").config, "num_hidden_layers": 4}
    facts = {"name": "Half a Llama", "hub_id": "me/half-a-llama", "family": "Llama", "parameters": 506_000_000}
    said = {"context": 4096, "licence": "mine", "config": config, "source": "my training run", "date": "2026-11-01"}
    add("models", [json.loads(json.dumps({**facts, **said}))])
    assert find_model_entry("me/half-a-llama").model().num_layers == 4


def test_a_row_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="has no name"):
        add("accelerators", [row_of("accelerators", [fact for fact in FACTS if not fact.startswith("name=")])])


@pytest.mark.parametrize("words", [["speed=fast"], ["name"], ["=x"]])
def test_a_word_that_sets_no_column_is_refused(words: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="sets no column"):
        row_of("accelerators", words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,speed\nx,1\n", "speed, which is no column"),
        ("vendor\nx\n", "no name"),
        ("name,source\na,b,c\n", "more cells than columns"),
    ],
)
def test_a_file_of_another_form_is_an_error_that_names_the_line(own_folder: Path, text: str, said: str) -> None:
    (own_folder / "accelerators.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=f"line 2 has .*{said}|line 2 has {said}"):
        find_accelerator("H100")
