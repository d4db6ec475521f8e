"""What is stored and no longer declared: `prune`."""

from __future__ import annotations

from collections.abc import Mapping

import click
from typing_extensions import Unpack

from ..changes import undeclared
from ..stores import Stored
from .command import app_state, command
from .updating import Options, Preview, carry_out, confirm_changes, update_options

__all__ = ["prune"]


@command("prune")
@click.option("--yes", is_flag=True, help="Don't ask.")
@update_options
def prune(yes: bool, **options: Unpack[Options]) -> None:
    """Remove the values of variables that are no longer declared. It asks first.

    `flask waffle list --undeclared` names them. While another release of the application runs,
    what only that one declares is among them. `rollback` doesn't bring them back.
    """
    state = app_state()

    def changes(stored: Stored) -> Mapping[str, str | None]:
        return dict.fromkeys(undeclared(state.schema, stored.values))

    options["note"] = "prune" if options["note"] is None else options["note"]
    if not (yes or options["dry_run"]):
        preview = Preview(state, changes)
        changed = preview.look(options["expect"])
        if changed:
            confirm_changes(preview, changed, f"Remove {len(changed)} of them?", options)
    carry_out(state, changes, **options)
