"""What differs between measurements, by how much, and whether that is more than noise."""

from servolt.compare.compare import compare
from servolt.compare.comparison import Change, Comparison, Difference, PredictedBesideMeasured
from servolt.compare.prediction import predicted_beside_measured

__all__ = [
    "Change",
    "Comparison",
    "Difference",
    "PredictedBesideMeasured",
    "compare",
    "predicted_beside_measured",
]
