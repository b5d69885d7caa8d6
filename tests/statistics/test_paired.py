"""Two configurations, block by block. Published: Hollander and Wolfe, R's documentation, a table of the t test."""

import math

import numpy as np
import pytest

from servolt.statistics import hodges_lehmann, holm, paired_comparison, paired_t_power, wilcoxon_p

# Hollander and Wolfe 1973, depression scores before and after, as in R's example(wilcox.test)
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
DROP = [b - a for b, a in zip(BEFORE, AFTER, strict=True)]


def test_the_signed_rank_test_agrees_with_the_published_example() -> None:
    assert wilcoxon_p(DROP) == pytest.approx(0.0390625, abs=1e-12)  # R: V = 40, two-sided


def test_the_hodges_lehmann_estimate_agrees_with_the_published_example() -> None:
    assert hodges_lehmann(DROP) == pytest.approx(0.46, abs=1e-9)  # R: pseudomedian 0.46


@pytest.mark.parametrize("ties", [[1.0, -1.0, 1.0, 1.0], [2.0, 2.0, -3.0, 5.0, -2.0]])
def test_with_ties_the_signs_are_flipped_in_all_ways(ties: list[float]) -> None:
    ranks = np.array([np.mean([r + 1 for r, v in enumerate(sorted(map(abs, ties))) if v == abs(x)]) for x in ties])
    observed = abs(float(np.sign(ties) @ ranks))
    flips = [(1 - 2 * ((number >> np.arange(len(ties))) & 1)) @ ranks for number in range(2 ** len(ties))]
    assert wilcoxon_p(ties) == pytest.approx(np.mean([abs(flip) >= observed - 1e-9 for flip in flips]))


@pytest.mark.parametrize(
    ("blocks", "effect"),
    [(3, 3.26), (4, 2.13), (5, 1.68), (6, 1.44), (8, 1.16), (10, 1.00), (12, 0.89), (16, 0.75), (20, 0.66), (30, 0.53)],
)
def test_the_power_of_the_paired_t_test_agrees_with_the_table(blocks: int, effect: float) -> None:
    assert paired_t_power(effect, blocks) == pytest.approx(0.8, abs=0.012)


def test_holm_agrees_with_a_published_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Wikipedia, Holm-Bonferroni


def test_fewer_than_six_blocks_decide_nothing_but_sameness() -> None:
    clear = paired_comparison([0.30, 0.31, 0.29, 0.30, 0.305])
    assert clear.verdict == "undecided"
    assert clear.blocks_needed == 1
    assert paired_comparison([0.001, -0.002, 0.0015]).verdict == "same"


def test_six_blocks_of_one_sign_decide() -> None:
    found = paired_comparison([0.10, 0.12, 0.09, 0.11, 0.10, 0.13])
    assert (found.verdict, found.p_value) == ("greater", 2 / 2**6)
    assert found.low <= found.estimate <= found.high


def test_a_larger_family_needs_more_blocks() -> None:
    ratios = [0.10, 0.12, 0.09, 0.11, 0.10, 0.13]
    found = paired_comparison(ratios, family=12)
    assert found.verdict == "undecided"
    assert found.blocks_needed == 3  # 12 * 2 ** (1 - n) falls below 0.05 at 9 blocks


def test_one_block_is_refused() -> None:
    with pytest.raises(ValueError, match="two blocks"):
        paired_comparison([0.1])


def test_without_a_difference_better_is_said_in_at_most_one_case_of_twenty() -> None:
    random = np.random.default_rng(7)
    verdicts = [paired_comparison(random.normal(0, 0.05, size=8).tolist()).verdict for _ in range(400)]
    assert sum(verdict in ("greater", "less") for verdict in verdicts) / 400 <= 0.065


def test_an_effect_of_the_detectable_size_is_found_in_about_four_of_five() -> None:
    random = np.random.default_rng(8)
    effect = 0.89 * 0.05  # of 12 blocks, by the table
    verdicts = [paired_comparison(random.normal(effect, 0.05, size=12).tolist()).verdict for _ in range(200)]
    assert 0.68 <= sum(verdict == "greater" for verdict in verdicts) / 200 <= 0.88


def test_constant_ratios_are_no_trouble() -> None:
    found = paired_comparison([math.log(1.5)] * 7)
    assert (found.verdict, found.low, found.high) == ("greater", found.estimate, found.estimate)
    assert paired_comparison([0.0] * 3).verdict == "same"
