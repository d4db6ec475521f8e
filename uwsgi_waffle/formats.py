"""Files that a person edits: TOML and .env, read and written."""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from .text import to_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["env_line", "read_env", "read_toml", "toml_line"]

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Text that means the same to each reader of such files without quotes.
BARE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
ENV_LINE = re.compile(
    r"""(?:export[ \t]+)?(?P<name>[^\W\d]\w*)=
        (?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<bare>(?:[^\s"'][^\n]*)?))
        [ \t]*(?:(?<=\s)\#[^\n]*)?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
NOTHING = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)|[ \t]+")


def toml_line(name: str, value: object) -> str:
    """Return ``name = value`` in TOML.

    Raises:
        ValueError: TOML can't say the value; the text says why.
    """
    key = name if BARE_KEY.fullmatch(name) else _toml_string(name)
    return f"{key} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        parts = [toml_line(str(key), part) for key, part in value.items()]
        return f"{{ {', '.join(parts)} }}" if parts else "{}"
    if value is None:
        raise ValueError("TOML has no null")
    return json.dumps(value, allow_nan=False)


def _toml_string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def read_toml(text: str) -> dict[str, Any]:
    """Read TOML as JSON values; dates and times become text.

    Raises:
        ValueError: it isn't TOML.
    """
    try:
        return {name: _plain(value) for name, value in tomllib.loads(text).items()}
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _plain(value: object) -> object:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def env_line(name: str, text: str) -> str:
    """Return ``NAME=text`` as a line of a .env file."""
    if BARE.fullmatch(text):
        return f"{name}={text}"
    if text.isprintable() and not {"'", "\\"} & set(text):
        return f"{name}='{text}'"
    return f"{name}={to_json(text)}"


def read_env(text: str) -> dict[str, str]:
    r"""Read a .env file: text without quotes, in ``'...'`` as it is, in ``"..."`` as in JSON.

    Raises:
        ValueError: a line isn't ``NAME=TEXT``, or names a variable again.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        if skipped := NOTHING.match(text, position):
            position = skipped.end()
            continue
        line = text.count("\n", 0, position) + 1
        match = ENV_LINE.match(text, position)
        if match is None:
            raise ValueError(f"line {line} isn't NAME=TEXT")
        if match["name"] in found:
            raise ValueError(f"line {line} names {match['name']} again")
        found[match["name"]] = _unquoted(match, line)
        position = match.end()
    return found


def _unquoted(match: re.Match[str], line: int) -> str:
    if match["double"] is not None:
        try:
            return str(json.loads(f'"{match["double"]}"', strict=False))
        except ValueError:
            raise ValueError(f"line {line} has an escape that JSON doesn't have") from None
    if match["single"] is not None:
        return match["single"]
    return re.sub(r"[ \t]+#.*", "", match["bare"]).rstrip()
