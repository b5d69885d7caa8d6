"""Where measurements are kept: a folder for each, with the raw samples beside the results."""

from servolt.results.folder import FolderStore, Survey
from servolt.results.look import Fault, Stored
from servolt.results.parquet import Table, write_rows

__all__ = ["Fault", "FolderStore", "Stored", "Survey", "Table", "write_rows"]
