import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.plan.information import Contender, chances, gains, worth_most

ONE = Contender("vllm", "H100", 1.0, 0.3)
CONTENDERS = st.lists(
    st.builds(
        Contender,
        st.sampled_from(["vllm", "sglang"]),
        st.sampled_from(["H100", "L40S"]),
        st.floats(0.5, 2.0),
        st.floats(0.05, 0.5),
        st.floats(0.0, 1.5),
        st.booleans(),
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=20, deadline=None)
@given(CONTENDERS)
def test_knowing_more_is_never_expected_to_hurt(contenders: list[Contender]) -> None:
    first, second = worth_most(contenders, draws=64)
    assert all(one.gain >= 0 for one in gains(contenders, draws=64))
    assert first.gain <= first.before
    assert set(first.measured) <= set(second.measured)


def test_two_equals_gain_what_the_better_of_two_normal_errors_does() -> None:
    """E[max(X, Y)] of two independent lognormals, with a measurement of one of them: m = E[X], the share gained is
    E[(E[X | seen] - m)+] / m = 2 Phi(s / 2) - 1, s the standard deviation of what is learnt (Clark 1961)."""
    contenders = [Contender("a", "x", 1.0, 0.3), Contender("b", "y", 1.0, 0.3)]
    learnt = 0.3**2 / math.hypot(0.3, 0.06)
    before = math.exp(-(0.3**2) / 2)
    share = math.erf(learnt / 2 / math.sqrt(2))
    found = gains(contenders, draws=8192)[0]
    assert found.before == pytest.approx(before, rel=0.02)
    assert found.gain == pytest.approx(before * share / (1 + share), rel=0.05)


def test_nothing_is_gained_where_one_is_far_ahead() -> None:
    first, _ = worth_most([ONE, Contender("sglang", "L40S", 20.0, 0.3)])
    assert first.gain < 1e-3


def test_a_measurement_tells_of_its_neighbours_on_the_same_device() -> None:
    """Where two share engine and device, part of the error is common, and only the rest can change their order."""
    apart = [ONE, Contender("sglang", "L40S", 1.0, 0.3)]
    alike = [ONE, Contender("vllm", "H100", 1.0, 0.3)]
    assert gains(alike)[0].gain < gains(apart)[0].gain


def test_a_choice_that_may_break_its_bound_is_worth_measuring() -> None:
    safe = Contender("sglang", "L40S", 1.2, 0.05)
    risky = Contender("vllm", "H100", 1.0, 0.3, 1.0)
    first, _ = worth_most([safe, risky])
    assert first.measured == (1,)
    assert first.gain > 0.02


def test_chances_are_those_of_two_errors() -> None:
    even = [Contender("a", "x", 1.0, 0.3), Contender("b", "y", 1.0, 0.3)]
    assert chances(even, 0, draws=4096)[1] == pytest.approx(0.5, abs=0.03)
    broken = [Contender("a", "x", 1.0, 0.01), Contender("b", "y", 0.9, 0.01, 1.5)]
    assert chances(broken, 0)[1] == 0.0, "it is worth nothing"


def test_the_same_seed_gives_the_same_advice() -> None:
    contenders = [ONE, Contender("sglang", "H100", 1.05, 0.2), Contender("vllm", "L40S", 1.1, 0.4)]
    assert worth_most(contenders, seed=7) == worth_most(contenders, seed=7)


def test_of_measurements_that_gain_alike_the_easier_one_is_named() -> None:
    contenders = [Contender("a", "x", 1.0, 0.3), Contender("b", "y", 1.0, 0.3), Contender("c", "z", 5.0, 0.3)]
    assert worth_most(contenders, [8.0, 1.0, 1.0])[0].measured == (1,)
    assert worth_most(contenders, [1.0, 8.0, 1.0])[0].measured == (0,)
