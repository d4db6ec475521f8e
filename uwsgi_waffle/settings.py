"""The extension's own settings, from ``app.config`` or else from the process environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from flask import Flask
from pydantic import Field, TypeAdapter, ValidationError

from .errors import SchemaError
from .privileges import resolve
from .urls import libpq_url

__all__ = ["LateSettings", "Settings", "Watching"]

log = logging.getLogger("uwsgi_waffle")

T = TypeVar("T")

NAMES = """WAFFLE_CONFS WAFFLE_ENV_PREFIX WAFFLE_LISTEN_URL WAFFLE_MAX_VALUE_SIZE WAFFLE_MULTIPROC
WAFFLE_NAMESPACE WAFFLE_POLL_INTERVAL WAFFLE_RECONCILE_INTERVAL WAFFLE_REDIS_CHANNEL
WAFFLE_REDIS_HOST WAFFLE_REDIS_PORT WAFFLE_REDIS_URL WAFFLE_STORE_URL WAFFLE_WATCHER_FILE
WAFFLE_WATCHTYPE""".split()  # noqa: SIM905  # a list would take 17 lines

WATCHTYPE = Literal["file", "redis", "postgres"]
SECONDS = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BYTES = Annotated[int, Field(gt=0)]
HOST = Annotated[str, Field(min_length=1)]
PORT = Annotated[int, Field(gt=0, lt=2**16)]
NAMESPACE = Annotated[str, Field(pattern="^[A-Za-z0-9_]{0,32}$")]
PREFIX = Annotated[str, Field(pattern="^([A-Za-z][A-Za-z0-9_]*)?$")]
NO_SETTING = "uwsgi_waffle: %s is no setting and has no effect. %s"


@dataclass(frozen=True)
class Watching:
    """Where processes and hosts meet; a mule without the application needs to know this, too."""

    watchtype: str
    watcher_file: Path
    channel_url: str = field(repr=False)  # it may hold a password
    channel_name: str

    @classmethod
    def read(cls, config: Mapping[str, Any], instance: Path) -> Watching:
        """Read the settings from a configuration or else from the process environment.

        Args:
            config: the application's, or an empty one.
            instance: the folder that relative paths are in. Links in it are followed, so that
                each process has the same path, however it was started.

        Raises:
            SchemaError: one of them can't be used; the text names it.
        """
        watchtype = _setting(config, "WAFFLE_WATCHTYPE", WATCHTYPE, "file")
        url = ""
        if watchtype == "redis":
            url = _redis_url(config)
        elif watchtype == "postgres":
            url = _setting(config, "WAFFLE_LISTEN_URL", str, "")
        file = _setting(config, "WAFFLE_WATCHER_FILE", Path, Path("waffle.watch"))
        watcher_file = instance / file
        if watcher_file.is_absolute():
            # Its last part isn't followed: the file itself must not be a link.
            watcher_file = resolve(watcher_file.parent) / watcher_file.name
        namespace = _setting(config, "WAFFLE_NAMESPACE", NAMESPACE, "")
        channel = _setting(config, "WAFFLE_REDIS_CHANNEL", str, "waffleconf")
        channel = f"{namespace}_{channel}" if namespace else channel
        return cls(watchtype, watcher_file, url, channel)

    @classmethod
    def from_environment(cls) -> Watching | None:
        """Return where a process without the application is to listen.

        ``None`` if the process environment doesn't say.
        """
        try:
            watching = cls.read({}, Path())
            multiproc = _setting({}, "WAFFLE_MULTIPROC", bool, True)
            store_url = _setting({}, "WAFFLE_STORE_URL", str, "")
        except SchemaError as error:
            log.warning("uwsgi_waffle: a mule can't read its environment: %s", error)
            return None
        watching = watching.beside_store(store_url)
        wanted = multiproc and watching.channel_url
        return watching if wanted and watching.watcher_file.is_absolute() else None

    def beside_store(self, url: str) -> Watching:
        """Return these settings for hosts that meet at their store, unless another URL is set."""
        if self.watchtype != "postgres" or self.channel_url or not url.startswith("postgres"):
            return self
        return replace(self, channel_url=libpq_url(url))


@dataclass(frozen=True)
class Settings:
    """The ``WAFFLE_*`` settings of one application."""

    confs: Any
    multiproc: bool
    watching: Watching
    store_url: str = field(repr=False)  # it may hold a password
    namespace: str
    env_prefix: str
    poll_interval: float
    reconcile_interval: float
    max_value_size: int
    instance: Path

    @classmethod
    def read(cls, app: Flask) -> Settings:
        """Read the settings of an application.

        Raises:
            SchemaError: one is missing or can't be used; the text names it.
        """
        config, instance = app.config, Path(app.instance_path)
        _warn_of_unknown(config)
        if "WAFFLE_CONFS" not in config:
            raise SchemaError(
                "app.config['WAFFLE_CONFS'] is missing. Declare the variables there before you "
                "give the application to WaffleConf."
            )
        return cls(
            confs=config["WAFFLE_CONFS"],
            multiproc=_setting(config, "WAFFLE_MULTIPROC", bool, True),
            watching=Watching.read(config, instance),
            store_url=_setting(config, "WAFFLE_STORE_URL", str, "sqlite:///waffle.db"),
            namespace=_setting(config, "WAFFLE_NAMESPACE", NAMESPACE, ""),
            env_prefix=_env_prefix(config),
            poll_interval=_setting(config, "WAFFLE_POLL_INTERVAL", SECONDS, 1.0),
            reconcile_interval=_setting(config, "WAFFLE_RECONCILE_INTERVAL", SECONDS, 30.0),
            max_value_size=_setting(config, "WAFFLE_MAX_VALUE_SIZE", BYTES, 2**20),
            instance=instance,
        )


class LateSettings:
    """Warns once of each ``WAFFLE_*`` that is set after the extension has read it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._read = {name: config[name] for name in config if _is_setting(name)}
        self._warned: set[str] = set()

    def warn(self, given: Mapping[str, Any]) -> None:
        """Warn of the settings among ``given`` that aren't as they were read."""
        late = {
            name
            for name, value in given.items()
            if _is_setting(name) and not (name in self._read and self._read[name] == value)
        }
        if new := sorted(late - self._warned):
            self._warned |= late
            log.warning(
                "uwsgi_waffle: app.config sets %s too late, so it has no effect. Set it "
                "before WaffleConf gets the application.",
                ", ".join(new),
            )


