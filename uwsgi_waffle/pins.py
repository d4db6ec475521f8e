"""Variables that the process environment pins: it wins over the store, in that process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SchemaError
from .variable import Variable

__all__ = ["Pin", "read_pins"]

FILE = "_FILE"


@dataclass(frozen=True, slots=True)
class Pin:
    """The value that the environment gives a variable.

    Attributes:
        source: the name of the environment variable.
        text: the value as JSON.
    """

    source: str
    text: str = field(repr=False)  # it may be a secret

    @property
    def digest(self) -> str:
        """Differs for different values, so that two processes can be compared."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]


def read_pins(
    prefix: str, variables: Mapping[str, Variable], environment: Mapping[str, str]
) -> dict[str, Pin]:
    """Return what the environment pins, by the variable's name.

    Args:
        prefix: what such names begin with; if it is empty, nothing is pinned.
        variables: the declared variables.
        environment: the process environment.

    Raises:
        SchemaError: a value can't be read or is refused; the text names the environment variable.
    """
    if not prefix:
        return {}
    pins: dict[str, Pin] = {}
    for name, variable in variables.items():
        source, file = prefix + name, prefix + name + FILE
        text = environment.get(source)
        if file in environment and name + FILE not in variables:  # else it is that variable's
            if text is not None:
                raise SchemaError(f"{source} and {file} are both set: unset one of them.")
            source, text = file, _read_file(file, environment[file])
        if text is not None:
            pins[name] = Pin(source, _to_json(source, variable, text))
    return pins


def _read_file(source: str, path: str) -> str:
    """Return the text of a file without its last line end."""
    try:
        text = Path(path).read_bytes().decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it isn't a text in UTF-8"
        raise SchemaError(f"{source}: the file {path!r} can't be read: {reason}.") from None
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _to_json(source: str, variable: Variable, text: str) -> str:
    try:
        return variable.dump(variable.parse(text))
    except ValueError as error:
        raise SchemaError(f"{source} can't be the value of {variable.name!r}: {error}.") from None
