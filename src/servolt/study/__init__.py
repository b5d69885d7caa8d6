"""Verbs chained: plan here, measure side by side, calibrate this machine. The only place that does so."""
