"""The Flask extension: one `WaffleConf`, any number of applications."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from flask import Flask, current_app, has_app_context
from typing_extensions import Unpack

from .changes import changes_for_reset, changes_for_rollback, changes_for_update
from .config import Variables, install
from .errors import WaffleError
from .hooks import Hook
from .report import HistoryEntry, history, status
from .state import EXTENSION, WaffleState, state_of
from .stores import Store
from .update import CommitOptions, UpdateOptions, UpdateResult

__all__ = ["WaffleConf"]

H = TypeVar("H", bound=Hook)


class WaffleConf:
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
        # Applications come and go: nothing here keeps one, or its state, alive.
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._single_app: Callable[[], WaffleState | None] = _none
        self._hooks: list[tuple[frozenset[str], Hook]] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, configstore: Store | None = None) -> None:
        """Give an application its variables.

        Raises:
            SchemaError: ``WAFFLE_CONFS`` or a setting can't be used.
            StoreUnavailable: the store can't be read, and this host has no snapshot of it.
            HostFilesError: the watch file or its folder can't be used.
            WaffleError: the application has the extension already.
        """
        if EXTENSION in app.extensions:
            raise WaffleError(
                f"{app.name!r} has a WaffleConf already. Call init_app once for an application, "
                "and import that WaffleConf where it is needed."
            )
        state = WaffleState(app, configstore or self._configstore, self._hooks)
        for names, _ in self._hooks:
            self._check_names(state, names)
        variables = Variables(
            schema=state.schema,
            current=lambda: state.current().values,
            assign=state.assign,
            assigned=state.assigned.names,
            forget=state.assigned.forget,
            on_testing=state.warn_if_live,
        )
        install(app, variables)
        app.extensions[EXTENSION] = state
        self._apps.add(app)
        self._single_app = weakref.ref(state) if len(self._apps) == 1 else _none
        state.attach()
        if app.config.get("TESTING"):
            state.warn_if_live()

    @property
    def state(self) -> WaffleState:
        """The same as ``app.extensions["waffleconf"]``, by Flask-WaffleConf's name."""
        return self._state()

    @property
    def values(self) -> Any:
        """The variables: ``values.SITENAME`` or ``values["SITENAME"]``. Frozen.

        In a request they are those of one revision, the newest at its first read. Outside a
        request they are the newest. If ``WAFFLE_CONFS`` is a pydantic model, an instance of it.
        """
        return (self._single_app() or self._state()).current().values

    @property
    def revision(self) -> int:
        """The revision of `values`."""
        return self._state().current().revision

    def update(
        self,
        values: Mapping[str, object],
        /,
        *,
        expect_revision: int | None = None,
        actor: str | None = None,
        note: str | None = None,
        wait: float | None = None,
        hosts: bool = False,
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
            hosts: wait for all processes of all hosts that listen to other hosts.

        Raises:
            UnknownVariable: a name isn't declared.
            InvalidValue: with all values that are refused.
            RevisionConflict: somebody else was faster.
            StoreUnavailable: the store can't be written. If the connection broke during the commit,
                it may have been carried out; all processes then follow the store.
            StoreReadOnly: the store refuses to be written.
            HostBusy: another process of this host has been writing for too long.
            HostFilesError: the host's files can't be written, so nothing was committed.
            WaffleError: ``hosts`` without ``wait``, or without a channel between hosts.
        """
        state = self._state()
        changeset = changes_for_update(state.schema, values)
        commit = CommitOptions(expect_revision=expect_revision, actor=actor, note=note)
        return state.update(changeset, wait=wait, hosts=hosts, **commit)

    def reset(self, name: str, /, *names: str, **options: Unpack[UpdateOptions]) -> UpdateResult:
        """Give variables their defaults back: a revision like any other.

        Keyword arguments and errors as in `update`.
        """
        state = self._state()
        return state.update(changes_for_reset(state.schema, (name, *names)), **options)

    def rollback(self, revision: int, **options: Unpack[UpdateOptions]) -> UpdateResult:
        """Make the values of a former revision a new revision.

        Keyword arguments and errors as in `update`. The note says what it is if none is given.

        Raises:
            UnknownRevision: the history doesn't hold it.
        """
        state = self._state()
        if options.get("note") is None:
            options["note"] = f"rollback to revision {revision}"
        return state.update(changes_for_rollback(state.schema, state.store, revision), **options)

    def refresh(self) -> int:
        """Read the store now, let this request go on with what it has, and return the revision.

        Raises:
            StoreUnavailable: it can't be read; what was served goes on being served.
            InvalidValue: it holds what the schema refuses; likewise.
        """
        state = self._state()
        state.sync.refresh()
        return state.advance_request().revision

    def history(self, limit: int = 20, key: str | None = None) -> list[HistoryEntry]:
        """Return the newest changes, newest first; of one variable if ``key`` is given.

        Secrets are masked.
        """
        return history(self._state(), limit, key)

    def status(self, *, hosts: bool = False) -> dict[str, Any]:
        """Return revision, store, errors and the processes of this host; ages in seconds.

        The values can be written as JSON.

        Args:
            hosts: ask all hosts that listen, which takes a second at most. ``hosts`` are those that
                have answered, each as a `HostInfo`; ``hosts_subscribed`` is how many listen.

        Raises:
            WaffleError: ``hosts`` without a channel between hosts.
        """
        return status(self._state(), hosts=hosts)

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
        if len(names) == 1 and callable(names[0]):
            return self._register(frozenset(), names[0])
        return lambda hook: self._register(frozenset(names), hook)

    def _register(self, names: frozenset[str], hook: H) -> H:
        for app in list(self._apps):
            self._check_names(state_of(app), names)
        self._hooks.append((names, hook))
        return hook

    def _check_names(self, state: WaffleState, names: frozenset[str]) -> None:
        for name in names:
            state.schema.variable(name)

    def _state(self) -> WaffleState:
        state = self._single_app()
        if state is not None:
            return state
        apps = list(self._apps)
        if has_app_context():
            # LocalProxy's public way
            app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
            if app in apps:
                return state_of(app)
        if len(apps) == 1:  # the others are gone
            state = state_of(apps[0])
            self._single_app = weakref.ref(state)
            return state
        if not apps:
            raise WaffleError(
                "This WaffleConf has no application yet: call waffle.init_app(app) first."
            )
        raise WaffleError(
            "This WaffleConf serves several applications: use it within app.app_context() of "
            "one of them."
        )


def _none() -> None:
    """Stand for the state of the only application where there isn't just one."""
