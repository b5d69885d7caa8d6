"""Where measurements are kept: a folder for each, with the raw samples beside the results."""

from servolt.results.folder import FolderStore, Stored
from servolt.results.parquet import Table, write_rows

__all__ = ["FolderStore", "Stored", "Table", "write_rows"]
