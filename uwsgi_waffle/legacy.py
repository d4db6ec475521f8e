"""What Flask-WaffleConf left in a table: base64 of a pickle, read here without a way to execute
anything.
"""

from __future__ import annotations

import base64
import json
import math
import pickletools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from .errors import StoreReadOnly
from .schema import Schema
from .stores import Commit, Decide, HistoryRow, Store, Stored, is_json

__all__ = [
    "Finding",
    "Preview",
    "bad_row",
    "convert",
    "examine",
    "is_legacy",
    "previewing",
    "read_pickle",
    "wanted_as_preview",
]

MAX_SIZE = 2**24  # bytes of a pickle, and of what it says when shared parts are written out
MAX_STEPS = 200_000
MAX_PARTS = 200_000  # of a value, when those that it shares are written out
MAX_KEY = 2**60  # larger numbers can be made to collide when they are hashed
MAX_LOOK = 1000  # steps of a pickle that are looked at to tell whether it is one
MAX_DEPTH = 50

_preview: ContextVar[bool] = ContextVar("uwsgi_waffle_preview", default=False)


def is_legacy(text: str) -> bool:
    """Tell whether a text that isn't JSON looks like a value of Flask-WaffleConf's."""
    if len(text) > MAX_SIZE:
        return False
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return False
    if not data.endswith(b"."):
        return False
    if data.startswith(b"\x80"):  # protocol 2 or later
        return True
    try:  # an older one has no mark of its own
        return len(list(islice(pickletools.genops(data), MAX_LOOK))) > 0
    except Exception:  # it raises much for what isn't one
        return False


def bad_row(text: str, error: Exception) -> str:
    """Say what is wrong with a stored text that isn't JSON."""
    if is_legacy(text):
        return "Flask-WaffleConf wrote it, as a pickle, which is never loaded here; run `flask waffle import-legacy`"
    return f"the stored text isn't JSON ({error})"


def read_pickle(text: str) -> object:
    """Build the value that a text of Flask-WaffleConf's describes.

    The pickle is walked as data: nothing is imported or called, whatever it asks for. Only None,
    bool, int, float, str,
    bytes, list, tuple, dict and set can come out.

    Raises:
        ValueError: it asks for anything else, or is damaged, too large or too deep; the text says
            what.
    """
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise ValueError("it isn't base64") from None
    if len(data) > MAX_SIZE:
        raise ValueError(f"the pickle has {len(data)} bytes; at most {MAX_SIZE} are read")
    try:
        value = _Reader().read(data)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # pickletools and damaged bytes raise much
        raise ValueError(f"the pickle is damaged ({type(error).__name__})") from None
    _measure(value, 0, MAX_PARTS)
    return value


class _Refused(Exception):
    """The pickle asks for what isn't built."""


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names, and no more than its name."""

    full: str


_MARK = object()
_SETS = ("builtins.set", "__builtin__.set")


class _Reader:
    """Walks the opcodes of a pickle with a stack of plain values."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, data: bytes) -> object:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step >= MAX_STEPS:
                raise _Refused(f"the pickle has more than {MAX_STEPS} steps")
            if opcode.name == "STOP":
                break
            act = self.ACTS.get(opcode.name)
            if act is None:
                raise _Refused(
                    f"the pickle holds the operation {opcode.name}, which isn't carried out"
                )
            act(self, argument)
        (value,) = self._stack
        return value

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _text_of_python_2(self, text: str) -> None:
        self._push(text.encode("latin-1").decode())

    def _tuple(self, size: int) -> None:
        items = [self._stack.pop() for _ in range(size)]
        self._push(tuple(items[::-1]))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise _Refused("the pickle appends to what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _Refused("the pickle puts keys into what is no dictionary")
        target.update(zip(map(_hashed, items[::2]), items[1::2], strict=True))

    def _add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, set):
            raise _Refused("the pickle adds to what is no set")
        target.update(map(_hashed, items))

    def _dict(self) -> None:
        items = self._to_mark()
        self._push({})
        self._set_items(items)

    def _name(self, full: str) -> None:
        if full not in _SETS:
            raise _Refused(f"the pickle asks for {full}")
        self._push(_Name(full))

    def _stack_name(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name(f"{module}.{name}")

    def _call(self) -> None:
        arguments, what = self._stack.pop(), self._stack.pop()
        # A set, as protocols before 4 write it. All other names were refused.
        if (
            not isinstance(what, _Name)
            or not isinstance(arguments, tuple)
            or len(arguments) != 1
            or not isinstance(arguments[0], list)
        ):
            raise _Refused("the pickle calls something")
        self._push(set(map(_hashed, arguments[0])))

    def _keep(self, at: int) -> None:
        self._memo[at] = self._stack[-1]

    ACTS: ClassVar[Mapping[str, Callable[[_Reader, Any], object]]] = {
        **dict.fromkeys(("PROTO", "FRAME"), lambda self, _: None),
        "MARK": lambda self, _: self._push(_MARK),
        "POP": lambda self, _: self._stack.pop(),
        "POP_MARK": lambda self, _: self._to_mark(),
        "DUP": lambda self, _: self._push(self._stack[-1]),
        "NONE": lambda self, _: self._push(None),
        "NEWTRUE": lambda self, _: self._push(True),
        "NEWFALSE": lambda self, _: self._push(False),
        **dict.fromkeys(
            ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
            _push,
        ),
        **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push),
        **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _push),
        **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _text_of_python_2),
        "EMPTY_LIST": lambda self, _: self._push([]),
        "LIST": lambda self, _: self._push(self._to_mark()),
        "APPEND": lambda self, _: self._append([self._stack.pop()]),
        "APPENDS": lambda self, _: self._append(self._to_mark()),
        "EMPTY_TUPLE": lambda self, _: self._push(()),
        "TUPLE": lambda self, _: self._push(tuple(self._to_mark())),
        "TUPLE1": lambda self, _: self._tuple(1),
        "TUPLE2": lambda self, _: self._tuple(2),
        "TUPLE3": lambda self, _: self._tuple(3),
        "EMPTY_DICT": lambda self, _: self._push({}),
        "DICT": lambda self, _: self._dict(),
        "SETITEM": lambda self, _: self._set_items([self._stack.pop(), self._stack.pop()][::-1]),
        "SETITEMS": lambda self, _: self._set_items(self._to_mark()),
        "EMPTY_SET": lambda self, _: self._push(set()),
        "ADDITEMS": lambda self, _: self._add(self._to_mark()),
        "GLOBAL": lambda self, name: self._name(name.replace(" ", ".")),
        "INST": lambda self, name: self._name(name.replace(" ", ".")),
        "STACK_GLOBAL": lambda self, _: self._stack_name(),
        "REDUCE": lambda self, _: self._call(),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _keep),
        "MEMOIZE": lambda self, _: self._keep(len(self._memo)),
        **dict.fromkeys(
            ("GET", "BINGET", "LONG_BINGET"), lambda self, at: self._push(self._memo[at])
        ),
    }


