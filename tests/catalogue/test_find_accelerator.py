"""The names that drivers, logs, vendors and people write."""

import csv
import os
from pathlib import Path

import pytest

from servolt.catalogue import AmbiguousNameError, UnknownNameError, accelerators, find_accelerator, find_accelerators
from servolt.errors import InvalidInputError

GIB = 2**30

SPELLINGS = {
    "H100 SXM5 80GB": (
        *("H100", "h100", "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB", "H100-SXM-80GB", "NVIDIA-H100-80GB-HBM3"),
        *("nvidia h100 sxm", "H100SXM5", "nvidia-h100-80gb"),
    ),
    "H100 PCIe 80GB": ("NVIDIA H100 PCIe", "h100 pcie 80 gb", "NVIDIA H100 80GB PCIe"),
    "H100 NVL 94GB": ("NVIDIA H100 NVL", "H100-NVL-94GB", "H100 NVL 96GB", "H100 94GB"),
    "H200 SXM 141GB": ("NVIDIA H200", "Virtualized NVIDIA H200-SXM-141GB", "H200 144GB"),
    "A100 SXM4 80GB": ("NVIDIA A100-SXM4-80GB", "A100-80GB", "a100 80g"),
    "A100 PCIe 40GB": ("NVIDIA A100-PCIE-40GB", "A100 40GB PCIe"),
    "B200 SXM 180GB": ("NVIDIA B200", "B200 192GB", "NVIDIA B200 (175.34 GB free before load)"),
    "GeForce RTX 3090": ("RTX 3090", "rtx3090", "NVIDIA GeForce RTX 3090", "3090", "GeForce RTX 3090 24GB"),
    "GeForce RTX 3090 Ti": ("RTX3090Ti", "NVIDIA GeForce RTX 3090 Ti", "3090 ti"),
    "GeForce RTX 4090 D": ("RTX 4090D", "NVIDIA GeForce RTX 4090 D"),
    "GeForce RTX 4090 Laptop GPU": ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Mobile"),
    "GeForce RTX 4060 Ti 16GB": ("RTX 4060 Ti 16G", "NVIDIA GeForce RTX 4060 Ti 16 GB"),
    "GeForce RTX 3080 12GB": ("RTX 3080 12GB", "NVIDIA GeForce RTX 3080 12 GB"),
    "GeForce RTX 4070 Ti SUPER": ("Gigabyte GeForce RTX 4070 Ti SUPER WINDFORCE OC 16G", "4070 ti super"),
    "RTX 6000 Ada Generation": ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada Gene...", "RTX 6000 Ada"),
    "RTX A6000": ("NVIDIA RTX A6000", "A6000"),
    "RTX PRO 6000 Blackwell Workstation Edition": ("97,887 MiB card (RTX PRO 6000 class)", "rtx-pro-6000"),
    "RTX PRO 6000 Blackwell Server Edition": ("NVIDIA RTX PRO 6000 Blackwell Server Edition",),
    "Tesla T4": ("Tesla T4", "nvidia-tesla-t4", "T4"),
    "L4": ("NVIDIA L4", "nvidia-l4"),
    "L40S": ("NVIDIA L40S", "l40s"),
    "GH200 96GB": ("NVIDIA GH200 480GB",),
    "GB10 (DGX Spark)": ("NVIDIA GB10 (DGX Spark)", "NVIDIA GB10", "DGX Spark"),
    "Instinct MI300X": ("AMD Instinct MI300X", "AMD Instinct MI300X 192GB HBM3", "mi300x oam", "gfx942"),
    "Instinct MI355X": ("AMD MI355X class (288 GB)",),
    "Radeon RX 7900 XTX": ("RX 7900 XTX", "AMD Radeon RX 7900 XTX", "7900XTX"),
    "Arc Pro B60": ("[MAXSUN] MS-Intel Arc Pro B60 Dual 48G Turbo", "Intel Arc Pro B60"),
    "Arc A770 16GB": ("Intel(R) Arc(TM) A770 Graphics",),
    "TPU v5e": ("Google TPU v5e", "tpu-v5-lite-podslice"),
    "Apple M2 Ultra (76-core GPU)": ("Apple M2 Ultra", "Apple M2 Ultra 192GB", "M2 Ultra"),
    "Apple M1 Max (32-core GPU)": ("Apple M1 M1 Max", "Apple M1 Max 64GB"),
    "Apple M3 Max (30-core GPU)": ("Apple M3 Max 36GB", "M3 Max 30-core GPU"),
    "Apple M4 Max (40-core GPU)": ("Apple M4 Max 16-core CPU / 40-core GPU", "Apple M4 Max", "MacBook Pro M4 Max"),
    "Apple M4 Pro (20-core GPU)": ("Mac mini M4 Pro",),
    "EPYC 9654": ("AMD EPYC 9654 96-Core Processor",),
    "Core i9-13900HK": ("13th Gen Intel(R) Core(TM) i9-13900HK",),
    "Ryzen 7 7840HS": ("AMD Ryzen 7 8745H w/ Radeon 780M Graphics",),
}


@pytest.mark.parametrize(("spelling", "name"), [(text, name) for name, texts in SPELLINGS.items() for text in texts])
def test_one_device_is_found_under_every_spelling(spelling: str, name: str) -> None:
    assert find_accelerator(spelling).name == name


