"""``app.config`` with the declared variables in it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from flask import Config, Flask

from .errors import ManagedVariable
from .overlay import Assigned
from .schema import Schema

__all__ = ["Variables", "install"]

log = logging.getLogger("uwsgi_waffle")


@dataclass(frozen=True)
class Variables:
    """How a configuration reaches the declared variables.

    Attributes:
        schema: declares them.
        read: returns the value in force of one of them. It raises `KeyError` for another name.
        assign: called with values by name and ``testing=``; gives some of them other values in
            this process, or refuses.
        assigned: knows those that have one, and forgets them or refuses.
        on_setting: called with whatever somebody sets.
    """

    schema: Schema
    read: Callable[[str], Any]
    assign: Callable[..., None]
    assigned: Assigned
    on_setting: Callable[[Mapping[str, Any]], None]


def install(app: Flask, variables: Variables) -> None:
    """Let ``app.config`` show the variables, and each configuration that replaces it later.

    Application and configuration stay the same objects, so that whoever holds them sees the
    values, too. They get a class of their own, derived from the one that they have.
    """
    _manage(app.config, variables, app.default_config)
    app.__class__ = _derived(type(app), config=_ConfigAttribute(variables))


def _derived(base: type, *mixins: type, **attributes: object) -> Any:
    return type(base.__name__, (*mixins, base), {"__module__": base.__module__, **attributes})


class _ConfigAttribute:
    """Where ``app.config`` is assigned. It is read as before, without this."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables

    def __set__(self, app: Flask, config: object) -> None:
        vars(app)["config"] = config
        if isinstance(config, Config) and not isinstance(config, _ManagedConfig):
            _manage(config, self._variables, app.default_config)


def _manage(config: Config, variables: Variables, flask_defaults: Mapping[str, Any]) -> None:
    _warn_of(config, variables, flask_defaults)
    variables.on_setting(config)
    for name in variables.schema.variables:
        dict.pop(config, name, None)  # so that `__missing__` is asked
    _show(config, type(config), variables)


def _show(config: Config, base: Any, variables: Variables) -> None:
    """Give a configuration of the class ``base`` one that shows the variables."""
    vars(config)["_variables"] = variables
    own = base.__getitem__ is not dict.__getitem__ or hasattr(base, "__getattr__")
    attributes = {"_base": base}
    if not own and not hasattr(base, "__missing__"):  # so that a read calls one function
        attributes["__missing__"] = staticmethod(variables.read)
    config.__class__ = _derived(base, _ManagedReading if own else _ManagedConfig, **attributes)


def _warn_of(
    given: Mapping[str, Any], variables: Variables, flask_defaults: Mapping[str, Any]
) -> None:
    """Warn of values that somebody has set, and that don't count."""
    schema, names = variables.schema, []
    for name, variable in schema.variables.items():
        if name not in given or (name in flask_defaults and given[name] == flask_defaults[name]):
            continue
        known = (vars(schema.defaults)[name], variables.read(name))
        if not any(variable.means(given[name], value) for value in known):
            names.append(repr(name))
    if names:
        log.warning(
            "uwsgi_waffle: app.config sets %s, and WAFFLE_CONFS declares it, too: the store's "
            "value counts, or the declared default",
            ", ".join(names),
        )


class _Copy(dict[str, Any]):
    """A copy of a configuration: put back, it leaves to the store what was the store's."""

    def __init__(self, config: _ManagedConfig, stored: Collection[str]) -> None:
        super().__init__(config.items())
        self._stored = {name: self[name] for name in stored}

    def changed(self) -> dict[str, Any]:
        """Return what isn't in it just as the store gave it."""
        stored = self._stored
        return {k: v for k, v in self.items() if k not in stored or v is not stored[k]}

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)


