"""What ships: each row with source and date, and no figure that can't be."""

import datetime

import pytest

from servolt.catalogue import accelerators, check, find_accelerator, find_model_entry, grid_intensity, models, prices
from servolt.catalogue.checks import problems_of
from servolt.catalogue.rows import KINDS, Entry, number, shipped
from servolt.model.quantization import words_of

GIB = 2**30


@pytest.mark.parametrize("kind", KINDS)
def test_every_shipped_row_holds(kind: str) -> None:
    assert check((kind,)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_is_from_the_future_and_none_is_twice(kind: str) -> None:
    rows = shipped(kind)
    latest = datetime.date.today() + datetime.timedelta(days=1)  # noqa: DTZ011 - a day, wherever this runs
    assert max(datetime.date.fromisoformat(entry.row["date"]) for entry in rows) <= latest
    keys = [entry.key for entry in rows]
    assert sorted(keys) == sorted(set(keys))


def test_there_is_enough_of_each() -> None:
    assert len(accelerators()) >= 80
    assert len(models()) >= 90
    assert {one.vendor for one in accelerators()} >= {"NVIDIA", "AMD", "Intel", "Apple", "Google"}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("source", "", "names no source"),
        ("date", "", "date is ''"),
        ("date", "May 2026", "date is 'May 2026'"),
        ("verified", "", "verified is ''"),
        ("memory_gib", "", "memory_gib is missing"),
        ("bandwidth_gb_per_s", "33500", "no HBM3 reads outside"),
        ("memory_type", "HBM9", "memory_type is 'HBM9'"),
        ("tdp_w", "0.7", "tdp_w is 0.7"),  # in kilowatts
        ("fp8_tflops", "3958", "fp8 is 4.00 times bfloat16"),  # the datasheet's figure with sparsity
        ("bfloat16_tflops", "98940", "FLOP for each byte"),
        ("smi_mib", "81559000", "is not what 80 GB shows as"),
        ("host_link", "PCIe", "host_link 'PCIe' is no"),
        ("tdp_w", "many", "tdp_w is 'many', which is no number"),
    ],
)
def test_a_row_with_a_fault_is_told(column: str, value: str, said: str) -> None:
    row = next(entry.row for entry in shipped("accelerators") if entry.row["name"] == "H100 SXM5 80GB")
    changed = {**row, column: value, **({"idle_w": ""} if column == "tdp_w" else {})}
    told = problems_of(Entry(KINDS["accelerators"], changed, None, 1))
    assert any(said in problem.message for problem in told), told


def test_dense_rates_are_half_of_what_datasheets_print_with_sparsity() -> None:
    """H100 SXM: 1,979 TFLOP/s of bfloat16 and 3,958 of fp8 with sparsity (NVIDIA H100 datasheet)."""
    rates = find_accelerator("H100 SXM").flops_per_s
    assert rates["bfloat16"] == pytest.approx(1979e12 / 2, rel=1e-3)
    assert rates["fp8"] == pytest.approx(3958e12 / 2, rel=1e-3)


def test_the_memory_that_engines_see_is_below_that_which_nvidia_smi_shows() -> None:
    """vLLM logs 79.19 GiB for an H100 whose nvidia-smi total is 81,559 MiB; a 3090 without a log has an estimate."""
    assert find_accelerator("H100").visible_memory_bytes == round(79.19 * GIB)
    estimated = find_accelerator("RTX 3060 12GB").visible_memory_bytes
    assert estimated is not None
    assert 11.4 * GIB < estimated < 12 * GIB


