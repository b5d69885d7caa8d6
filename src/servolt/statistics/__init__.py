"""Numbers in, numbers with intervals out: quantiles, bootstrap, steady state, paired effects. numpy only."""

from servolt.statistics.distributions import beta_cdf, beta_quantile, normal_cdf, normal_quantile, t_cdf, t_quantile
from servolt.statistics.intervals import (
    Interval,
    block_bootstrap,
    clopper_pearson,
    least_n_for_percentile,
    mean_over_batches,
    mean_over_runs,
    percentile_interval,
    percentile_over_windows,
    ratio_of_sums,
)
from servolt.statistics.paired import (
    PairedComparison,
    hodges_lehmann,
    holm,
    paired_comparison,
    paired_t_power,
    wilcoxon_p,
)
from servolt.statistics.series import Trend, autocorrelation, mser, trend

__all__ = [
    "Interval",
    "PairedComparison",
    "Trend",
    "autocorrelation",
    "beta_cdf",
    "beta_quantile",
    "block_bootstrap",
    "clopper_pearson",
    "hodges_lehmann",
    "holm",
    "least_n_for_percentile",
    "mean_over_batches",
    "mean_over_runs",
    "mser",
    "normal_cdf",
    "normal_quantile",
    "paired_comparison",
    "paired_t_power",
    "percentile_interval",
    "percentile_over_windows",
    "ratio_of_sums",
    "t_cdf",
    "t_quantile",
    "trend",
    "wilcoxon_p",
]
