"""The Flask extension: one `WaffleConf`, any number of applications."""

from __future__ import annotations

import contextvars
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from blinker import Namespace
from flask import Flask, current_app, has_app_context, has_request_context, request

from . import server
from .bridge import Bridge
from .config import Settings, Watching, manage
from .errors import SchemaError, WaffleError
from .hostfiles import HostFiles
from .legacy import Preview, wanted_as_preview
from .plans import Plan, plan_reset, plan_rollback, plan_update
from .report import HistoryEntry, gauges, history, problems, status
from .schema import Schema
from .snapshot import Change, Snapshot
from .state import State, Unread, UpdateResult
from .stores import Decide, Store, Stored, open_store

__all__ = ["EXTENSION", "Binding", "WaffleConf", "config_changed"]

log = logging.getLogger("uwsgi_waffle")

EXTENSION = "waffleconf"
LOCK_TIMEOUT = 5.0  # seconds that a writer waits for another writer of this host

Hook = Callable[[Change], object]
Call = partial[Any]
H = TypeVar("H", bound=Hook)

config_changed = Namespace().signal(
    "waffle-config-changed",
    doc="Sent in every process that applies a change: sender is the application, ``change`` the `Change`.",
)

_numbers = itertools.count()
# Whether a signal or a thread of the package's own runs this: then nothing of the application's is
# under way in this thread.
_between_requests: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "uwsgi_waffle_between_requests", default=False
)
# LocalProxy's public way
_current_request: Callable[[], Any] = request._get_current_object  # type: ignore[attr-defined]


