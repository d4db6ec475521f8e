"""What blocks and tests put over the newest values; the store doesn't know it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from operator import attrgetter

from pydantic import BaseModel

from .changes import changes_for_update
from .errors import InvalidValue, ManagedVariable
from .schema import Schema
from .snapshot import Snapshot, encode
from .stores import Stored

__all__ = ["Assigned", "Held", "Layer", "enter", "leave", "open_blocks"]

_numbers = itertools.count()

_blocks: ContextVar[tuple[Held | Layer, ...]] = ContextVar("uwsgi_waffle_blocks", default=())
#: Returns what `override` and `WaffleConf.snapshot` have opened in this thread or task.
open_blocks = _blocks.get


def enter(block: Held | Layer) -> None:
    """Open a block in this thread or task. Forget those that were closed in another one."""
    _blocks.set((*(other for other in open_blocks() if not other.closed), block))


def leave(block: Held | Layer) -> None:
    """Close a block, also in the tasks that have begun in it, and outlive it."""
    block.closed = True
    _blocks.set(tuple(other for other in open_blocks() if other is not block))


@dataclass(eq=False, slots=True)
class Held:
    """The snapshot that all reads in a block see.

    Attributes:
        view: whose reads they are.
        snapshot: the values.
        closed: whether it doesn't count any more.
    """

    view: object
    snapshot: Snapshot
    closed: bool = False


class Layer:
    """Values over those of one application, validated together with the values below.

    Args:
        schema: the application's own.
        snapshot: the values in force.
        values: the other values by name.

    Attributes:
        number: grows with each layer; the later one wins.
        closed: whether it doesn't count any more.

    Raises:
        UnknownVariable: a name isn't declared.
        InvalidValue: a value is rejected.
    """

    def __init__(self, schema: Schema, snapshot: Snapshot, values: Mapping[str, object]) -> None:
        self.number, self.closed, self._schema = next(_numbers), False, schema
        stored = Stored(snapshot.revision, _texts(schema, snapshot.values))
        changes = changes_for_update(schema.unpinned, values)(stored)
        self._texts = {name: text for name, text in changes.items() if text is not None}
        self._applied: tuple[Snapshot, Snapshot] | None = None  # the last input and result

    @property
    def names(self) -> frozenset[str]:
        """The variables that have other values."""
        return frozenset(self._texts)

    def without(self, names: Collection[str]) -> Layer:
        """Return a layer in which these variables are left alone."""
        layer = copy.copy(self)
        layer._texts = {name: text for name, text in self._texts.items() if name not in names}
        layer._applied = None
        return layer

    def apply_to(self, schema: Schema, snapshot: Snapshot) -> Snapshot:
        """Return ``snapshot`` with these values, if ``schema`` is the same application's.

        Raises:
            InvalidValue: they don't fit the values of ``snapshot``.
        """
        if self.closed or schema is not self._schema:
            return snapshot
        applied = self._applied
        if applied is None or applied[0] is not snapshot:
            applied = self._applied = snapshot, self._changed(snapshot)
        return applied[1]

    def _changed(self, snapshot: Snapshot) -> Snapshot:
        texts = {**_texts(self._schema, snapshot.values), **self._texts}
        try:
            values = self._schema.unpinned.load(encode(snapshot.revision, texts).values)
        except InvalidValue as error:
            raise InvalidValue(
                error.problems,
                f"The override of {', '.join(self._texts)} doesn't fit the values of revision"
                f" {snapshot.revision}",
            ) from None
        return replace(snapshot, values=values)


class Assigned:
    """What tests have assigned in ``app.config``; it counts in this process until it is forgotten.

    Attributes:
        layers: one for each assignment.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema, self.layers = schema, tuple[Layer, ...]()

    def apply_to(self, snapshot: Snapshot) -> Snapshot:
        """Return ``snapshot`` with what was assigned, and with the overrides of this thread."""
        return self._with(self.layers, snapshot)

    def names(self) -> frozenset[str]:
        """Return the variables that have an assigned value."""
        return frozenset[str]().union(*(layer.names for layer in self.layers))

    def assign(self, snapshot: Snapshot, values: Mapping[str, object], *, testing: bool) -> None:
        """Give variables other values than those of ``snapshot``; all of them or none.

        Raises:
            ManagedVariable: they differ from the values in force, and this is no test.
            InvalidValue: a value is rejected.
        """
        names = self._differing(values, self.apply_to(snapshot))
        kept = self._without(names)
        below = self._with(kept, snapshot)
        # What differs from an assigned value, and not from the one below, is assigned back.
        differing = self._differing(values, below)
        if differing and not testing:
            raise ManagedVariable(_refusal(differing))
        if differing:
            kept += (Layer(self._schema, below, {name: values[name] for name in differing}),)
        self.layers = kept

    def forget(self, names: Collection[str], *, testing: bool) -> None:
        """Give variables back the values that they have without assignment.

        Raises:
            ManagedVariable: one of them wasn't assigned, and this is no test.
        """
        if not testing and not self.names().issuperset(names):
            raise ManagedVariable(_refusal(sorted(names)))
        self.layers = self._without(names)

    def _without(self, names: Collection[str]) -> tuple[Layer, ...]:
        left = (layer.without(names) for layer in self.layers)
        return tuple(layer for layer in left if layer.names)

    def _with(self, layers: tuple[Layer, ...], snapshot: Snapshot) -> Snapshot:
        overrides = (block for block in open_blocks() if isinstance(block, Layer))
        for layer in sorted((*layers, *overrides), key=attrgetter("number")):
            snapshot = layer.apply_to(self._schema, snapshot)
        return snapshot

    def _differing(self, values: Mapping[str, object], snapshot: Snapshot) -> list[str]:
        return [
            name
            for name, value in values.items()
            if not self._schema.variable(name).means(value, vars(snapshot.values)[name])
        ]


def _refusal(names: list[str]) -> str:
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{', '.join(map(repr, names))} {verb} declared in WAFFLE_CONFS. Changing app.config "
        f"would count in this process only. Call waffle.update({{{names[0]!r}: …}}) or "
        f"waffle.reset({names[0]!r}) instead. In a test, set app.testing first."
    )


def _texts(schema: Schema, values: BaseModel) -> dict[str, str]:
    """Return the JSON text of each value that isn't only the default."""
    return {name: schema.text_of(values, name) for name in values.model_fields_set}
