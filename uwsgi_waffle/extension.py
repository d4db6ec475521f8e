"""The Flask extension: one `WaffleConf`, any number of applications."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, overload

from flask import Flask
from typing_extensions import TypeVar, Unpack

from .applications import Applications
from .changes import changes_for_rollback, changes_for_update
from .config import Variables, install
from .errors import WaffleError
from .history import HistoryEntry, history
from .hooks import Hook, Registered, register
from .report import status
from .settings import LateSettings
from .state import EXTENSION, WaffleState
from .stores import Store
from .update import UpdateOptions, UpdateResult

__all__ = ["WaffleConf"]

H = TypeVar("H", bound=Hook)
#: The type of the values: the model in ``WAFFLE_CONFS``.
V = TypeVar("V", default=Any)


class WaffleConf(Generic[V]):
    """Variables of a Flask application that change while it runs, the same in all its processes.

    Args:
        app: the application; or call `init_app` later.
        configstore: where the values are kept. Default: ``WAFFLE_STORE_URL``, else a SQLite file in
            the instance folder.

    Example:
        >>> from flask import Flask
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> app = Flask(__name__)
        >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"desc": "Page title", "default": "Waffle"}}
        >>> waffle = WaffleConf(app, MemoryStore())
        >>> waffle.values.SITENAME
        'Waffle'
        >>> waffle.update({"SITENAME": "New"}, actor="ann").changed
        ('SITENAME',)
        >>> app.config["SITENAME"], waffle.revision
        ('New', 1)
    """

    def __init__(self, app: Flask | None = None, configstore: Store | None = None) -> None:
        self._configstore = configstore
        self._apps = Applications()
        self._registered = Registered()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, configstore: Store | None = None) -> None:
        """Give an application its variables.

        Raises:
            SchemaError: ``WAFFLE_CONFS`` or a setting can't be used.
            StoreUnavailable: the store can't be read, and this host has no snapshot of it.
            HostBusy: another process of this host holds its lock for too long.
            HostFilesError: the watch file or its folder can't be used.
            WaffleError: the application has the extension already, or isn't Flask's.
        """
        if not isinstance(app, Flask):
            raise WaffleError(
                f"WaffleConf serves flask.Flask applications, and {app!r} is a "
                f"{type(app).__module__}.{type(app).__qualname__}. Quart and other ASGI frameworks "
                "aren't supported; if this object wraps a Flask application, give that."
            )
        if EXTENSION in app.extensions:
            raise WaffleError(
                f"{app.name!r} has a WaffleConf already. Call init_app once for an application, "
                "and import that WaffleConf where it is needed."
            )
        state = WaffleState(app, configstore or self._configstore, self._registered)
        for names, _ in self._registered.on_change + self._registered.on_update:
            state.schema.check(names)
        variables = Variables(
            schema=state.schema,
            read=state.view.read,
            assign=state.assign,
            assigned=state.assigned,
            on_setting=LateSettings(app.config, on_testing=state.warn_if_live).check,
        )
        install(app, variables)
        # First, so that a name of the application's own wins.
        app.shell_context_processors.insert(0, lambda: {"waffle": self})
        app.extensions[EXTENSION] = state
        self._apps.add(app, state)
        state.attach()

    @property
    def state(self) -> WaffleState:
        """The same as ``app.extensions["waffleconf"]``, by Flask-WaffleConf's name."""
        return self._apps.state()

    @property
    def values(self) -> V:
        """The variables: ``values.SITENAME`` or ``values["SITENAME"]``. Frozen.

        In a request they are those of one revision, the newest at its first read. Outside a
        request they are the newest. If ``WAFFLE_CONFS`` is a pydantic model, an instance of it.
        """
        state = self._apps.single() or self._apps.state()
        return state.current().values  # type: ignore[return-value]  # V's values

    @property
    def latest(self) -> V:
        """The newest `values`, whatever revision the request or the block has.

        For what goes on when its request has ended: a stream, a websocket, a job in a thread.
        """
        return self._apps.state().view.latest().values  # type: ignore[return-value]  # V's values

    @contextmanager
    def snapshot(self) -> Iterator[V]:
        """Let all reads in this block see one revision: the request's, else the newest.

        `values`, `revision` and ``app.config`` agree. Only an `update` or a `refresh` within the
        block moves it on. A block within a block is part of it; other threads don't see it.

        Example:
            >>> from flask import Flask
            >>> from uwsgi_waffle import MemoryStore, WaffleConf
            >>> app = Flask(__name__)
            >>> app.config["WAFFLE_CONFS"] = {"LOW": {"default": 1}, "HIGH": {"default": 9}}
            >>> waffle = WaffleConf(app, MemoryStore())
            >>> with waffle.snapshot() as values:
            ...     values.LOW, app.config["HIGH"]
            (1, 9)
        """
        with self._apps.state().view.hold() as snapshot:
            yield snapshot.values  # type: ignore[misc]  # V's values

    @property
    def revision(self) -> int:
        """The revision of `values`."""
        return self._apps.state().current().revision

    def update(
        self, values: Mapping[str, object], /, **options: Unpack[UpdateOptions]
    ) -> UpdateResult:
        """Change variables, all of them in one transaction and one revision, or none.

        When it returns, every request that any process of this host starts sees the new values.

        Args:
            values: new values by name.
            expect_revision: the revision that the caller has read; if the store has another,
                nothing is changed.
            actor: who changes them, for the history.
            note: why, for the history.
            wait: seconds to wait until all processes of this host have applied them, idle ones too.
            expires: how long the new values count. Then those that were stored before come back,
                by actor ``expiry``, unless somebody has set the variable since; at most
                ``WAFFLE_RECONCILE_INTERVAL`` late.
            hosts: wait for all processes of all hosts that listen to other hosts.

        Raises:
            UnknownVariable: a name isn't declared.
            PinnedVariable: the environment pins it.
            TypeError: an argument is misspelt, or a revision or a time is no number.
            ValueError: ``expires`` isn't positive, or no date is so far away.
            InvalidValue: with all values that are refused.
            RevisionConflict: somebody else was faster.
            StoreUnavailable: the store can't be written. If the connection broke during the commit,
                it may have been carried out; all processes then follow the store.
            StoreReadOnly: the store refuses to be written.
            HostBusy: another process of this host has been writing for too long.
            HostFilesError: the host's files can't be written, so nothing was committed.
            WaffleError: ``hosts`` without ``wait``, or without a channel between hosts.
        """
        state = self._apps.state()
        return state.update(changes_for_update(state.schema, values), **options)

    def reset(self, name: str, /, *names: str, **options: Unpack[UpdateOptions]) -> UpdateResult:
        """Give variables their defaults back: a revision like any other.

        Keyword arguments and errors as in `update`.
        """
        state = self._apps.state()
        changeset = changes_for_update(state.schema, {}, reset=(name, *names))
        return state.update(changeset, **options)

    def rollback(self, revision: int, **options: Unpack[UpdateOptions]) -> UpdateResult:
        """Make the values of a former revision a new revision.

        Keyword arguments and errors as in `update`. The note says what it is if none is given.

        Raises:
            UnknownRevision: the history doesn't hold it.
        """
        state = self._apps.state()
        if options.get("note") is None:
            options["note"] = f"rollback to revision {revision}"
        return state.update(changes_for_rollback(state.schema, state.store, revision), **options)

    def refresh(self) -> int:
        """Read the store now, let this request go on with what it has, and return the revision.

        Raises:
            StoreUnavailable: it can't be read; what was served goes on being served.
            InvalidValue: it holds what the schema refuses; likewise.
        """
        state = self._apps.state()
        state.update_conf()
        return state.current().revision

    def history(self, limit: int = 20, key: str | None = None) -> list[HistoryEntry]:
        """Return the newest changes, newest first; of one variable if ``key`` is given.

        Secrets are masked.
        """
        return history(self._apps.state(), limit, key)

    def status(self, *, hosts: bool = False) -> dict[str, Any]:
        """Return revision, store, errors and the processes of this host; ages in seconds.

        The values can be written as JSON.

        Args:
            hosts: ask all hosts that listen, which takes a second at most. ``hosts`` are those that
                have answered, each as a `HostInfo`; ``hosts_subscribed`` is how many listen.

        Raises:
            WaffleError: ``hosts`` without a channel between hosts.
        """
        return status(self._apps.state(), hosts=hosts)

    @overload
    def on_change(self, hook: H, /) -> H: ...

    @overload
    def on_change(self, *names: str) -> Callable[[H], H]: ...

    def on_change(self, *names: Any) -> Any:
        """Register a function that is called with the `Change` in every process that applies it.

        Without names it is called at every change. It runs in an application context of its own,
        and in a thread of its own where a request or a script is under way. An exception is logged.

        Example:
            >>> from flask import Flask
            >>> from uwsgi_waffle import MemoryStore, WaffleConf
            >>> app = Flask(__name__)
            >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
            >>> waffle = WaffleConf(app, MemoryStore())
            >>> @waffle.on_change("SITENAME")
            ... def renamed(change):
            ...     print(change.revision, change.old["SITENAME"], change.new["SITENAME"])
            >>> result = waffle.update({"SITENAME": "New"})
            1 Waffle New

        Raises:
            UnknownVariable: a name isn't declared; at `init_app` if that comes later.
        """
        return register(self._registered.on_change, names, self._check)

    @overload
    def on_update(self, hook: H, /) -> H: ...

    @overload
    def on_update(self, *names: str) -> Callable[[H], H]: ...

    def on_update(self, *names: Any) -> Any:
        """Register a function that is called with the `Update` once, in the process that made it.

        It is called after the commit, and before `update` waits for other processes. Names,
        context, thread and errors are as for `on_change`. The process that finds an edit by hand
        calls it with the actor ``outside``. If a process dies between the commit and the call, or
        loses its connection during the commit, nobody calls it.

        Example:
            >>> from flask import Flask
            >>> from uwsgi_waffle import MemoryStore, WaffleConf
            >>> app = Flask(__name__)
            >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
            >>> waffle = WaffleConf(app, MemoryStore())
            >>> @waffle.on_update("SITENAME")
            ... def told(update):
            ...     print(update.revision, update.actor, update.new["SITENAME"])
            >>> result = waffle.update({"SITENAME": "New"}, actor="ann")
            1 ann New
        """
        return register(self._registered.on_update, names, self._check)

    def _check(self, names: frozenset[str]) -> None:
        for state in self._apps.states():
            state.schema.check(names)
