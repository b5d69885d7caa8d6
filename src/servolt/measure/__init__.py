"""What a running server really does: latency, throughput, memory, processor time and energy, each with its error.

The way through: `LoadClient` and `measure_window` for each window, `RawRun` for the facts, `joined` for the tables, and
`FolderStore.save(run.to_json().encode(), tables, measurement_from_files)`.
"""

from servolt.measure.energy import IdlePower, measure_idle, meter_facts
from servolt.measure.load.client import LoadClient
from servolt.measure.results import measurement_from_files, measurement_of
from servolt.measure.run import RawRun
from servolt.measure.tables import joined
from servolt.measure.window import Place, RawWindow, Target, measure_window

__all__ = [
    "IdlePower",
    "LoadClient",
    "Place",
    "RawRun",
    "RawWindow",
    "Target",
    "joined",
    "measure_idle",
    "measure_window",
    "measurement_from_files",
    "measurement_of",
    "meter_facts",
]
