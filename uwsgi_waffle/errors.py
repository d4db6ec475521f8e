"""The errors that users of the package meet; every message says what happened and what to do."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
from collections.abc import Container, Mapping
from pathlib import Path

from .text import escape_line

__all__ = [
    "OPEN_FILES_ADVICE",
    "HostBusy",
    "HostFilesError",
    "InvalidValue",
    "ManagedVariable",
    "PinnedVariable",
    "RevisionConflict",
    "SchemaError",
    "StoreReadOnly",
    "StoreUnavailable",
    "UnknownRevision",
    "UnknownVariable",
    "WaffleError",
    "error_text",
    "missing_library",
    "name_commands",
    "open_files_advice",
    "repair_commands",
    "taken_by",
]

#: What to do where too many files are open; the system's text for the first begins like the second.
OPEN_FILES_ADVICE = {
    errno.ENFILE: "Raise the system's limit of open files (fs.file-max).",
    errno.EMFILE: "Raise this process's limit of open files (ulimit -n).",
}

INSTALLED = {"site-packages", "dist-packages"}  # folders in which pip and Linux put libraries


def open_files_advice(message: str) -> str:
    """Return what to do if too many files are open, else ``""``; not every driver says so."""
    for code, advice in OPEN_FILES_ADVICE.items():
        if os.strerror(code) in message:
            return advice
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return OPEN_FILES_ADVICE.get(error.errno or 0, "")
    return ""


def missing_library(library: str, module: str, extra: str = "") -> tuple[str, str]:
    """Return why a library can't be imported, and what to do.

    Args:
        library: what people call it.
        module: what is imported; asked again, because a module that it needs may be missing.
        extra: the package's extra that installs it.
    """
    top = module.partition(".")[0]
    if place := taken_by(top):
        return f"{place} has the name of {library}", "Rename that."
    command = f"pip install 'uwsgi_waffle[{extra}]'" if extra else f"pip install {library}"
    why = "isn't installed"
    try:
        importlib.import_module(module)
    except ImportError as error:
        if not (isinstance(error, ModuleNotFoundError) and f"{error.name}.".startswith(f"{top}.")):
            why = f"can't be imported: {' '.join(str(error).split())}".rstrip(".")
    return f"{library} {why}", f"Run: {command}"


def taken_by(module: str) -> Path | None:
    """Return the file that has a library's name and isn't where libraries are installed."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec is not None and spec.origin else None
    return path if path is not None and not INSTALLED & set(path.parts) else None


class WaffleError(Exception):
    """The root of all errors of this package. The text of each is one line that can be printed."""

    def __str__(self) -> str:
        return escape_line(str(self.args[0])) if self.args else ""


class SchemaError(WaffleError, ValueError):
    """A declaration in ``WAFFLE_CONFS`` or a ``WAFFLE_*`` setting can't be used."""


class UnknownVariable(WaffleError, KeyError):
    """A name that ``WAFFLE_CONFS`` doesn't declare."""


class InvalidValue(WaffleError, ValueError):
    """Values that the schema or the store refuses; nothing was changed.

    Attributes:
        problems: what is wrong, by the variable's name; ``""`` stands for all values together.
    """

    def __init__(self, problems: Mapping[str, str], message: str = "Nothing was changed") -> None:
        self.problems = dict(problems)
        listed = "; ".join(
            f"{name}: {text}" if name else text for name, text in self.problems.items()
        )
        super().__init__(f"{message}: {listed}")


def error_text(error: Exception) -> tuple[str, Exception | None]:
    """Return the text of an error, and the error itself if its traceback is worth a log line."""
    expected = isinstance(error, (WaffleError, OSError))
    named = str(error) if expected and str(error) else f"{type(error).__name__}: {error}"
    return named, None if expected else error


def repair_commands(name: str, declared: Container[str]) -> str:
    """Return the commands that repair a stored value; ``""`` stands for any variable."""
    unset = f"flask waffle unset {name or 'NAME'}"
    settable = not name or name in declared
    return f"flask waffle set {name or 'NAME'}=VALUE, or {unset}" if settable else unset


def name_commands(error: Exception, declared: Container[str]) -> Exception:
    """Return an error of stored values with the commands that repair them; others as they are."""
    if not isinstance(error, InvalidValue):
        return error
    problems = {
        name: f"{text.rstrip('.')}. Run {repair_commands(name, declared)}"
        for name, text in error.problems.items()
    }
    return InvalidValue(problems, "The store holds what can't be used")


class RevisionConflict(WaffleError):
    """Somebody else changed the values first; nothing was changed.

    Attributes:
        expected: the revision that the caller had read.
        actual: the store's revision.
    """

    def __init__(self, expected: int, actual: int) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"Nothing was changed: revision {expected} was expected and the store is at "
            f"{actual}. Read the values again, then repeat the update with "
            f"expect_revision={actual} (on the command line --expect {actual})."
        )


class UnknownRevision(WaffleError, LookupError):
    """A revision that the history doesn't hold."""


class ManagedVariable(WaffleError, TypeError):
    """A declared variable was assigned or changed in place instead of through ``update``."""


class PinnedVariable(WaffleError):
    """The process environment pins a variable, so that nothing else can change it here."""


class StoreUnavailable(WaffleError):
    """The store can't be reached, or holds something that can't be read."""


class StoreReadOnly(StoreUnavailable):
    """The store can be read but refuses to be written."""


class HostFilesError(WaffleError, OSError):
    """The watch file or the folder beside it can't be used."""


class HostBusy(WaffleError, TimeoutError):
    """Another process of this host held the write lock for too long; nothing was changed."""
