"""A deployment and a workload as people write them down."""

import pytest

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.workload import Workload


def test_numbers_in_a_file_take_the_suffixes_of_the_command_line() -> None:
    deployment = Deployment.from_yaml("model: guide\nmax_model_len: 1K\nmax_num_seqs: 8\nmax_num_batched_tokens: 1k")
    assert (deployment.max_model_len, deployment.max_num_seqs, deployment.max_num_batched_tokens) == (1024, 8, 1000)
    assert Workload.from_yaml("input_len: 2K\noutput_len: '16'").input_len == 2048


def test_one_number_has_one_digest_however_it_is_written() -> None:
    written = [Deployment.from_plain({"model": "guide", "max_model_len": number}) for number in (2048, "2048", "2K")]
    assert len({one.digest for one in written}) == 1


@pytest.mark.parametrize("number", ["1Q", "1.5", "1e3", "", "true"])
def test_what_is_no_number_is_refused_with_what_one_looks_like(number: str) -> None:
    with pytest.raises(InvalidInputError, match="max_model_len"):
        Deployment.from_yaml(f"model: guide\nmax_model_len: {number!r}")
    with pytest.raises(InvalidInputError, match="True is no number"):
        Workload.from_plain({"input_len": True})
