"""``app.config`` with the declared variables in it, and the extension's own settings."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from flask import Config, Flask
from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import ManagedVariable, SchemaError

__all__ = ["Settings", "Watching", "manage"]

log = logging.getLogger("uwsgi_waffle")

T = TypeVar("T")


@dataclass(frozen=True)
class Watching:
    """Where processes and hosts find each other: what a mule without the application has to know,
    too.
    """

    watchtype: str
    watcher_file: Path
    redis_url: str = field(repr=False)  # it may hold a password
    redis_channel: str

    @classmethod
    def read(cls, config: Mapping[str, Any], instance: Path) -> Watching:
        """Read the settings from a configuration or else from the process environment.

        Args:
            config: the application's, or an empty one.
            instance: the folder that relative paths are in.

        Raises:
            SchemaError: one of them can't be used; the text names it.
        """
        watchtype = _setting(config, "WAFFLE_WATCHTYPE", str, "file")
        if watchtype not in ("file", "redis"):
            raise SchemaError(f"WAFFLE_WATCHTYPE must be 'file' or 'redis', not {watchtype!r}.")
        return cls(
            watchtype=watchtype,
            watcher_file=instance
            / _setting(
                config, "WAFFLE_WATCHER_FILE", Path, Path("waffle.watch")
            ),  # an absolute one stays
            redis_url=(_setting(config, "WAFFLE_REDIS_URL", str, "") or _redis_url(config))
            if watchtype == "redis"
            else "",
            redis_channel=_setting(config, "WAFFLE_REDIS_CHANNEL", str, "waffleconf"),
        )

    @classmethod
    def from_environment(cls) -> Watching | None:
        """Return where a process without the application is to listen, ``None`` if the process
        environment doesn't say.
        """
        try:
            watching = cls.read({}, Path())
            wanted = _setting({}, "WAFFLE_MULTIPROC", bool, True) and watching.watchtype == "redis"
        except SchemaError as error:
            log.warning(
                "uwsgi_waffle: the process environment doesn't say where a mule is to listen: %s",
                error,
            )
            return None
        return watching if wanted and watching.watcher_file.is_absolute() else None


@dataclass(frozen=True)
class Settings:
    """The ``WAFFLE_*`` settings, from ``app.config`` or else from the process environment."""

    confs: Any
    multiproc: bool
    watching: Watching
    store_url: str = field(repr=False)  # it may hold a password
    poll_interval: float
    reconcile_interval: float

    @classmethod
    def read(cls, app: Flask) -> Settings:
        """Read the settings of an application.

        Raises:
            SchemaError: one is missing or can't be used; the text names it.
        """
        config, instance = app.config, Path(app.instance_path)
        if "WAFFLE_CONFS" not in config:
            raise SchemaError(
                "app.config['WAFFLE_CONFS'] is missing: declare the variables there before "
                "WaffleConf sees the application."
            )
        settings = cls(
            confs=config["WAFFLE_CONFS"],
            multiproc=_setting(config, "WAFFLE_MULTIPROC", bool, True),
            watching=Watching.read(config, instance),
            store_url=_setting(
                config, "WAFFLE_STORE_URL", str, f"sqlite:///{instance / 'waffle.db'}"
            ),
            poll_interval=_setting(config, "WAFFLE_POLL_INTERVAL", float, 1.0),
            reconcile_interval=_setting(config, "WAFFLE_RECONCILE_INTERVAL", float, 30.0),
        )
        for name, value in (
            ("POLL", settings.poll_interval),
            ("RECONCILE", settings.reconcile_interval),
        ):
            if not 0 < value < math.inf:
                raise SchemaError(
                    f"WAFFLE_{name}_INTERVAL must be a number of seconds above 0, not {value!r}."
                )
        return settings


def _setting(config: Mapping[str, Any], name: str, kind: type[T], default: T) -> T:
    raw = config[name] if name in config else os.environ.get(name)
    if raw is None:
        return default
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        shown = "what it is" if name.endswith("_URL") else repr(raw)  # a URL may hold a password
        raise SchemaError(
            f"{name} must be a {kind.__name__}, not {shown}: {error.errors()[0]['msg']}."
        ) from None


def _redis_url(config: Mapping[str, Any]) -> str:
    host, port = (
        _setting(config, "WAFFLE_REDIS_HOST", str, "localhost"),
        _setting(config, "WAFFLE_REDIS_PORT", int, 6379),
    )
    if not host or not 0 < port < 2**16:
        raise SchemaError(
            f"WAFFLE_REDIS_PORT must be one of the ports of WAFFLE_REDIS_HOST, not {port} of {host!r}."
        )
    return f"redis://{f'[{host}]' if ':' in host else host}:{port}"


@dataclass
class Managed:
    """Where a configuration finds the declared variables."""

    names: frozenset[str] = frozenset()
    current: Callable[[], BaseModel] = field(default=BaseModel)


def manage(config: Config, names: frozenset[str], current: Callable[[], BaseModel]) -> None:
    """Let a configuration read ``names`` from ``current()`` from now on.

    The object stays the same, so that whoever holds it sees the values too. All else is read as
    fast as before: the
    names are taken out of the dictionary, and only a key that isn't there asks for `__missing__`.
    """
    for name in sorted(names & config.keys()):
        log.warning(
            "uwsgi_waffle: app.config[%r] was set, but WAFFLE_CONFS declares it: the store's "
            "value counts, or its default",
            name,
        )
        del config[name]
    kind = type(config)
    config.__class__ = type(kind.__name__, (_ManagedConfig, kind), {"__module__": kind.__module__})
    # declared by the class it has just got
    config.waffle = Managed(names, current)  # type: ignore[attr-defined]


class _ManagedConfig(Config):
    waffle: Managed

    def __missing__(self, key: str) -> Any:
        if key in self.waffle.names:
            return getattr(self.waffle.current(), key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key in self.waffle.names or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self.waffle.names else super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        yield from sorted(self.waffle.names)

    def __len__(self) -> int:
        return super().__len__() + len(self.waffle.names)

    # a view of this mapping, not of the dictionary below
    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return KeysView(self)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # as above
        return ItemsView(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # as above
        return ValuesView(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self.items()) == dict(other.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # as every mapping that can change

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def __setitem__(self, key: str, value: Any) -> None:
        self._refuse(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._refuse(key)
        super().__delitem__(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key in dict(*args, **kwargs):  # all or nothing
            self._refuse(key)
        super().update(*args, **kwargs)

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]  # as dict's, whatever `other` is
        self.update(other)
        return self

    setdefault = MutableMapping.setdefault  # through the methods above

    def pop(self, key: str, *default: Any) -> Any:
        self._refuse(key)
        return super().pop(key, *default)

    def __reversed__(self) -> Iterator[str]:
        yield from reversed(list(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (
            self.copy(),
        )  # a copy, shallow, deep or pickled, is of the values as they are now

    def _refuse(self, key: object) -> None:
        if key in self.waffle.names:
            raise ManagedVariable(
                f"{key!r} is declared in WAFFLE_CONFS: app.config can't be assigned, for only this process would see it. "
                f"Call waffle.update({{{key!r}: …}}) instead."
            )

    def __repr__(self) -> str:
        shown = dict(super().items())
        return (
            f"<{type(self).__name__} {shown!r} and {sorted(self.waffle.names)} from uwsgi_waffle>"
        )
