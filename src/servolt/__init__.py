"""servolt: plan, serve, measure and compare deployments of large language models.

As a library: `servolt.plan(deployment, workload)`; `servolt.library` has the verbs as typed functions.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    """The verbs are imported when they are asked for, so that the command line starts fast."""
    if name == "plan":
        return importlib.import_module("servolt.plan")
    raise AttributeError(f"module 'servolt' has no attribute {name!r}")
