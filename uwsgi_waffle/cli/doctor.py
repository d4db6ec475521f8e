"""Whether an installation is as it should be: `doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from flask.cli import ScriptInfo

from ..doctor import Finding, Installation, examine, of_instances, read_ini
from ..errors import WaffleError
from ..extension import binding_of
from ..server import program
from .command import Command, as_json, command, line, seconds

__all__ = ["doctor"]


@command("doctor", cls=Command)
@click.option(
    "--ini",
    "inis",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="uWSGI's ini, may be given several times. Default: what this host's running instances were started with.",
)
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
def doctor(ctx: click.Context, inis: tuple[Path, ...], patience: float, as_json: bool) -> None:
    """Check the installation, and say what to change.

    It looks at uWSGI's ini, the rights in folders, the store, Redis, and processes that lag. The
    exit code is 1 if something is an error;
    warnings are for what works, but not in the best way. No variable is changed.
    """
    findings: list[Finding] = []
    options = tuple(map(read_ini, inis))
    try:
        app = ctx.ensure_object(ScriptInfo).load_app()
        bound = binding_of(app)
    except WaffleError as error:
        findings += [
            Finding(
                "error",
                "application",
                f"it can't start: {error}",
                "Mend what it says; then more can be looked at.",
            )
        ]
        installation = Installation(None, {}, Path(), options, patience)
    else:
        served = (
            process.pid for process in bound.state.processes() if program(process.kind) == "uWSGI"
        )
        installation = Installation(
            bound, app.config, Path(app.instance_path), options or of_instances(served), patience
        )
    findings += examine(installation)
    if as_json:
        judged = [one.source for one in installation.options]
        click.echo(
            json.dumps(
                {"judged": judged, "findings": [asdict(finding) for finding in findings]}, indent=2
            )
        )
    else:
        _tell(findings)
    ctx.exit(1 if any(finding.level == "error" for finding in findings) else 0)


def _tell(findings: list[Finding]) -> None:
    for finding in findings:
        click.echo(f"{finding.level:<9}{finding.check + ':':<14}{line(finding.text)}")
        if finding.change:
            click.echo(f"{'':<9}{'change:':<14}{line(finding.change)}")
