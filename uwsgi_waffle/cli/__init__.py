"""``flask waffle``: read and change variables from a shell."""

import click

from .transfers import apply, export, import_legacy
from .values import get, history_, list_, prune, rollback, set_, unset
from .watching import doctor, status_, watch

__all__ = ["waffle"]

waffle = click.Group(
    "waffle",
    help="Read and change the variables of WAFFLE_CONFS.",
    epilog="Exit codes: 0 done; 1 refused; 2 not understood; 3 made, but not all processes had it "
    "in time, or no server runs here; 4 --dry-run found something to change.",
)
for command in (
    list_,
    get,
    set_,
    unset,
    history_,
    rollback,
    prune,
    status_,
    watch,
    export,
    apply,
    import_legacy,
    doctor,
):
    waffle.add_command(command)
