"""Facts that people entered, each with its source and date: accelerators, models, prices and grids.

A user's rows stand in the folder `catalogue` beside the settings, in the same formats, and win over the shipped ones.
"""

from servolt.catalogue.additions import Added, add, row_of
from servolt.catalogue.checks import check
from servolt.catalogue.entries import ModelEntry, find_model_entry, known_model_entry, models
from servolt.catalogue.grids import GridIntensity, grid_intensities, grid_intensity
from servolt.catalogue.hardware import accelerators, find_accelerator, find_accelerators
from servolt.catalogue.likely import Likely, likely_models, slip_of
from servolt.catalogue.names import AmbiguousNameError, UnknownNameError
from servolt.catalogue.offers import Price, prices
from servolt.catalogue.rows import KINDS, parse, user_file

__all__ = [
    "KINDS",
    "Added",
    "AmbiguousNameError",
    "GridIntensity",
    "Likely",
    "ModelEntry",
    "Price",
    "UnknownNameError",
    "accelerators",
    "add",
    "check",
    "find_accelerator",
    "find_accelerators",
    "find_model_entry",
    "grid_intensities",
    "grid_intensity",
    "known_model_entry",
    "likely_models",
    "models",
    "parse",
    "prices",
    "row_of",
    "slip_of",
    "user_file",
]