def test_the_estimate_of_the_visible_memory_fits_the_rows_that_have_both_figures() -> None:
    errors = []
    for entry in shipped("accelerators"):
        shown, visible = number(entry.row, "smi_mib"), number(entry.row, "visible_gib")
        if entry.row["vendor"] == "NVIDIA" and shown and visible and entry.row["architecture"] != "Volta":
            errors.append(shown / 1024 * (1 - 0.0017) - 0.4 - visible)
    assert len(errors) >= 15
    assert max(map(abs, errors)) < 0.9
    assert sorted(map(abs, errors))[len(errors) // 2] < 0.25


def test_links_are_one_direction() -> None:
    """NVLink 4 carries 900 GB/s both ways together; 16 lanes of PCIe 5.0 carry 63 GB/s each way after encoding."""
    found = find_accelerator("H100 SXM")
    assert found.link_bytes_per_s == 450e9
    assert found.host_link_bytes_per_s == pytest.approx(63.0e9, rel=1e-3)
    assert find_accelerator("RTX 4090").link == "PCIe 4.0 x16"


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("Llama 3.1 8B", 8_030_261_248),  # safetensors index of meta-llama/Llama-3.1-8B, divided by 2 bytes
        ("Qwen3 30B-A3B", 30_532_122_624),  # llama.cpp's loader prints 30.53 B
        ("DeepSeek V3", 671_026_419_200),  # llama.cpp's loader prints 671.026 B
        ("Gemma 3 27B", 27_432_406_640),  # with the vision tower, Hugging Face's count
        ("gpt-oss 120B", 116_829_156_672),  # the model card: 116.8 B
    ],
)
def test_a_models_config_makes_its_published_total(name: str, total: int) -> None:
    assert find_model_entry(name).model().total_params == total


def test_most_totals_are_published_and_met() -> None:
    assert sum(one.total is not None for one in models()) >= 90


def test_prices_of_an_accelerator_come_cheapest_first_under_any_of_its_names() -> None:
    found = prices("NVIDIA H100 80GB HBM3")
    assert found == prices("H100")
    assert {price.accelerator for price in found} == {"H100 SXM5 80GB"}
    each = [price.usd_per_accelerator_hour for price in found]
    assert each == sorted(each)
    assert len(found) >= 5


def test_a_grid_is_found_by_code_name_and_cloud_region() -> None:
    """Our World in Data (Ember), 2023: Germany 381, France 56 gCO2e/kWh."""
    assert [grid_intensity(text).gco2e_per_kwh for text in ("DEU", "de", "Germany")] == [381, 381, 381]
    assert grid_intensity("france").gco2e_per_kwh == 56
    assert grid_intensity("us-east-1") == grid_intensity("aws:us-east-1")
    assert grid_intensity("us-east1").region == "gcp:us-east1"
    assert grid_intensity("Singapore").region == "SGP"


def test_a_model_s_own_name_says_no_format_that_its_config_does_not_have() -> None:
    """Else the plain name would be planned in the format of a copy."""
    for entry in models():
        stored = entry.config.get("quantization_config") or entry.config.get("compression_config")
        assert stored or words_of(entry.hub_id) in (None, "bfloat16", "bf16") or words_of(entry.name), entry.hub_id


@pytest.mark.parametrize(
    ("name", "total"),
    # Counts of the Hub's API for google/gemma-4-*-it, towers included.
    [("Gemma 4 E2B", 5_123_178_051), ("Gemma 4 E4B", 7_996_156_490), ("Gemma 4 31B", 31_273_088_876)],
)
def test_layers_that_share_keys_and_values_are_stored_with_their_own_projections(name: str, total: int) -> None:
    assert find_model_entry(name).model().total_params == pytest.approx(total, rel=1.5e-3)


def test_ternary_weights_take_two_bits() -> None:
    # A GGUF file of this model with 2-bit weights and a 16-bit embedding has 1.098 GiB by llama.cpp's log.
    assert find_model_entry("BitNet b1.58 2B4T").model().weights_bytes / 2**30 == pytest.approx(1.098, abs=1e-3)


def test_an_embedding_of_each_layer_takes_the_format_of_a_gguf_file() -> None:
    model = find_model_entry("Gemma 4 E4B").model(quantization="q4_k_m")
    assert model.weights_bytes * 8 / model.total_params < 6
