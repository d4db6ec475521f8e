"""Lists, dictionaries and sets that refuse to be changed in place: all code shares them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .errors import ManagedVariable

__all__ = ["freeze"]

MUTATORS: dict[type, str] = {
    list: "append clear extend insert pop remove reverse sort __setitem__ __delitem__",
    dict: "clear pop popitem setdefault update __setitem__ __delitem__",
    set: "add clear difference_update discard intersection_update pop remove"
    " symmetric_difference_update update",
}
SCALARS = {str, int, float, bool, type(None)}
OPERATORS = ("__iadd__", "__imul__", "__ior__", "__iand__", "__isub__", "__ixor__")


def freeze(value: Any) -> Any:
    """Return a value whose lists, dictionaries and sets raise `ManagedVariable` when changed.

    They still are lists, dictionaries and sets. A copy is a plain one. A model is frozen in place.
    """
    kind = type(value)
    if kind in SCALARS:  # most are
        return value
    if kind is dict:
        return FROZEN[dict]({key: freeze(part) for key, part in value.items()})
    if kind is tuple:
        return tuple(map(freeze, value))
    if kind in FROZEN:
        return FROZEN[kind](map(freeze, value))
    if isinstance(value, BaseModel):
        for name, part in value.__dict__.items():
            value.__dict__[name] = freeze(part)
    return value


def _frozen(base: Any) -> Any:
    """Make the frozen subclass of ``list``, ``dict`` or ``set``."""

    def refuse(self: Any, *_: object, **__: object) -> None:
        raise ManagedVariable(
            f"This {base.__name__} is a variable's value, which all code of this process shares. "
            f"Change a copy, {base.__name__}(value), and give that to waffle.update()."
        )

    def combine(operator: str) -> Any:
        # As with a tuple: `x += y` gives x another value, and leaves the shared one alone.
        return lambda self, other: getattr(base, operator)(base(self), other)

    methods: dict[str, Any] = dict.fromkeys(MUTATORS[base].split(), refuse)
    methods |= {name: combine(name) for name in OPERATORS if hasattr(base, name)}
    methods["__reduce_ex__"] = lambda self, protocol: (base, (base(self),))
    methods["__module__"] = __name__
    return type(f"Frozen{base.__name__.capitalize()}", (base,), methods)


FROZEN: dict[type, Any] = {base: _frozen(base) for base in MUTATORS}
