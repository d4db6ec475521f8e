"""The extension's own settings, from ``app.config`` or else from the process environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
)

from .errors import SchemaError
from .privileges import resolve
from .urls import libpq_url

__all__ = ["LateSettings", "Settings", "Watching", "check_config"]

log = logging.getLogger("uwsgi_waffle")


def _url(given: Any) -> Any:
    """Return the text of a URL. That of SQLAlchemy's has no password."""
    is_sqlalchemys = hasattr(given, "render_as_string")
    return given.render_as_string(hide_password=False) if is_sqlalchemys else given


def _prefix(given: str) -> str:
    if given.startswith("WAFFLE_"):
        raise ValueError("names that begin with WAFFLE_ are the package's own; take 'MYSITE_'")
    return given


Url = Annotated[str, BeforeValidator(_url), Field(repr=False)]  # it may hold a password
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(gt=0, lt=2**16)]
Prefix = Annotated[str, Field(pattern="^([A-Za-z][A-Za-z0-9_]*)?$"), AfterValidator(_prefix)]


class Settings(BaseModel):
    """The ``WAFFLE_*`` settings of one application; ``WAFFLE_CONFS`` is none of them."""

    model_config = ConfigDict(frozen=True, alias_generator=lambda name: f"WAFFLE_{name.upper()}")

    env_prefix: Prefix = ""
    listen_url: Url = ""
    max_value_size: PositiveInt = 2**20
    multiproc: bool = True
    namespace: Annotated[str, Field(pattern="^[A-Za-z0-9_]{0,32}$")] = ""
    poll_interval: Seconds = 1.0
    reconcile_interval: Seconds = 30.0
    redis_channel: str = "waffleconf"
    redis_host: Annotated[str, Field(min_length=1)] = "localhost"
    redis_port: Port = 6379
    redis_url: Url = ""
    store_url: Url = "sqlite:///waffle.db"
    watcher_file: Path = Path("waffle.watch")
    watchtype: Literal["file", "redis", "postgres"] = "file"

    @classmethod
    def read(cls, config: Mapping[str, Any], but: Container[str] = ()) -> Settings:
        """Read the settings from a configuration or else from the process environment.

        Args:
            config: the configuration.
            but: names of those that keep their defaults.

        Raises:
            SchemaError: one can't be used; the text names it.
        """
        names = [name for name in NAMES if name not in but]
        given = {name: config[name] if name in config else os.environ.get(name) for name in names}
        if given["WAFFLE_WATCHTYPE"] != "redis" or given["WAFFLE_REDIS_URL"]:
            # Not used, and Kubernetes sets the port for a service that is called waffle-redis.
            given["WAFFLE_REDIS_HOST"] = given["WAFFLE_REDIS_PORT"] = None
        try:
            return cls.model_validate({k: v for k, v in given.items() if v is not None})
        except ValidationError as error:
            entry = error.errors()[0]
            name = str(entry["loc"][0])
            shown = "used" if name.endswith("_URL") else repr(entry["input"])
            reason = entry["msg"].removeprefix("Value error, ")
            raise SchemaError(f"{name} can't be {shown}: {reason}.") from None


NAMES = [str(field.alias) for field in Settings.model_fields.values()]
# What no mule needs; an application may override it.
THE_APPLICATIONS = (
    "WAFFLE_ENV_PREFIX",
    "WAFFLE_MAX_VALUE_SIZE",
    "WAFFLE_POLL_INTERVAL",
    "WAFFLE_RECONCILE_INTERVAL",
)


@dataclass(frozen=True)
class Watching:
    """Where processes and hosts meet; a mule without the application needs to know this, too."""

    watchtype: str
    watcher_file: Path
    channel_url: str = field(repr=False)  # it may hold a password
    channel_name: str

    @classmethod
    def of(cls, settings: Settings, instance: Path) -> Watching:
        """Return where the settings say.

        Args:
            settings: the application's, or those of the process environment.
            instance: the folder that relative paths are in. Links in it are followed, so that
                each process has the same path, however it was started.
        """
        host, url = settings.redis_host, ""
        if settings.watchtype == "redis":
            host = f"[{host}]" if ":" in host else host
            url = settings.redis_url or f"redis://{host}:{settings.redis_port}"
        elif settings.watchtype == "postgres":
            url = settings.listen_url
        watcher_file = instance / settings.watcher_file
        if watcher_file.is_absolute():
            # Its last part isn't followed: the file itself must not be a link.
            watcher_file = resolve(watcher_file.parent) / watcher_file.name
        prefix = settings.namespace and f"{settings.namespace}_"
        return cls(settings.watchtype, watcher_file, url, prefix + settings.redis_channel)

    @classmethod
    def from_environment(cls) -> Watching | None:
        """Return where a process without the application is to listen.

        ``None`` if the process environment doesn't say.
        """
        try:
            settings = Settings.read({}, but=THE_APPLICATIONS)
            watching = cls.of(settings, Path()).beside_store(settings.store_url)
        except SchemaError as error:
            log.warning("uwsgi_waffle: a mule can't read its environment: %s", error)
            return None
        wanted = settings.multiproc and watching.channel_url
        return watching if wanted and watching.watcher_file.is_absolute() else None

    def beside_store(self, url: str) -> Watching:
        """Return these settings for hosts that meet at their store, unless another URL is set."""
        if self.watchtype != "postgres" or self.channel_url or not url.startswith("postgres"):
            return self
        return replace(self, channel_url=libpq_url(url))


class LateSettings:
    """Warns once of each ``WAFFLE_*`` that is set after the extension has read it.

    Args:
        config: what it has read.
        on_testing: called when ``TESTING`` is set.
    """

    def __init__(self, config: Mapping[str, Any], *, on_testing: Callable[[], None]) -> None:
        self._on_testing = on_testing
        self._read = {name: config[name] for name in config if _is_setting(name)}
        self._warned: set[str] = set()

    def check(self, given: Mapping[str, Any]) -> None:
        """Look at what is being set."""
        if given.get("TESTING"):
            self._on_testing()
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


def check_config(config: Mapping[str, Any]) -> None:
    """Check that variables are declared, and warn of settings that are misspelt.

    The environment may have others for other programs: Kubernetes names a service's address so.

    Raises:
        SchemaError: nothing is declared.
    """
    if "WAFFLE_CONFS" not in config:
        raise SchemaError(
            "app.config['WAFFLE_CONFS'] is missing. Declare the variables there before you give "
            "the application to WaffleConf."
        )
    for name in dict.fromkeys((*config, *os.environ)):
        if not _is_setting(name) or name in ("WAFFLE_CONFS", *NAMES):
            continue
        is_own = name in config and config[name] != os.environ.get(name)
        known = ["WAFFLE_CONFS", *NAMES] if is_own else NAMES  # no environment declares variables
        close = get_close_matches(name, known, 1, cutoff=0.92)
        if close or is_own:
            log.warning(
                "uwsgi_waffle: %s is no setting and has no effect. %s",
                name,
                f"Did you mean {close[0]}?" if close else "Correct or remove it.",
            )