def _is_setting(name: object) -> bool:
    return str(name).startswith("WAFFLE_")


def _warn_of_unknown(config: Mapping[str, Any]) -> None:
    """Warn of settings that are misspelt.

    The environment may have others for other programs: Kubernetes names a service's address so.
    """
    unknown = [name for name in config if _is_setting(name) and name not in NAMES]
    for name in unknown:
        if config[name] != os.environ.get(name):
            log.warning(NO_SETTING, name, _closest(name, NAMES) or "Correct or remove it.")
    for name in filter(_is_setting, os.environ):  # where nobody can declare WAFFLE_CONFS
        if name not in NAMES and (hint := _closest(name, NAMES[1:])):
            log.warning(NO_SETTING, name, hint)


def _closest(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 1, cutoff=0.92)
    return f"Did you mean {close[0]}?" if close else ""


def _setting(config: Mapping[str, Any], name: str, wanted: Any, default: T) -> T:
    raw = config[name] if name in config else os.environ.get(name)
    if raw is None:
        return default
    if hasattr(raw, "render_as_string"):  # SQLAlchemy's URL, whose str() has no password
        raw = raw.render_as_string(hide_password=False)
    try:
        checked: T = TypeAdapter(wanted).validate_python(raw)
    except ValidationError as error:
        shown = "used" if name.endswith("_URL") else repr(raw)  # a URL may hold a password
        raise SchemaError(f"{name} can't be {shown}: {error.errors()[0]['msg']}.") from None
    return checked


def _env_prefix(config: Mapping[str, Any]) -> str:
    prefix = _setting(config, "WAFFLE_ENV_PREFIX", PREFIX, "")
    if prefix.startswith("WAFFLE_"):
        raise SchemaError("WAFFLE_ENV_PREFIX can't begin with WAFFLE_; take one as 'MYSITE_'.")
    return prefix


def _redis_url(config: Mapping[str, Any]) -> str:
    if url := _setting(config, "WAFFLE_REDIS_URL", str, ""):
        return url
    host = _setting(config, "WAFFLE_REDIS_HOST", HOST, "localhost")
    port = _setting(config, "WAFFLE_REDIS_PORT", PORT, 6379)
    return f"redis://{f'[{host}]' if ':' in host else host}:{port}"
