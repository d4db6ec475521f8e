"""Whether an installation is as it should be: `doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..doctor import Finding, examine
from ..errors import WaffleError
from ..state import state_of
from .command import Command, as_json, command, load_app, seconds
from .output import print_json, print_line

__all__ = ["doctor"]


@command("doctor", cls=Command)
@click.option(
    "--patience",
    type=seconds,
    metavar="SECONDS",
    default=3.0,
    show_default=True,
    help="How long a process may lag.",
)
@as_json
@click.pass_context
def doctor(ctx: click.Context, patience: float, as_json: bool) -> None:
    """Check the installation, and say what to change.

    It checks how the running server was configured, the store, the channel between hosts, and
    that no process lags. The exit code is 1 if something is an error. A warning is for what works,
    but not in the best way. No variable is changed.
    """
    findings: list[Finding] = []
    try:
        app = load_app(ctx)
        state = state_of(app)
    except WaffleError as error:
        text = f"it can't start: {error}"
        change = "Do what it says; then more can be checked."
        findings.append(Finding("error", "application", text, change))
    else:
        with app.app_context():
            findings += examine(state, patience)
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]}, indent=2)
    else:
        for finding in findings:
            print_line(f"{finding.level:<9}{finding.check + ':':<14}{finding.text}")
            if finding.change:
                print_line(f"{'':<9}{'change:':<14}{finding.change}")
    ctx.exit(1 if any(finding.level == "error" for finding in findings) else 0)
