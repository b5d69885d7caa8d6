"""A deployment and its workload as a link, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.plan.link import MAX_LENGTH, PREFIX, link_of, read_link
from servolt.workload import Workload

FULL = {
    "model": "Qwen/Qwen3-8B",
    "engine": "vllm",
    "tensor_parallel_size": 8,
    "gpu_memory_utilization": 0.9,
    "enable_prefix_caching": False,
    "hardware": {"accelerator": "H100 SXM & co+x"},
    "engine_args": {"a.b": 1, "c": "x=1&y"},
    "limit_mm_per_prompt": {"image": 2},
    "tensor_split": [1, 0.5],
    "speculative_config": {"method": "ngram"},
}


@pytest.mark.parametrize("load", [{}, {"rate": 2.5}, {"concurrency": (1, 4), "duration_s": 3.5}])
def test_a_link_says_all_that_is_set_and_reads_back_as_the_same(load: dict[str, object]) -> None:
    deployment, workload = Deployment.from_plain(FULL), Workload.from_plain(load)
    link = link_of(deployment, workload)
    assert read_link(link) == (deployment, workload)
    assert link_of(*read_link(link)) == link


def test_what_is_not_set_is_not_there_and_the_order_of_setting_does_not_matter() -> None:
    one = Deployment.from_plain({"model": "m", "engine": "vllm", "block_size": 16})
    two = Deployment.from_plain({"block_size": "16", "engine": "vllm", "model": "m"})
    link = "servolt://plan?v=1&block_size=16&concurrency=1&engine=vllm&input_len=64&model=m&output_len=64"
    assert link_of(one, Workload()) == link_of(two, Workload()) == link


def test_a_count_that_nobody_said_stays_unsaid() -> None:
    """Unsaid, it follows the parallelism; a count of 1 that was said does not."""
    for hardware in ({"accelerator": "H100"}, {"accelerator": "H100", "count": 1}):
        deployment = Deployment.from_plain({"model": "m", "tensor_parallel_size": 8, "hardware": hardware})
        found = read_link(link_of(deployment, Workload()))[0].hardware
        assert found is not None
        assert found.model_fields_set == set(hardware)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=60))
def test_any_printable_name_survives(name: str) -> None:
    if name.isprintable():
        deployment = Deployment(model=name, served_model_name=name)
        assert read_link(link_of(deployment, Workload()))[0] == deployment


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "model is missing"),
        ("model=x&model=y", "more than once"),
        ("model=x&tp=3", "tp is none of its fields"),
        ("model=x&engine_args=[", "no JSON"),
        ("model=x&engine_args=[]", "no JSON object"),
        ("model=x&input_len=0", "input_len"),
        ("model=%ff", "can't be read"),
        ("model=%00", "printable"),
        ("v=2&model=x", "'2'"),
        ("model=x&hardware=3", "hardware in the link is no value"),
        ("model=x&hardware.count=2&hardware=3", "hardware in the link is no value"),
        ("a=1&" * 200, "can't be read"),
        ("model=" + "x" * MAX_LENGTH, "are the most"),
    ],
)
def test_a_faulty_link_is_refused_with_what_is_wrong(query: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_link(PREFIX + query)


def test_what_is_too_long_for_a_link_is_a_file() -> None:
    with pytest.raises(InvalidInputError, match="are the most"):
        link_of(Deployment(model="m", engine_args={"x": "y" * MAX_LENGTH}), Workload())