class Binding:
    """What one application has of the extension; it is ``app.extensions["waffleconf"]``.

    `parse_conf`, `update_db` and `update_conf` are Flask-WaffleConf's names for the same things.
    """

    def __init__(
        self, app: Flask, store: Store | None, hooks: list[tuple[frozenset[str], Hook]]
    ) -> None:
        settings = Settings.read(app)
        self.poll_interval = settings.poll_interval
        self.reconcile_interval = settings.reconcile_interval
        self.schema = Schema.declare(settings.confs)
        self._app = weakref.ref(app)
        self._hooks = hooks
        self.woken_by = (
            ""  # what tells this process of changes while it is idle: signal, thread, or nothing
        )
        self._waiting: Change | None = (
            None  # the one that was logged because its hooks have to wait
        )
        self._mule_knows = (
            False  # whether a mule of this instance knows where to listen, so that no worker has to
        )
        self._pin = (
            f"_uwsgi_waffle_{next(_numbers)}"  # the attribute of a request that holds its snapshot
        )
        store = (store or open_store(settings.store_url)).bind(
            frozenset(self.schema.variables), self._app_context
        )
        if wanted_as_preview():
            store = Preview(store, self.schema)
        self._settings = settings
        self._host: HostFiles | None = None
        self._bridge: Bridge | None = None
        self.state = self._open_state(State, store)

    def _open_state(self, kind: type[State], store: Store) -> State:
        watching = self._settings.watching
        self._host = (
            HostFiles(watching.watcher_file) if self._settings.multiproc and store.shared else None
        )
        self._bridge = self._build_bridge(watching)
        return kind(
            self.schema,
            store,
            self._host,
            kind=server.kind,
            announce=self._announce,
            follow=self._follow,
            publish=self._publish,
            lock_timeout=LOCK_TIMEOUT,
        )

    @property
    def watched(self) -> tuple[Path, ...]:
        """What uWSGI's master has to watch."""
        return (self._host.bell_folder, self._host.watch_file) if self._host else ()

    @property
    def generation(self) -> int:
        """A number that changes when what is watched was made anew."""
        return self._host.notes().generation if self._host else 0

    def attach(self) -> None:
        """Have this process, and those forked from it, woken whenever something may have changed."""
        if self._host is not None:
            server.attach(self)
            self._mule_knows = self._mule_knows or server.kind() is None
            self._follow()
            if server.is_born():
                self._stand()

    def tick(self) -> None:
        """Look whether something changed, and compare with the store when that is due; signals and
        the thread call it.
        """
        token = _between_requests.set(True)
        try:
            self.state.wake(self.reconcile_interval)
        finally:
            _between_requests.reset(token)
        self._stand()
        if server.shows_metrics():
            for name, value in gauges(self.state).items():
                server.show(name, value)

    def convert(self, decide: Decide) -> Stored:
        """Convert what the store itself holds, though this application may have been loaded with a
        `Preview` of it.

        Errors as in `WaffleConf.update`.
        """
        store = self.state.store
        state = self._open_state(Unread, store.store) if isinstance(store, Preview) else self.state
        return state.convert(decide)

    def leave(self) -> None:
        """Be no longer counted among the processes that follow changes."""
        self.state.leave()

    def _build_bridge(self, watching: Watching) -> Bridge | None:
        if self._host is None or watching.watchtype != "redis":
            return None
        try:
            self._mule_knows = Watching.from_environment() == watching
            channel = server.Channel(watching.redis_url, watching.redis_channel)
        except ImportError:
            if server.is_first():
                log.warning(
                    "uwsgi_waffle: WAFFLE_WATCHTYPE is 'redis' and redis-py isn't installed, so"
                    " only this host's processes tell each "
                    "other of changes. Run: pip install 'uwsgi_waffle[redis]'"
                )
            return None
        myself = weakref.ref(self)
        return Bridge(
            self._host, channel, needed=lambda: (me := myself()) is not None and me._may_listen()
        )

    def _stand(self) -> None:
        if self._bridge is not None and self._may_listen():
            self._bridge.stand()

    def _may_listen(self) -> bool:
        return server.may_listen(mule_knows=self._mule_knows)

    def status(self) -> dict[str, Any]:
        """Return what an operator wants to know, as JSON-able values."""
        redis = None if self._bridge is None else self._bridge.status()
        told = {
            "kind": server.kind(),
            "woken_by": self.woken_by,
            "watchtype": self._settings.watching.watchtype,
            "redis": redis,
        }
        return {**status(self.state), **told}

    def problems(self) -> list[str]:
        """Say what keeps this process from serving what the store holds; see `report.problems`."""
        return problems(self.state, self.reconcile_interval)

    def _publish(self) -> None:
        if self._bridge is not None:
            self._bridge.publish()

    def _follow(self) -> None:
        if self._host is not None:
            self.woken_by = server.follow(self)

    def current(self) -> Snapshot:
        """Return the snapshot that this request began with; outside a request, the newest."""
        if not has_request_context():
            return self.state.look()
        attributes = _current_request().__dict__
        snapshot = attributes.get(self._pin)
        if snapshot is None:
            snapshot = attributes[self._pin] = self.state.look()
        return cast(Snapshot, snapshot)

    def pin(self) -> None:
        """Give the request that begins its snapshot."""
        attributes = _current_request().__dict__
        if self._pin not in attributes:
            attributes[self._pin] = self.state.look()

    def move_on(self) -> Snapshot:
        """Let the present request, if there is one, go on with the newest snapshot."""
        if has_request_context():
            _current_request().__dict__.pop(self._pin, None)
        return Binding.current(self)  # without what `testing.override` lays over it

    def update(
        self,
        plan: Plan,
        expect_revision: int | None,
        actor: str | None,
        note: str | None,
        wait: float | None,
    ) -> UpdateResult:
        """Carry out an update and let the present request go on with it."""
        who, why = None if actor is None else str(actor), None if note is None else str(note)
        result = self.state.update(
            plan, expect_revision=expect_revision, actor=who, note=why, wait=wait
        )
        self.move_on()
        return result

    def parse_conf(self, keys: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the values of ``keys``, of all variables if there are none.

        Raises:
            UnknownVariable: one of them isn't declared.
        """
        values = self.current().values
        return {
            self.schema.variable(key).name: getattr(values, key)
            for key in keys or self.schema.variables
        }

    def update_db(self, values: Mapping[str, object]) -> UpdateResult:
        """Update the variables among ``values``; what isn't declared is left out with a warning."""
        unknown = sorted(key for key in values if key not in self.schema.variables)
        if unknown:
            log.warning(
                "uwsgi_waffle: update_db left out %s: not declared in WAFFLE_CONFS",
                ", ".join(map(repr, unknown)),
            )
        known = {key: value for key, value in values.items() if key in self.schema.variables}
        return self.update(plan_update(self.schema, known), None, None, None, None)

    def update_conf(self) -> None:
        """Read the store now."""
        self.state.refresh()
        self.move_on()

    def _announce(self, change: Change) -> bool:
        """Call the hooks; tell whether they have to wait, for no thread could be started for them."""
        calls: list[Call] = [
            partial(hook, change)
            for names, hook in self._hooks
            if not names or not names.isdisjoint(change.new)
        ]
        app = self._app()
        if app is not None and config_changed.receivers:
            calls += [
                partial(receiver, app, change=change)
                for receiver in config_changed.receivers_for(app)
            ]
        if not calls or app is None:
            return False
        if _between_requests.get():
            calls.append(
                partial(os.sched_yield)
            )  # all workers were woken at once: let each call its hooks before any goes on
            # In a context of its own: the hook sees the newest values.
            contextvars.Context().run(self._call_hooks, app, calls, change)
            return False
        # In a thread of its own: when an application context ends, Flask's teardown functions end
        # the sessions of the
        # thread that it ends in, and this one may be in the middle of using them.
        thread = threading.Thread(
            target=self._call_hooks_apart,
            args=(app, calls, change),
            name="uwsgi_waffle hooks",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            if change is not self._waiting:
                self._waiting = change
                log.error(
                    "uwsgi_waffle: the on_change hooks of revision %d have to wait: %s",
                    change.revision,
                    error,
                )
            return True
        thread.join()
        return False

    def _app_context(self) -> AbstractContextManager[object]:
        app = self._app()
        return nullcontext() if app is None else app.app_context()

    def _call_hooks_apart(self, app: Flask, calls: list[Call], change: Change) -> None:
        server.leave_signals_to_the_main_thread()
        self._call_hooks(app, calls, change)

    def _call_hooks(self, app: Flask, calls: list[Call], change: Change) -> None:
        try:
            with app.app_context():
                for call in calls:
                    try:
                        call()
                    except (
                        Exception,
                        SystemExit,
                    ):  # a hook mustn't stop the others, nor the process
                        log.exception(
                            "uwsgi_waffle: the on_change hook %r failed at revision %d",
                            call.func,
                            change.revision,
                        )
        except Exception:  # of the application's own, when the context ends
            log.exception(
                "uwsgi_waffle: a teardown function failed after the on_change hooks of revision %d",
                change.revision,
            )


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
        >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"desc": "Name in the page header", "default": "Waffle"}}
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
        self._bindings: weakref.WeakKeyDictionary[Flask, Binding] = weakref.WeakKeyDictionary()
        self._only: Binding | None = None
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
                f"{app.name!r} has a WaffleConf already. Call init_app once for an application; import that WaffleConf where it is needed."
            )
        binding = Binding(app, configstore or self._configstore, self._hooks)
        for names, _ in self._hooks:
            self._check_names(binding, names)
        manage(app.config, frozenset(binding.schema.variables), lambda: binding.current().values)
        app.before_request_funcs.setdefault(None, []).insert(0, binding.pin)
        app.extensions[EXTENSION] = binding
        self._bindings[app] = binding
        self._only = binding if len(self._bindings) == 1 else None
        binding.attach()

    @property
    def state(self) -> Binding:
        """The same as ``app.extensions["waffleconf"]``, by Flask-WaffleConf's name."""
        return self._binding()

    @property
    def values(self) -> Any:
        """The variables of this request's revision, outside a request the newest:
        ``values.SITENAME``, ``values["SITENAME"]``.

        Frozen. If ``WAFFLE_CONFS`` is a pydantic model, an instance of it.
        """
        return (self._only or self._binding()).current().values

    @property
    def revision(self) -> int:
        """The revision of `values`."""
        return self._binding().current().revision

    def update(
        self,
        values: Mapping[str, object],
        /,
        *,
        expect_revision: int | None = None,
        actor: str | None = None,
        note: str | None = None,
        wait: float | None = None,
    ) -> UpdateResult:
        """Change variables, all of them in one transaction and one revision, or none.

        When it returns, every request that any process of this host starts afterwards sees the new
        values.

        Args:
            values: new values by name.
            expect_revision: the revision that the caller has read; if the store has another,
                nothing is changed.
            actor: who changes them, for the history.
            note: why, for the history.
            wait: seconds to wait until all processes of this host have applied them, idle ones too.

        Raises:
            UnknownVariable: a name isn't declared.
            InvalidValue: with all values that are refused.
            RevisionConflict: somebody else was faster.
            StoreUnavailable: the store can't be written. If the connection broke in the middle of
                the commit, it may
                have been carried out; all processes then follow what the store has.
            StoreReadOnly: the store refuses to be written.
            HostBusy: another process of this host has been writing for too long.
            HostFilesError: the host's files can't be written, so nothing was committed.
        """
        binding = self._binding()
        return binding.update(
            plan_update(binding.schema, values), expect_revision, actor, note, wait
        )

    def reset(
        self,
        name: str,
        /,
        *names: str,
        expect_revision: int | None = None,
        actor: str | None = None,
        note: str | None = None,
        wait: float | None = None,
    ) -> UpdateResult:
        """Give variables their defaults back: a revision like any other. Arguments and errors as in
        `update`.
        """
        binding = self._binding()
        return binding.update(
            plan_reset(binding.schema, (name, *names)), expect_revision, actor, note, wait
        )

    def rollback(
        self,
        revision: int,
        *,
        expect_revision: int | None = None,
        actor: str | None = None,
        note: str | None = None,
        wait: float | None = None,
    ) -> UpdateResult:
        """Make the values of a former revision a new revision. Arguments and errors as in `update`.

        Raises:
            UnknownRevision: the history doesn't hold it.
        """
        binding = self._binding()
        told = f"rollback to revision {revision}" if note is None else note
        return binding.update(
            plan_rollback(binding.schema, binding.state.store, revision),
            expect_revision,
            actor,
            told,
            wait,
        )

    def refresh(self) -> int:
        """Read the store now, let this request go on with what it has, and return the revision.

        Raises:
            StoreUnavailable: it can't be read; what was served goes on being served.
            InvalidValue: it holds what the schema refuses; likewise.
        """
        binding = self._binding()
        binding.state.refresh()
        return binding.move_on().revision

    def history(self, limit: int = 20, key: str | None = None) -> list[HistoryEntry]:
        """Return the newest changes, newest first; of one variable if ``key`` is given. Secrets are
        masked.
        """
        return history(self._binding().state, limit, key)

    def status(self) -> dict[str, Any]:
        """Return revision, store, errors and the processes of this host, as JSON-able values; ages
        in seconds.
        """
        return self._binding().status()

    @overload
    def on_change(self, hook: H, /) -> H: ...

    @overload
    def on_change(self, *names: str) -> Callable[[H], H]: ...

    def on_change(self, *names: Any) -> Any:
        """Register a function that is called with the `Change` in every process that applies it.

        Without names it is called at every change. It runs within an application context of its
        own, in a thread of its own
        where a request or a script is under way in the present one; what it raises is logged.

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
        for binding in list(self._bindings.values()):
            self._check_names(binding, names)
        self._hooks.append((names, hook))
        return hook

    def _check_names(self, binding: Binding, names: frozenset[str]) -> None:
        for name in names:
            binding.schema.variable(name)

    def _binding(self) -> Binding:
        if self._only is not None:
            return self._only
        if has_app_context():
            # LocalProxy's public way
            app = current_app._get_current_object()  # type: ignore[attr-defined]
            if app in self._bindings:
                return self._bindings[app]
        if not self._bindings:
            raise WaffleError(
                "This WaffleConf has no application yet: call waffle.init_app(app) first."
            )
        raise WaffleError(
            "This WaffleConf serves several applications: use it within app.app_context() of "
            "one of them."
        )


def binding_of(app: Flask) -> Binding:
    """Return what an application has of the extension.

    Raises:
        SchemaError: it has none.
    """
    try:
        return cast(Binding, app.extensions[EXTENSION])
    except KeyError:
        raise SchemaError(
            f"{app.name!r} has no WaffleConf: call WaffleConf(app) where the application is made."
        ) from None
