"""What a deployment takes in memory, and what room that leaves."""

from servolt.plan.memory.budget import TERMS, Budget, RankMemory, Term, TermName
from servolt.plan.memory.host import (
    CELL_STEP,
    Memory,
    MemoryPart,
    activation_bytes,
    batch_sizes,
    context_cells,
    host_budgets,
    memory_of,
    resident_bytes,
    slots_of,
)

__all__ = [
    "CELL_STEP",
    "TERMS",
    "Budget",
    "Memory",
    "MemoryPart",
    "RankMemory",
    "Term",
    "TermName",
    "activation_bytes",
    "batch_sizes",
    "context_cells",
    "host_budgets",
    "memory_of",
    "resident_bytes",
    "slots_of",
]
