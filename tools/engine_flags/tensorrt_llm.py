"""`trtllm-serve`: most settings stand in a file of options, whose names a schema made in the vendor's image lists.

The package that pip finds holds no source. The schema is the file schema.discovered.json that the package
llenergymeasure brings for TensorRT-LLM, made from TorchLlmArgs.model_json_schema().
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tools.engine_flags.rows import Row

__all__ = ["flags"]

# Options of the command that the vendor's pages of 0.18.2 and 0.19.0 name, and its source of 2026 (after 1.2) still
# knows, so that every version between takes them.
COMMAND: dict[str, Row] = {
    "--backend": {"kind": "str", "choices": ["pytorch", "tensorrt", "_autodeploy"], "default": "pytorch"},
    "--extra_llm_api_options": {"kind": "str"},
    "--host": {"kind": "str", "default": "localhost"},
    "--kv_cache_free_gpu_memory_fraction": {"kind": "float", "default": 0.9},
    "--max_batch_size": {"kind": "int"},
    "--max_beam_width": {"kind": "int"},
    "--max_num_tokens": {"kind": "int"},
    "--max_seq_len": {"kind": "int"},
    "--port": {"kind": "int", "default": 8000},
    "--pp_size": {"kind": "int", "default": 1},
    "--ep_size": {"kind": "int"},
    "--tokenizer": {"kind": "str"},
    "--tp_size": {"kind": "int", "default": 1},
    "--trust_remote_code": {"kind": "switch", "default": False},
}
KINDS = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}


def flags(root: Path) -> Iterator[Row]:
    """The command's options, and the keys of the file as `key` without dashes."""
    for flag, row in COMMAND.items():
        yield {"flag": flag, **row}
    schema = json.loads((root / "schema.discovered.json").read_text(encoding="utf-8"))
    for name, told in schema["engine_params"].items():
        if "pytorch" in told["backends"]:
            kind = KINDS.get(told["type"].partition(" |")[0], "json")
            yield {"flag": name, "kind": kind}
