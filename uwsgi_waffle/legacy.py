"""Values that Flask-WaffleConf stored: base64 of a pickle, read without executing anything."""

from __future__ import annotations

import base64
import io
import json
import pickle
import pickletools
from typing import Any

from pydantic_core import from_json

__all__ = ["as_json", "bad_row", "is_json", "is_legacy"]

MAX_SIZE = 2**20  # bytes of a pickle
MAX_STEPS = 100_000  # operations of a pickle, and parts of its JSON text
MAX_LENGTH = 2**22  # characters of its JSON text, in which shared parts are repeated
MAX_MEMO = 2**20  # the unpickler allocates a memo up to the highest number
# It is easy to make many keys with one hash, and it takes the square of their number to compare
# them. Only these can be made so: text is hashed with a secret.
MAX_TUPLES = 1_000
MAX_LARGE = 1_000
LARGE = 2**60
MAX_COPIED = 2**22  # sets that are built from a list, times the bytes of the pickle

# What the pickle of a plain value consists of. Before protocol 4 a set is a call of the global
# `set`. There is no way here to call anything else, to set an attribute, or to use an extension.
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
NEW = {
    *TUPLES,
    *NUMBERS,
    *("NONE", "NEWTRUE", "NEWFALSE", "FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "SHORT_BINBYTES"),
    *("BINBYTES", "BINBYTES8", "EMPTY_LIST", "LIST", "EMPTY_TUPLE", "EMPTY_DICT", "DICT"),
    *("EMPTY_SET", "GLOBAL", "STACK_GLOBAL", "REDUCE"),
}
PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
GET = {"GET", "BINGET", "LONG_BINGET"}
FILL = {"MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}
OPCODES = {opcode.code for opcode in pickletools.opcodes}
ALLOWED = {*NEW, *PUT, *GET, *FILL, "PROTO", "FRAME", "STOP"}


def is_json(text: str) -> bool:
    """Return whether a text is JSON."""
    try:
        # This parser reads the values later; `json` takes more than it. If it might remember texts,
        # that of pydantic 2.7.0 would take an escaped one for another.
        from_json(text, cache_strings=False)
    except ValueError:
        return False
    return True


def is_legacy(text: str) -> bool:
    """Return whether a text looks like a value of Flask-WaffleConf."""
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return False
    return data.endswith(b".") and chr(data[0]) in OPCODES


def bad_row(text: str, error: Exception) -> str:
    """Explain why a stored text can't be used, given the parser's error."""
    if is_legacy(text):
        try:
            as_json(text)
        except ValueError as reason:
            return f"Flask-WaffleConf wrote it, and {reason}; set this variable anew"
    return f"the stored text isn't JSON ({error})"


def as_json(text: str) -> str:
    """Return a stored text as JSON: JSON as it is, a value of Flask-WaffleConf's converted.

    That value consists of None, bool, int, float, str, bytes, list, tuple, dict and set. Tuples and
    sets become lists, sets in order; bytes must be UTF-8.

    Raises:
        ValueError: why it can't be converted.
    """
    if is_json(text):
        return text
    if not is_legacy(text):
        raise ValueError("it is neither JSON nor a value of Flask-WaffleConf")
    data = base64.b64decode(text.strip())
    try:
        _check(data)
        return _encode(_Unpickler(io.BytesIO(data), encoding="utf-8").load())
    except _Refused:
        raise
    except Exception as error:  # damaged bytes raise much
        raise ValueError(f"the pickle is damaged ({type(error).__name__})") from None


class _Refused(ValueError):
    """The pickle holds what isn't converted."""


def _check(data: bytes) -> None:
    """Refuse what can cost more than a plain value of this size.

    A tuple can't be used in two places, because hashing a tuple of tuples would take time
    exponential in its depth. So a memo's entry is only accepted directly after its value is made.
    """
    if len(data) > MAX_SIZE:
        raise _Refused(f"the pickle has {len(data)} bytes; at most {MAX_SIZE} are read")
    memo: dict[int, bool] = {}  # whether the entry is a tuple
    tuples = large = calls = 0
    previous = ""
    argument: Any
    for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if name not in ALLOWED:
            raise _Refused(f"the pickle holds the operation {name}, which isn't carried out")
        if name in PUT:
            number = len(memo) if name == "MEMOIZE" else argument
            if number > MAX_MEMO or previous not in NEW:
                raise _Refused(f"the pickle holds an unusual {name}")
            memo[number] = previous in TUPLES
        elif name in GET and memo.get(argument):
            raise _Refused("the pickle uses a tuple in two places")
        tuples += name in TUPLES
        large += name in NUMBERS and abs(argument) >= LARGE
        calls += name == "REDUCE"
        if step >= MAX_STEPS or tuples > MAX_TUPLES or large > MAX_LARGE:
            raise _Refused("the pickle has too many parts")
        if calls * len(data) > MAX_COPIED:
            raise _Refused("the pickle has too many sets")
        previous = name


class _Unpickler(pickle.Unpickler):
    """See "Restricting Globals" in Python's documentation of `pickle`."""

    def find_class(self, module: str, name: str) -> type[set[Any]]:
        if (module, name) in (("builtins", "set"), ("__builtin__", "set")):
            return set
        raise _Refused(f"the pickle asks for {f'{module}.{name}'[:80]!r}")


def _encode(value: object) -> str:
    encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain)
    chunks: list[str] = []
    length = 0
    try:
        for chunk in encoder.iterencode(value):
            chunks.append(chunk)
            length += len(chunk)
            if length > MAX_LENGTH or len(chunks) > MAX_STEPS:
                raise _Refused("it has too many parts when shared ones are repeated")
    except _Refused:
        raise
    # A value that contains itself, NaN, a tuple as a key.
    except (ValueError, TypeError, RecursionError) as error:
        raise _Refused(f"it can't be written as JSON: {error}") from None
    text = "".join(chunks)
    if not is_json(text):
        raise _Refused("it is nested too deeply")
    return text


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, set):
        raise _Refused("the pickle holds more than plain values")
    try:
        return sorted(value)
    except TypeError:  # of mixed types; all processes must read the same
        return sorted(value, key=repr)