def test_every_row_is_found_by_its_name_and_by_each_of_its_aliases() -> None:
    for one in accelerators():
        for spelling in (one.name, *one.aliases):
            assert find_accelerator(spelling).name == one.name, spelling


@pytest.mark.parametrize(
    "spelling", ["8xH100", "8 x NVIDIA H100 80GB HBM3", "H100:8", "H100 x8", "H100 (x8)", "8×h100"]
)
def test_a_count_in_the_name_counts(spelling: str) -> None:
    found = find_accelerator(spelling)
    assert (found.name, found.count) == ("H100 SXM5 80GB", 8)


def test_two_processors_have_the_cores_channels_and_memory_of_both() -> None:
    one, two = find_accelerator("EPYC 9654"), find_accelerator("2x EPYC 9654")
    assert two.count == 2 * one.count
    assert (one.bandwidth_bytes_per_s, two.bandwidth_bytes_per_s) == (460.8e9, 921.6e9)


def test_the_size_says_how_much_of_a_unified_memory_there_is() -> None:
    assert find_accelerator("Apple M2 Ultra 64GB").memory_bytes == 64 * GIB
    assert find_accelerator("Apple M1 8GB").memory_bytes == 8 * GIB
    assert find_accelerator("Apple M4 Pro").memory_bytes == 64 * GIB  # the most that is sold
    assert find_accelerator("EPYC 9654 384GB").memory_bytes == 384 * GIB


def test_a_card_with_another_memory_than_it_was_sold_with_has_the_stated_one_and_says_so() -> None:
    found = find_accelerator("RTX 4090 48GB")
    assert (found.memory_bytes, found.visible_memory_bytes) == (48 * GIB, None)
    assert "as the name states it" in found.source
    with pytest.raises(InvalidInputError, match="24 GB, and 2048 GB is stated"):
        find_accelerator("RTX 4090 2TB")


def test_what_a_log_shows_is_the_visible_memory() -> None:
    found = find_accelerator("95.01 GiB visible (RTX PRO 6000 class)")
    assert found.memory_bytes == 96 * GIB
    assert found.visible_memory_bytes == round(95.01 * GIB)


@pytest.mark.parametrize(
    "text", ["24 GB class", "23.63 GiB visible", "unknown 80GB class", "16 GB card (15.33 GB free)"]
)
def test_a_size_alone_is_a_device_of_which_nothing_else_is_known(text: str) -> None:
    found = find_accelerator(text)
    assert found.name.startswith("unnamed accelerator with")
    assert (found.bandwidth_bytes_per_s, found.tdp_w, dict(found.flops_per_s)) == (None, None, {})


def test_a_mix_is_each_of_its_kinds_and_plans_as_the_one_with_the_least_memory() -> None:
    text = "NVIDIA GeForce RTX 4090; NVIDIA GeForce RTX 5090; NVIDIA RTX A6000"
    assert [one.name for one in find_accelerators(text)] == ["GeForce RTX 4090", "GeForce RTX 5090", "RTX A6000"]
    found = find_accelerator(text)
    assert (found.name, found.count) == ("GeForce RTX 4090", 3)
    assert "stands for a mix" in found.source
    counted = find_accelerators("AMD Instinct MI300X 192GB HBM3 (x32), AMD Instinct MI325X 256GB HBM3e (x16)")
    assert [(one.name, one.count) for one in counted] == [("Instinct MI300X", 32), ("Instinct MI325X", 16)]


def test_an_ambiguous_name_names_the_candidates() -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        find_accelerator("A100")
    assert set(caught.value.candidates) == {"A100 SXM4 40GB", "A100 SXM4 80GB"}
    with pytest.raises(AmbiguousNameError, match="RTX A6000"):
        find_accelerator("RTX 6000")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("RTX 6090", "GeForce RTX 5090"),
        ("Apple M6", "Apple M5 (10-core GPU)"),
        ("Radeon RX 7950 XT", "Radeon RX 7900 XT"),
    ],
)
def test_an_unknown_name_names_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_accelerator(text)
    assert near in caught.value.nearest


@pytest.mark.parametrize("text", ["RTX 3060 Ti Super", "RTX 5070 D", "H100 MIG 1g.10gb", "RTX 4090 5000"])
def test_a_word_that_makes_another_device_is_not_read_over(text: str) -> None:
    with pytest.raises(UnknownNameError):
        find_accelerator(text)


@pytest.mark.parametrize("text", ["", "unknown", "  ", "GPU"])
def test_a_text_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        find_accelerator(text)


def test_a_processor_that_is_not_named_says_that_it_stands_in() -> None:
    found = find_accelerator("CPU only")
    assert (found.name, found.kind) == ("Unnamed processor", "cpu")
    assert "no device" in found.source


# What the cases write where their log names no device.
NAMELESS = {"", "unknown", "not named (mem_fraction_static 0.92)"}
CASES = os.environ.get("SERVOLT_CASES", "")


@pytest.mark.skipif(not CASES, reason="SERVOLT_CASES names no folder with memory_cases*.csv, perf_cases*.csv ...")
def test_every_device_of_the_cases_is_found() -> None:
    names: set[str] = set()
    for kind in ("memory", "perf", "crowd"):
        for path in sorted(Path(CASES).glob(f"{kind}_cases*.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                names |= {row["gpu"] for row in csv.DictReader(file)}
    assert names
    for name in sorted(names - NAMELESS):
        assert find_accelerator(name).memory_bytes > 0, name
