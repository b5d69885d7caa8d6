"""Which meter is taken where none is named."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from servolt import registry
from servolt.measurement import Meter, MeterKind
from servolt.meters import find_meter
from servolt.meters.rapl import RaplMeter
from servolt.meters.replay import ReplayMeter


class _Wall(ReplayMeter):
    """A sensor of another package."""

    name = "wall"
    kind: MeterKind = "counter"
    source = "a plug"

    def __init__(self, joules: Mapping[str, float]) -> None:
        super().__init__()
        self._joules = joules

    def read(self) -> Mapping[str, float]:
        return self._joules

    def why_absent(self) -> str:
        return "the plug is pulled"


def test_a_registered_meter_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here: dict[str, Meter] = {"rapl": RaplMeter(tmp_path), "replay": ReplayMeter(), "wall": _Wall({"plug-0": 1.0})}
    monkeypatch.setattr(registry, "names", lambda group: sorted(here))
    monkeypatch.setattr(registry, "meter", lambda name: here[name])
    assert find_meter() == (here["wall"], "wall reads plug-0 (a plug)")


def test_made_up_joules_are_never_taken_by_themselves() -> None:
    assert ReplayMeter().read()
    assert find_meter([ReplayMeter()]) == (None, "not measured: no readable counter (no sensor is registered)")


def test_every_meter_that_reads_nothing_says_why(tmp_path: Path) -> None:
    meter, reason = find_meter([RaplMeter(tmp_path), _Wall({})])
    assert meter is None
    assert reason == f"not measured: no readable counter ({tmp_path} holds no package counter; the plug is pulled)"
