"""Expected numbers: published tables of Student's t, and closed forms of the beta distribution."""

import math

import pytest

from servolt.statistics import beta_cdf, beta_quantile, t_cdf, t_quantile


@pytest.mark.parametrize(
    ("p", "df", "expected"),
    # NIST/SEMATECH e-Handbook, 1.3.6.7.2, critical values of Student's t
    [(0.975, 1, 12.706), (0.95, 1, 6.314), (0.975, 5, 2.571), (0.99, 10, 2.764), (0.975, 30, 2.042), (0.9, 100, 1.290)],
)
def test_t_quantiles_agree_with_the_published_table(p: float, df: int, expected: float) -> None:
    assert t_quantile(p, df) == pytest.approx(expected, abs=6e-4)
    assert t_quantile(1 - p, df) == pytest.approx(-expected, abs=6e-4)


def test_the_t_distribution_with_one_degree_is_cauchys() -> None:
    for t in (-3.0, -0.2, 0.0, 1.0, 10.0):
        assert t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)


def test_the_beta_distribution_has_its_closed_forms() -> None:
    for x in (0.01, 0.3, 0.5, 0.99):
        assert beta_cdf(x, 1, 1) == pytest.approx(x, abs=1e-12)
        assert beta_cdf(x, 3, 1) == pytest.approx(x**3, abs=1e-12)
        assert beta_cdf(x, 1, 7) == pytest.approx(1 - (1 - x) ** 7, abs=1e-12)


def test_a_beta_quantile_is_the_inverse() -> None:
    for p in (0.001, 0.025, 0.5, 0.975):
        assert beta_cdf(beta_quantile(p, 4.0, 9.0), 4.0, 9.0) == pytest.approx(p, abs=1e-10)
