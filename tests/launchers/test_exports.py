"""Each export: the golden file, its target's schema or parser, every setting there, and names that start nothing."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from servolt import registry
from servolt.cli.rendered import DOCUMENTS, TARGETS
from servolt.command import Command
from servolt.engines.flags import Known
from servolt.errors import EngineError, InvalidInputError
from tests.launchers.cases import FULL, GOLDEN, GOLDENS, command, golden_text
from tests.launchers.schemas import SCHEMAS, SERVE

H100 = "H100 SXM5 80GB"
RENDERED = [target for target in TARGETS if target not in DOCUMENTS]
# Values that a careless quotation would break.
NASTY = {**FULL, "engine_args": {"chat-template": 'it\'s $HOME; `id` "%n" \\ $(id) ${PORT!r} end'}}


def render(target: str, what: Command | None = None) -> str:
    return registry.launcher(target).render(what or command(*GOLDENS[target]))


def options(words: list[str]) -> list[str]:
    """What follows the port."""
    return words[words.index("--port") + 2 :]


def test_every_target_is_a_launcher_and_has_a_golden_file() -> None:
    assert set(RENDERED) == set(registry.names("launchers")) - {"process"}
    assert set(GOLDENS) == set(RENDERED)
    assert {path.stem for path in GOLDEN.iterdir()} == set(RENDERED)


@pytest.mark.parametrize("target", RENDERED)
def test_it_is_what_the_golden_file_holds(target: str) -> None:
    assert golden_text(target) == (GOLDEN / f"{target}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", RENDERED)
def test_the_head_says_the_versions_and_the_predicted_memory(target: str) -> None:
    what = command(*GOLDENS[target])
    first, *rest = render(target, what).splitlines()
    assert re.match(rf"# servolt \S+: {what.engine}.*, deployment {what.deployment_digest[:12]}$", first)
    assert rest[0] == "# Qwen/Qwen3-8B on 2 x H100: fits"
    assert rest[2] == "#   weights  7.6 GiB  exact"


@pytest.mark.parametrize("target", SCHEMAS)
def test_it_fits_its_targets_schema(target: str) -> None:
    documents = list(yaml.safe_load_all(render(target)))
    assert documents
    for document in documents:
        faults = [jsonschema.Draft202012Validator(schema).iter_errors(document) for schema in SCHEMAS[target]]
        assert [] in [[fault.message for fault in found] for found in faults]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm"])
@pytest.mark.parametrize("accelerator", [H100, "Instinct MI300X", "Arc Pro B60"])
@pytest.mark.parametrize("target", ["compose", "kubernetes", "lws", "docker"])
def test_it_holds_for_other_engines_and_vendors_or_says_what_is_missing(
    engine: str, accelerator: str, target: str
) -> None:
    what = command(engine, accelerator, {name: value for name, value in FULL.items() if name != "served_model_name"})
    vendor = what.devices.vendor if what.devices else None
    if vendor not in what.images:
        with pytest.raises(InvalidInputError, match="no image of its own is known"):
            render(target, what)
        return
    text = render(target, what)
    for document in yaml.safe_load_all(text) if target in SCHEMAS else ():
        assert any(jsonschema.Draft202012Validator(schema).is_valid(document) for schema in SCHEMAS[target])


def test_the_ray_config_inside_a_rayservice_is_a_ray_config() -> None:
    (document,) = yaml.safe_load_all(render("rayservice"))
    jsonschema.validate(yaml.safe_load(document["spec"]["serveConfigV2"]), SERVE)


# --- every setting is there, by the words that a program would get ---


def stub(folder: Path, name: str) -> dict[str, str]:
    """A program of this name that prints its arguments as JSON; the environment in which it is found first."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": "/home/somebody", "LEADER": "10.0.0.1"}


