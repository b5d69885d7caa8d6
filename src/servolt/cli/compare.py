"""`servolt compare`."""

import math
from typing import TYPE_CHECKING

import click

from servolt import settings
from servolt.cli.output import Output, output_options
from servolt.errors import InvalidInputError

if TYPE_CHECKING:
    from servolt.measurement import Measurement
    from servolt.results import FolderStore

__all__ = ["command"]


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.02,
    show_default=True,
    help="A change within this share counts as none.",
)
@click.option("--all", "show_all", is_flag=True, help="Also print what is the same.")
@output_options
def command(ids: tuple[str, ...], margin: float, show_all: bool, out: Output) -> None:
    """Compare measurements with the first: what differs, by how much, and whether that is more than noise.

    ID is a measurement's id or a prefix of it; without ids, the measurements that were last taken together.
    A change is `same` when it lies within the margin, and `undecided` when more blocks are needed. -q prints a line for
    each change: verdict, metric, load.
    """
    from servolt.cli.compared import comparison_rows, comparison_shown, verdict_lines
    from servolt.compare import compare
    from servolt.results import FolderStore

    if math.isnan(margin):
        raise InvalidInputError("nan is no margin.", "--margin takes a share such as 0.02.")
    store = FolderStore(settings.folders().measurements)
    chosen = [store.find(one).measurement for one in ids] or _taken_together(store)
    if len(chosen) < 2:
        raise InvalidInputError(
            f"a comparison needs two measurements, and there {'is one' if chosen else 'are none taken together'}.",
            "`servolt measure guide:q8_0 guide:f16` takes two side by side; `servolt list --runs` lists all.",
        )
    comparison = compare(chosen, margin=margin)
    out.document(
        comparison,
        rows=comparison_rows(comparison),
        ids=verdict_lines(comparison),
        human=lambda: comparison_shown(comparison, show_all=show_all),
    )


def _taken_together(store: "FolderStore") -> "list[Measurement]":
    """The last measurements that share a study."""
    kept = [one.measurement for one in store.list()]
    studies = [one.study for one in kept if one.study is not None]
    shared = [study for study in studies if studies.count(study) > 1]
    together = [one for one in kept if shared and one.study == shared[-1]]
    return sorted(together, key=lambda one: one.windows[0].position)  # in the order in which they were named
