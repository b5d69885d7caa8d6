"""What the engines for folders of safetensors have in common: what they are told to serve, and on what."""

from collections.abc import Mapping, Sequence

from servolt.command import Devices
from servolt.deployment import Deployment
from servolt.engines.options import MACHINES, Options, Special
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.mixes import is_mix
from servolt.model.quantization import words_of

__all__ = ["DEVICES_PER_MACHINE", "KV_NAMES", "check_model", "devices_of", "gpu_only", "quantizer", "told_model"]

# Of HGX and DGX boards, and of the clouds' largest instances with them; engine_args.nnodes says otherwise.
DEVICES_PER_MACHINE = 8

PLAIN = {"float32", "float16", "bfloat16"}
KV_NAMES = {"f16": "float16", "fp16": "float16", "half": "float16", "bf16": "bfloat16", "f32": "float32"}


def told_model(deployment: Deployment, model: Model) -> str:
    """The folder of the files that are here, or the name under which the engine fetches them itself."""
    first = model.files[0] if model.files else ""
    if first.startswith("/"):
        return first.rpartition("/")[0]
    return model.name if model.basis == "catalogue" else deployment.model  # the catalogue knows the Hub's name


def check_model(options: Options, deployment: Deployment, model: Model) -> None:
    if model.format not in ("safetensors", "config"):
        options.refuse(
            "model",
            f"{options.title} runs folders of safetensors, and {model.name} is {model.format}.",
            "Name a model on the Hub or a folder of safetensors; GGUF files run with llamacpp.",
            code="model_format",
        )
    elif deployment.model.startswith("-"):
        options.refuse("model", f"{deployment.model} would be read as an option.", "Give it as a path: ./-name.")
    elif deployment.model.endswith((".json", ".yaml", ".yml")):
        options.refuse(
            "model",
            f"{deployment.model} describes a model and holds no weights.",
            "Name the folder or the Hub id that holds the weights.",
            code="model_format",
        )
    elif model.pooling is not None:
        options.note(
            "pooling_model", f"{model.name} is an embedding model.", "Check the engine's own options for such models."
        )


def gpu_only(options: Options, accelerators: Sequence[Accelerator]) -> None:
    if any(accelerator.kind == "cpu" for accelerator in accelerators):
        options.refuse(
            "hardware",
            f"{options.title} runs on GPUs only.",
            "Plan for an accelerator, or take an engine for processors: llamacpp, vllm and transformers.",
            code="unsupported_setting",
        )


def devices_of(deployment: Deployment, used: int) -> Devices:
    """`used` devices, over as many machines as engine_args.nnodes says, or as they need."""
    stated = (deployment.engine_args or {}).get(MACHINES)
    machines = int(stated) if stated else -(-used // DEVICES_PER_MACHINE)
    name = deployment.hardware.accelerator if deployment.hardware else None
    return Devices(name=name, count=used, machines=max(1, machines))


def quantizer(made_on_load: Mapping[str, str]) -> Special:
    """Writes --quantization. `made_on_load`: the method that makes a format out of 16-bit weights while they load."""

    def write(options: Options, value: str, deployment: Deployment) -> None:
        flag = options.known.flag("--quantization")
        methods = (*flag.choices, *flag.known) if flag is not None else ()
        form = words_of(value)
        made = value if value in methods else made_on_load.get(form or "")
        if form in PLAIN:
            if deployment.dtype is None:
                options.put("quantization", form, "--dtype")
        elif form is not None and form == words_of(deployment.model.rpartition("/")[2]):
            return  # the checkpoint is in this format by its name, and says how it is to be read
        elif made in methods:
            options.put("quantization", made, "--quantization")
        elif is_mix(value.lower()) is not None:
            options.refuse(
                "quantization",
                f"{options.title} makes no {value} weights; that is a format of llama.cpp.",
                "Take llamacpp, or a quantisation that this engine has.",
                code="unsupported_setting",
            )
        else:
            options.warn(
                "checkpoint_quantization",
                f"{options.title} does not make {value} weights while it loads: the checkpoint has to hold them.",
                f"Name a checkpoint of {deployment.model} that is in {value} already.",
            )

    return write