class _ManagedConfig(Config):
    """Other keys are read as fast as before: only one that isn't in the dictionary is missing."""

    _variables: Variables
    _base: Any  # the class that it had

    def _declared(self, key: Any) -> Any:
        """Return the name of the variable that a key means, ``None`` if it means none."""
        return key if key in self._variables.schema.variables else None

    def __missing__(self, key: str) -> Any:
        missing = super().__missing__  # type: ignore[misc]  # of the class below
        return self._variables.read(key) if self._declared(key) else missing(key)

    def __contains__(self, key: object) -> bool:
        return bool(self._declared(key)) or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if self._declared(key) else super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        names = self._variables.schema.variables
        yield from (key for key in super().__iter__() if key not in names)
        yield from sorted(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    # Views of this mapping, not of the dictionary below.
    keys = MutableMapping.keys  # type: ignore[assignment]  # as above
    items = MutableMapping.items  # type: ignore[assignment]  # as above
    values = MutableMapping.values  # type: ignore[assignment]  # as above

    def __reversed__(self) -> Iterator[str]:
        yield from reversed(list(self))

    __eq__ = Mapping.__eq__  # not that of the dictionary below
    __ne__ = object.__ne__
    __hash__ = None  # type: ignore[assignment]  # as every mapping that can change

    def copy(self) -> dict[str, Any]:
        return _Copy(
            self, self._variables.schema.variables.keys() - self._variables.assigned.names()
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A copy, shallow, deep or pickled, is of the values as they are now.
        return Config, (self.root_path, dict(self.items()))

    def __setitem__(self, key: str, value: Any) -> None:
        if self._assign({key: value}):
            super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        if args and isinstance(args[0], _Copy):
            args = (args[0].changed(),)
        with self._filling() as config:
            super(_ManagedConfig, config).update(config._assign(dict(*args, **kwargs)))

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]  # as dict's, whatever `other` is
        self.update(other)
        return self

    setdefault = MutableMapping.setdefault  # through the methods above

    def __delitem__(self, key: str) -> None:
        if name := self._declared(key):
            self._variables.assigned.forget({name}, testing=self._is_testing({}))
        else:
            super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        if not self._declared(key):
            return super().pop(key, *default)
        value = self[key]
        del self[key]
        return value

    def clear(self) -> None:
        self._variables.assigned.forget(self._variables.schema.variables, testing=True)
        super().clear()

    def from_mapping(self, mapping: Mapping[str, Any] | None = None, **kwargs: Any) -> bool:
        given = dict(mapping or {}, **kwargs)
        upper = {key: value for key, value in given.items() if key.isupper()}
        with self._filling() as config:
            return super(_ManagedConfig, config).from_mapping(config._assign(upper))

    def from_object(self, obj: object | str) -> None:
        with self._loading() as config:
            super(_ManagedConfig, config).from_object(obj)

    def from_file(self, *args: Any, **kwargs: Any) -> bool:
        with self._loading() as config:
            return super(_ManagedConfig, config).from_file(*args, **kwargs)

    def from_prefixed_env(self, *args: Any, **kwargs: Any) -> bool:
        with self._loading() as config:
            return super(_ManagedConfig, config).from_prefixed_env(*args, **kwargs)

    def _assign(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Assign the variables among ``given``, all or none. Return the rest."""
        self._variables.on_setting(given)
        names = {key: self._declared(key) for key in given}
        declared = {name: given[key] for key, name in names.items() if name}
        if declared:
            self._variables.assign(declared, testing=self._is_testing(given))
        return {key: given[key] for key, name in names.items() if not name}

    @contextmanager
    def _loading(self) -> Iterator[_ManagedConfig]:
        """Give a copy to load a file, an object or the environment into, and take over what it has.

        Variables that it may not set are left out. Other threads don't see the copy.
        """
        variables = self._variables
        loaded = {name: copy.deepcopy(variables.read(name)) for name in variables.schema.variables}
        before, known = dict(dict.items(self)), copy.deepcopy(loaded)
        loading = type(self).__new__(type(self))
        dict.update(loading, before)
        vars(loading).update(vars(self))
        into_copy = replace(
            variables,
            read=loaded.__getitem__,
            assign=lambda values, *, testing: loaded.update(values),
        )
        _show(loading, self._base, into_copy)
        yield loading
        given = {name: value for name, value in loaded.items() if value != known[name]}
        try:
            variables.assign(given, testing=loading._is_testing({}))
        except ManagedVariable:
            _warn_of(given, variables, {})
        fresh = {k: v for k, v in dict.items(loading) if k not in before or before[k] is not v}
        dict.update(self, fresh)  # and leave what others have set meanwhile
        vars(self).update({**vars(loading), "_variables": variables})

    def _filling(self) -> AbstractContextManager[_ManagedConfig]:
        # After clear() somebody puts back what was saved. A refusal would leave nothing.
        return nullcontext(self) if dict.__len__(self) else self._loading()

    def _is_testing(self, given: Mapping[str, Any]) -> bool:
        """Return whether this is a test; ``given`` is what is being assigned."""
        return bool(given.get("TESTING", self.get("TESTING")))

    def __repr__(self) -> str:
        names = self._variables.schema.variables
        shown = {key: value for key, value in super().items() if key not in names}
        return f"<{type(self).__name__} {shown!r} and {sorted(names)} from uwsgi_waffle>"


class _ManagedReading(_ManagedConfig):
    """For a configuration that reads in its own way, as dynaconf's: the variables come first.

    dynaconf reads ``app.config.sitename``, too. Such a key means the variable unless it is set.
    """

    def _declared(self, key: Any) -> Any:
        found = super()._declared(key)
        if found or not isinstance(key, str) or dict.__contains__(self, key):
            return found
        return super()._declared(key.upper())

    def __getitem__(self, key: str) -> Any:
        name = self._declared(key)
        return self._variables.read(name) if name else super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # as `copy` asks for
            raise AttributeError(name)
        found = self._declared(name)
        return self[found] if found else super().__getattr__(name)  # type: ignore[misc]  # below
