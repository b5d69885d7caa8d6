"""Commands that the exports are tried on. `python -m tests.launchers.cases` writes the golden files anew."""

import re
from pathlib import Path
from typing import Any

from servolt import __version__, registry
from servolt.catalogue import find_accelerator
from servolt.command import Command
from servolt.deployment import Deployment
from servolt.model import model_from_config
from servolt.sources import find_model

__all__ = ["GOLDEN", "GOLDENS", "command", "golden_text"]

GOLDEN = Path(__file__).parents[1] / "golden" / "exports"
CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
}
HEADER = ("Qwen/Qwen3-8B on 2 x H100: fits", "predicted memory of each device", "  weights  7.6 GiB  exact")

# Every kind of value: a number, a switch, one that is switched off, JSON, a name.
FULL: dict[str, Any] = {
    "max_model_len": 8192,
    "max_num_seqs": 64,
    "kv_cache_dtype": "fp8",
    "tensor_parallel_size": 2,
    "enable_prefix_caching": False,
    "speculative_config": {"method": "eagle3", "model": "some/heads", "num_speculative_tokens": 3},
    "trust_remote_code": True,
}
TRT = {name: value for name, value in FULL.items() if name != "served_model_name"}

# Target: engine, accelerator and settings of its golden file.
GOLDENS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "shell": ("vllm", "H100 SXM5 80GB", FULL),
    "docker": ("vllm", "H100 SXM5 80GB", FULL),
    "compose": ("tensorrt_llm", "H100 SXM5 80GB", TRT),
    "kubernetes": ("sglang", "H100 SXM5 80GB", FULL),
    "lws": ("vllm", "H100 SXM5 80GB", {**FULL, "tensor_parallel_size": 8, "pipeline_parallel_size": 2}),
    "kserve": ("vllm", "H100 SXM5 80GB", FULL),
    "ray-serve": ("vllm", "A100 SXM4 80GB", FULL),
    "rayservice": ("vllm", "A100 SXM4 80GB", FULL),
    "skypilot": ("vllm", "H100 SXM5 80GB", {**FULL, "tensor_parallel_size": 8, "pipeline_parallel_size": 2}),
    "production-stack": ("vllm", "H100 SXM5 80GB", FULL),
    "systemd": ("vllm", "H100 SXM5 80GB", FULL),
    "env": ("sglang", "H100 SXM5 80GB", FULL),
    "vllm-config": ("vllm", "H100 SXM5 80GB", FULL),
    "modelfile": ("llamacpp", "", {"max_model_len": 4096, "max_num_seqs": 2, "threads": 4, "kv_cache_dtype": "q8_0"}),
    "llama-swap": ("vllm", "H100 SXM5 80GB", FULL),
}


def command(engine: str, accelerator: str, settings: dict[str, Any], model: str = "Qwen/Qwen3-8B") -> Command:
    if engine == "llamacpp":
        return _llamacpp(settings)
    deployment = Deployment.of(model, engine=engine, **settings)
    made = registry.engine(engine).command(deployment, model_from_config(CONFIG, name=model))
    return made.on(find_accelerator(accelerator)).model_copy(update={"header": HEADER, "load_s": 90.0})


def _llamacpp(settings: dict[str, Any]) -> Command:
    deployment = Deployment.of("guide:q8_0", engine="llamacpp", **settings)
    made = registry.engine("llamacpp").command(deployment, find_model(deployment))
    options = {
        "model": "/models/guide.gguf",
        "alias": "guide:q8_0",
        "parallel": 2,
        "ctx-size": 8192,
        "threads": 4,
        "threads-batch": 4,
        "cache-type-k": "q8_0",
        "cache-type-v": "q8_0",
        "n-gpu-layers": "0",
    }
    return made.model_copy(update={"options": options, "model": "/models/guide.gguf", "header": HEADER})


def golden_text(target: str) -> str:
    """What the target writes, without what changes by release and by machine."""
    text = registry.launcher(target).render(command(*GOLDENS[target])) + "\n"
    text = text.replace(f"servolt {__version__}", "servolt VERSION")
    return re.sub(r"deployment [0-9a-f]{12}", "deployment DIGEST", text)


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for target in GOLDENS:
        (GOLDEN / f"{target}.txt").write_text(golden_text(target), encoding="utf-8")


if __name__ == "__main__":
    main()
