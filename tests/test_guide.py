"""The shipped model guide: how often it is right, and that its files say what they are.

The answers come from the shipped files through llama.cpp, in a child process, to a fixed sample of 120 questions of
each split; `python -m tools.guide.evaluate` asks all of them. The rule for a right answer stands in that module.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src" / "servolt" / "data" / "guide"
FILES = ("guide-f16.gguf", "guide-q8_0.gguf")
SAMPLE = 120

needs_llamacpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp has no wheel for this machine"
)


def run_tool(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"tools.guide.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scores() -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads(run_tool("evaluate", "--sample", str(SAMPLE), "--json"))
    return {(score["file"], score["split"]): score for score in found}


@needs_llamacpp
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("split", "least"), [("known", 0.90), ("held_out", 0.60), ("off_topic", 0.80)])
def test_enough_answers_are_right(
    scores: dict[tuple[str, str], dict[str, Any]], file: str, split: str, least: float
) -> None:
    score = scores[file, split]
    assert score["asked"] == SAMPLE
    assert score["share"] >= least


@needs_llamacpp
@pytest.mark.parametrize("file", FILES)
def test_every_answer_ends_by_itself(scores: dict[tuple[str, str], dict[str, Any]], file: str) -> None:
    ended = sum(score["stopped"] for (name, _), score in scores.items() if name == file)
    assert ended == 3 * SAMPLE


@needs_llamacpp
@pytest.mark.parametrize("question", ["What is TTFT?", "what is ttft", "What's TTFT?"])
def test_it_knows_what_ttft_is(question: str) -> None:
    answers = run_tool("evaluate", "--ask", question).splitlines()
    assert len(answers) == len(FILES)
    assert all("time to first token" in answer for answer in answers)


@needs_llamacpp
def test_a_story_is_long_enough_to_measure_with() -> None:
    for story in run_tool("evaluate", "--ask", "Tell me a story about a fox.").splitlines():
        assert story.startswith("Once there was a")
        assert len(story.split()) >= 40


def test_no_held_out_question_is_trained_on_and_the_evaluation_is_what_the_generator_writes() -> None:
    assert run_tool("corpus", "--check", "20000").startswith("evaluation.json is up to date")


def test_both_files_are_small_enough_for_the_wheel() -> None:
    assert sum((SHIPPED / file).stat().st_size for file in FILES) <= 12_000_000


@pytest.mark.parametrize(("file", "file_type"), [("guide-f16.gguf", 1), ("guide-q8_0.gguf", 7)])
def test_the_files_say_what_they_are(file: str, file_type: int) -> None:
    reader = gguf.GGUFReader(SHIPPED / file)

    def value(key: str) -> Any:
        return reader.get_field(key).contents()

    assert value("general.name") == "guide"
    assert value("general.architecture") == "llama"
    assert value("general.license") == "apache-2.0"
    assert value("general.file_type") == file_type
    assert value("llama.context_length") == 2048
    assert value("tokenizer.ggml.eos_token_id") == 2
    assert value("tokenizer.chat_template") == (ROOT / "tools/guide/chat_template.jinja").read_text(encoding="utf-8")
    assert 1_000_000 <= sum(int(tensor.n_elements) for tensor in reader.tensors) <= 7_000_000


def rendered(messages: list[dict[str, Any]], **more: Any) -> str:
    template = gguf.GGUFReader(SHIPPED / FILES[0]).get_field("tokenizer.chat_template").contents()
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, **more)


def test_the_chat_template_writes_system_user_assistant_and_tool_turns() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "assistant", "content": "The tool says: 2"},
    ]
    assert rendered(messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nAdd.<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n2<|im_end|>\n"
        "<|im_start|>assistant\nThe tool says: 2<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_chat_template_lists_tools_in_the_system_turn_and_takes_arguments_as_text() -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    text = rendered(
        [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "", "tool_calls": [call]}], tools=[tool]
    )
    assert text.startswith("<|im_start|>system\n# Tools\n")
    assert '"name": "add"' in text.split("<|im_end|>")[0]
    assert '{"name": "add", "arguments": {"a": 1}}' in text