def _hashed(key: object) -> object:
    """Return a key of a dictionary or member of a set; a nested one can take for ever to hash."""
    if isinstance(key, (int, float)) and MAX_KEY <= abs(key) < math.inf:
        raise _Refused(f"the pickle has a key that is a number beyond {MAX_KEY}")
    if key is None or isinstance(key, (bool, int, float, str, bytes)):
        return key
    raise _Refused("the pickle has a key that is neither text nor a number")


def _measure(value: object, depth: int, left: int) -> int:
    """Return how much is left after a value, with its shared parts written out, for they can be
    without end.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"the value is nested more than {MAX_DEPTH} deep, or contains itself")
    if isinstance(value, (str, bytes)):
        left -= len(value) // 64
    elif isinstance(value, int):
        left -= value.bit_length() // 512
    elif isinstance(value, (list, tuple, set, dict)):
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        for part in parts:
            left = _measure(part, depth + 1, left)
    elif not (value is None or isinstance(value, float)):
        raise ValueError("the pickle is no plain value")
    if left <= 0:
        raise ValueError(f"the value has more than {MAX_PARTS} parts when it is written out")
    return left - 1


@dataclass(frozen=True, slots=True)
class Finding:
    """What becomes of a row that isn't JSON.

    Attributes:
        text: the JSON text; ``None`` if it is left alone.
        problem: why it is.
    """

    name: str
    text: str | None = None
    problem: str = ""


def examine(schema: Schema, rows: Mapping[str, str]) -> list[Finding]:
    """Say of each row that isn't JSON what becomes of it."""
    return [
        _finding(schema, name, text) for name, text in sorted(rows.items()) if not is_json(text)
    ]


def _finding(schema: Schema, name: str, text: str) -> Finding:
    if not is_legacy(text):
        return Finding(name, problem="it is neither JSON nor a value of Flask-WaffleConf's")
    if name not in schema.variables:
        return Finding(name, problem="it is not declared in WAFFLE_CONFS")
    try:
        return Finding(name, schema.variables[name].to_json(read_pickle(text)))
    except ValueError as error:
        return Finding(name, problem=str(error))


def convert(schema: Schema, actor: str) -> Decide:
    """Return what makes all rows of Flask-WaffleConf's JSON, in one commit.

    Raises:
        InvalidValue: when it is called, if the values don't pass their validation together.
    """

    def decide(stored: Stored) -> Commit | None:
        changes = {
            finding.name: finding.text
            for finding in examine(schema, stored.values)
            if finding.text is not None
        }
        if not changes:
            return None
        schema.load(_as_object(_converted(schema, stored).values))
        # The same values in another notation: so a rollback to what was before finds them, too.
        return Commit(changes, actor, "import-legacy", old=changes)

    return decide


def _converted(schema: Schema, stored: Stored) -> Stored:
    texts = {finding.name: finding.text for finding in examine(schema, stored.values)}
    values = {name: texts.get(name, text) for name, text in stored.values.items()}
    return Stored(
        stored.revision, {name: text for name, text in values.items() if text is not None}
    )


def _as_object(values: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in values.items()) + "}"


@contextmanager
def previewing() -> Iterator[None]:
    """Let an application that is loaded in this block see its store as it will be after the import,
    and write nothing.
    """
    token = _preview.set(True)
    try:
        yield
    finally:
        _preview.reset(token)


def wanted_as_preview() -> bool:
    """Tell whether an application is being loaded within `previewing`."""
    return _preview.get()


class Preview(Store):
    """A store as it will be after the import; an application can start with it that couldn't with
    the store itself.
    """

    shared: ClassVar[bool] = False

    def __init__(self, store: Store, schema: Schema) -> None:
        self.store, self._schema = store, schema

    @property
    def name(self) -> str:
        return self.store.name

    def prepare(self) -> None:
        """Write nothing."""

    def load(self) -> Stored:
        return _converted(self._schema, self.store.load())

    def transact(self, decide: Decide) -> Stored:
        raise StoreReadOnly(
            f"{self.name}: nothing is written while `flask waffle import-legacy` loads the application."
        )

    def history(self, limit: int, key: str | None = None) -> list[HistoryRow]:
        return self.store.history(limit, key)

    def values_at(self, revision: int) -> Mapping[str, str]:
        return self.store.values_at(revision)
