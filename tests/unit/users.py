"""Other users on this machine, for the tests of what root may do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from uwsgi_waffle import SQLStore, WaffleError

from ..host import run_forked

USER, OTHER = 54_321, 54_322


def sqlite_store(folder: Path) -> SQLStore:
    return SQLStore(f"sqlite:///{folder}/site.db")


def run_as(uid: int, program: Callable[[], None]) -> str:
    """Run a program in a real process of a user's. Return the text of its error, if any."""
    reader, writer = os.pipe()

    def run() -> None:
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        try:
            program()
        except WaffleError as error:
            os.write(writer, str(error).encode())

    assert run_forked(run) == 0
    os.close(writer)
    with open(reader) as file:
        return file.read()


def follow(text: str) -> None:
    """Run the command that a message names, as root."""
    found = re.search(r"(?:run|as root): ([^;]*)", text)
    assert found is not None, text
    subprocess.run(found[1], shell=True, check=True)
