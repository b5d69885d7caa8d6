"""An engine's page of metrics in Prometheus' text format."""

import re
from collections.abc import Mapping

__all__ = ["summed"]

SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (?P<value>[-+.0-9eE]+)(?: \d+)?$", re.MULTILINE)


def summed(text: str, prefix: str, names: Mapping[str, str], shares: frozenset[str] = frozenset()) -> dict[str, float]:
    """The samples that `names` lists, under our names, summed over their labels (replicas, reasons).

    Of those in `shares`, which say how full something is, the largest stands. What is not on the page is left out.

    >>> summed('x:running{engine="0"} 2.0\\nx:running{engine="1"} 3', "x:", {"running": "requests_running"})
    {'requests_running': 5.0}
    """
    found: dict[str, list[float]] = {}
    for sample in SAMPLE.finditer(text):
        ours = names.get(sample["name"].removeprefix(prefix)) if sample["name"].startswith(prefix) else None
        if ours is not None:
            found.setdefault(ours, []).append(float(sample["value"]))
    return {name: max(values) if name in shares else sum(values) for name, values in found.items()}