def printed(script: str, folder: Path, program: str, **environment: str) -> list[list[str]]:
    result = subprocess.run(
        ["/bin/sh", "-c", script],
        env={**stub(folder, program), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("settings", [FULL, NASTY], ids=["full", "nasty"])
def test_a_shell_hands_the_program_each_word_as_it_is(settings: dict[str, Any], tmp_path: Path) -> None:
    what = command("vllm", H100, settings)
    assert printed(render("shell", what), tmp_path, "vllm") == [list(what.at(8000).argv[1:])]


@pytest.mark.parametrize("settings", [FULL, NASTY], ids=["full", "nasty"])
def test_an_environment_file_starts_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    what = command("vllm", H100, settings)
    lines = [line for line in render("env", what).splitlines() if not line.startswith("#")]
    environment = dict(line.split("=", 1) for line in lines)  # as `docker run --env-file` reads it
    assert printed('eval "exec $SERVOLT_COMMAND"', tmp_path, "vllm", **environment) == [list(what.at(8000).argv[1:])]


@pytest.mark.parametrize("settings", [FULL, NASTY], ids=["full", "nasty"])
def test_docker_gets_the_image_and_then_the_arguments(settings: dict[str, Any], tmp_path: Path) -> None:
    what = command("vllm", H100, settings)
    ((*words,),) = printed(render("docker", what), tmp_path, "docker")
    place = words.index("vllm/vllm-openai:v0.33.0")
    assert words[place + 1 :] == ["Qwen/Qwen3-8B", "--host", "0.0.0.0", "--port", "8000", *options(list(what.argv))]
    assert words[words.index("--gpus") + 1] == '"device=0,1"'
    assert "/home/somebody/.cache/huggingface:/root/.cache/huggingface" in words


@pytest.mark.parametrize("rank", ["0", "1"])
def test_each_machine_of_a_cloud_is_told_its_part(rank: str, tmp_path: Path) -> None:
    what = command(*GOLDENS["skypilot"])
    task = yaml.safe_load(render("skypilot", what))
    environment = {"SKYPILOT_NODE_RANK": rank, "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6", "SKYPILOT_NUM_NODES": "2"}
    (words,) = printed(task["run"], tmp_path, "vllm", **environment)
    added = [
        "--nnodes",
        "2",
        "--node-rank",
        rank,
        "--master-addr",
        "10.0.0.5",
        *(["--headless"] if rank == "1" else []),
    ]
    assert options(words) == [*options(list(what.argv)), *added]
    assert words[words.index("--host") + 1] == "0.0.0.0"


def test_a_shell_has_a_line_for_each_machine(tmp_path: Path) -> None:
    what = command(*GOLDENS["lws"])
    first, second = printed(render("shell", what), tmp_path, "vllm")
    assert first[-6:] == ["--nnodes", "2", "--node-rank", "0", "--master-addr", "10.0.0.1"]
    assert second[-7:] == ["--nnodes", "2", "--node-rank", "1", "--master-addr", "10.0.0.1", "--headless"]


def test_a_shell_makes_the_file_that_an_engine_reads(tmp_path: Path) -> None:
    what = command("tensorrt_llm", H100, {"kv_cache_dtype": "fp8"})
    (words,) = printed(render("shell", what), tmp_path, "trtllm-serve")
    assert words[-2:] == ["--extra_llm_api_options", "./options.yaml"]
    assert yaml.safe_load((tmp_path / "options.yaml").read_text(encoding="utf-8")) == {
        "kv_cache_config": {"dtype": "fp8"}
    }


@pytest.mark.parametrize("target", ["kubernetes", "lws"])
def test_kubernetes_replaces_nothing_in_a_value(target: str) -> None:
    what = command("vllm", H100, NASTY)
    document = next(yaml.safe_load_all(render(target, what)))
    spec = document["spec"]
    template = spec["template"] if target == "kubernetes" else spec["leaderWorkerTemplate"]["leaderTemplate"]
    (container,) = template["spec"]["containers"]
    words = [word.replace("$$(", "$(") for word in [*container["command"], *container["args"]]]  # as the kubelet does
    assert options(words) == options(list(what.argv))
    assert not re.search(r"(?<!\$)\$\(", " ".join(container["args"]))


def test_compose_replaces_nothing_in_a_value() -> None:
    what = command("vllm", H100, NASTY)
    (service,) = yaml.safe_load(render("compose", what))["services"].values()
    words = [word.replace("$$", "$") for word in service["command"]]  # as compose does
    assert options(words) == options(list(what.argv))


def test_kserve_is_given_what_has_no_field_of_its_own() -> None:
    what = command("vllm", H100, {**NASTY, "served_model_name": "qwen"})
    document = yaml.safe_load(render("kserve", what))
    environment = {one["name"]: one.get("value") for one in document["spec"]["template"]["containers"][0]["env"]}
    told = shlex.split(environment["VLLM_ADDITIONAL_ARGS"].replace("$$(", "$("))
    fields = ["--tensor-parallel-size", "2", "--served-model-name", "qwen"]
    assert sorted(told + fields) == sorted(options(list(what.argv)))
    assert document["spec"]["parallelism"] == {"tensor": 2}
    assert document["spec"]["model"]["name"] == "qwen"


def test_the_production_stack_is_given_fields_and_the_rest_as_arguments() -> None:
    what = command("vllm", H100, {**FULL, "max_model_len": 1_048_576})
    (model,) = yaml.safe_load(render("production-stack", what))["servingEngineSpec"]["modelSpec"]
    config = model["vllmConfig"]
    assert (config["maxNumSeqs"], config["tensorParallelSize"], config["enablePrefixCaching"]) == (64, 2, False)
    # Helm would write a million as 1.048576e+06.
    assert config["extraArgs"][:2] == ["--max-model-len", "1048576"]
    assert "--kv-cache-dtype" in config["extraArgs"]
    assert "--no-enable-prefix-caching" not in config["extraArgs"]


def test_the_production_stack_is_told_to_keep_what_vllm_has_on() -> None:
    what = command("vllm", H100, {"tensor_parallel_size": 2})
    (model,) = yaml.safe_load(render("production-stack", what))["servingEngineSpec"]["modelSpec"]
    assert model["vllmConfig"]["enablePrefixCaching"] is True


def test_vllms_own_file_holds_options_that_the_version_knows() -> None:
    settings = yaml.safe_load(render("vllm-config", command("vllm", H100, NASTY)))
    known = Known("vllm", "0.33.0")
    assert settings.pop("model") == "Qwen/Qwen3-8B"
    assert all(known.flag(f"--{name}") is not None for name in settings)
    assert settings["no-enable-prefix-caching"] is True
    assert settings["max-model-len"] == 8192
    assert json.loads(settings["speculative-config"])["num_speculative_tokens"] == 3
    assert settings["chat-template"] == NASTY["engine_args"]["chat-template"]


def test_ray_is_given_the_engines_own_arguments() -> None:
    (application,) = yaml.safe_load(render("ray-serve"))["applications"]
    (config,) = application["args"]["llm_configs"]
    assert config["engine_kwargs"]["enable_prefix_caching"] is False
    assert config["engine_kwargs"]["speculative_config"]["method"] == "eagle3"
    assert config["accelerator_type"] == "A100-80G"
    assert config["deployment_config"]["max_ongoing_requests"] == 64


def test_a_modelfile_says_what_ollama_itself_needs() -> None:
    text = render("modelfile")
    assert "FROM /models/guide.gguf\nPARAMETER num_ctx 4096\n" in text
    assert "OLLAMA_NUM_PARALLEL=2" in text
    assert "OLLAMA_KV_CACHE_TYPE=q8_0" in text
    what = command(*GOLDENS["modelfile"])
    with pytest.raises(InvalidInputError, match="override-tensor: Ollama has no such setting"):
        render("modelfile", what.model_copy(update={"options": {**what.options, "override-tensor": "a=CPU"}}))


def test_llama_swap_chooses_the_port() -> None:
    what = command("vllm", H100, FULL)
    (model,) = yaml.safe_load(render("llama-swap", what))["models"].values()
    words = shlex.split(model["cmd"].replace("${PORT}", "5800"))
    assert words == list(what.at(5800).argv)
    with pytest.raises(InvalidInputError, match=r"\$\{"):
        render("llama-swap", command("vllm", H100, NASTY))


# --- checked by the programs themselves, where they are ---


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("settings", [FULL, NASTY], ids=["full", "nasty"])
def test_systemd_reads_the_unit(settings: dict[str, Any], tmp_path: Path) -> None:
    unit = tmp_path / "engine.service"
    unit.write_text(render("systemd", command("vllm", H100, settings)), encoding="utf-8")
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    about_it = [line for line in result.stderr.splitlines() if "engine.service" in line]
    assert (result.returncode, about_it) == (0, [])


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker's command line is not here")
@pytest.mark.parametrize("accelerator", [H100, "Instinct MI300X", "Arc Pro B60", "EPYC 9654"])
def test_docker_knows_every_flag(accelerator: str) -> None:
    script = render("docker", command("vllm", accelerator, FULL)).replace("docker run", "docker create")
    # No daemon listens there: whoever gets as far as asking one (for --device, which system it runs on) has read all.
    environment = {**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:9"}
    result = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert re.search("Cannot connect to the Docker daemon|unknown server OS", result.stderr)
    assert not re.search("unknown (shorthand )?flag|invalid argument", result.stderr)


# --- what can't be said is refused, and a name is no place for a program ---


@pytest.mark.parametrize("target", RENDERED)
@pytest.mark.parametrize(
    "name", ["a/b;id", "a/$(id)", "a/`id`", "a/b\nid", "a/b'c", "--help", "a/b|c", "a/{x}", "a/b*"]
)
def test_a_name_with_a_meaning_to_a_shell_is_refused(target: str, name: str) -> None:
    what = command(*GOLDENS[target]).model_copy(update={"model": name})
    with pytest.raises(InvalidInputError, match="must not stand in a command that others run"):
        render(target, what)


@pytest.mark.parametrize("target", RENDERED)
def test_no_secret_is_printed_only_its_name(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "VLLM_API_KEY", "LLAMA_API_KEY"):
        monkeypatch.setenv(name, "s3cr3t-value")
    assert "s3cr3t-value" not in render(target)


@pytest.mark.parametrize("target", ["docker", "compose", "kubernetes", "systemd", "kserve", "env", "llama-swap"])
def test_several_machines_are_refused_where_there_is_one(target: str) -> None:
    with pytest.raises(InvalidInputError, match="2 machines"):
        render(target, command(*GOLDENS["lws"]))


@pytest.mark.parametrize("target", ["lws", "shell", "skypilot"])
def test_an_engine_that_does_not_spread_by_itself_is_refused_on_several_machines(target: str) -> None:
    what = command("tensorrt_llm", H100, {"tensor_parallel_size": 16})
    with pytest.raises(InvalidInputError, match="tensorrt_llm on 2 machines"):
        render(target, what)


@pytest.mark.parametrize("target", ["kserve", "ray-serve", "rayservice", "production-stack", "vllm-config"])
def test_what_is_for_vllm_refuses_others(target: str) -> None:
    with pytest.raises(InvalidInputError, match="It is for vllm"):
        render(target, command("sglang", H100, {"tensor_parallel_size": 2}))


@pytest.mark.parametrize("target", ["docker", "compose", "kubernetes", "lws"])
def test_devices_of_an_unknown_vendor_are_refused(target: str) -> None:
    what = command("vllm", H100, FULL)
    assert what.devices is not None
    unknown = what.model_copy(update={"devices": what.devices.model_copy(update={"vendor": None})})
    with pytest.raises(InvalidInputError, match="unknown vendor"):
        render(target, unknown)


def test_a_folder_of_this_machine_is_mounted_or_refused() -> None:
    local = command("vllm", H100, FULL).model_copy(update={"model": "/models/qwen"})
    assert "--volume /models/qwen:/models/qwen:ro" in render("docker", local)
    assert "HF_TOKEN" not in render("docker", local)
    for target in ("kserve", "skypilot", "production-stack"):
        with pytest.raises(InvalidInputError, match="/models/qwen"):
            render(target, local)


def test_a_start_may_take_twice_what_is_predicted_and_the_time_to_fetch() -> None:
    what = command("vllm", H100, FULL).model_copy(update={"load_s": 100.0})
    probe = next(yaml.safe_load_all(render("kubernetes", what)))["spec"]["template"]["spec"]["containers"][0][
        "startupProbe"
    ]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 760  # 2 x 100 s, and 560 s for 140 GB at 250 MB/s
    local = what.model_copy(update={"model": "/models/qwen"})
    probe = next(yaml.safe_load_all(render("kubernetes", local)))["spec"]["template"]["spec"]["containers"][0][
        "startupProbe"
    ]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 200


@pytest.mark.parametrize("target", RENDERED)
def test_nothing_is_started_from_text(target: str, tmp_path: Path) -> None:
    launcher = registry.launcher(target)
    with pytest.raises(EngineError, match=f"Write it with --export {target}, and "):
        asyncio.run(launcher.start(command(*GOLDENS[target]), secrets={}, log_path=tmp_path / "log"))
    assert launcher.name == target
