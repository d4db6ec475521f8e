"""One application's part of the extension: ``app.extensions["waffleconf"]``."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from flask import Flask
from typing_extensions import Unpack

from . import unix, wake
from .barrier import Barrier
from .changes import Changeset, changes_for_update
from .conflicts import Conflicts
from .ending import Ending
from .errors import SchemaError
from .fetch import Fetcher
from .hooks import Hooks, Registered, between_requests
from .host import Alone, Host, HostFiles, ServerInfo, snapshot_id_in
from .on_update import Updates
from .overlay import Assigned
from .pins import read_pins
from .schema import Schema
from .served import Served, is_repairing
from .settings import Settings, Watching, check_config
from .snapshot import Change, Committed, Encoded, Snapshot
from .stores import Store, open_store
from .sync import Sync
from .update import CommitOptions, UpdateResult, Writer
from .view import View

__all__ = ["EXTENSION", "WaffleState", "state_of"]

log = logging.getLogger("uwsgi_waffle")

EXTENSION = "waffleconf"


class WaffleState:
    """What one application has of the extension.

    `parse_conf`, `update_db` and `update_conf` are Flask-WaffleConf's names for the same things.

    Attributes:
        schema: the declared variables.
        assigned: what tests have assigned in ``app.config``.
        store: where the values are.
        follows_store: whether other processes may change it.
        host: what the processes of the host share.
        served: what this process serves.
        sync: how it follows its host.
        view, current: what its code reads, see `View.current`.
        writer: writes updates.
        barrier: waits until they are applied.
        listener: talks to other hosts, if it is wanted.
        woken_by: what wakes this process while it is idle: ``signal``, ``thread`` or nothing.
    """

    def __init__(self, app: Flask, store: Store | None, registered: Registered) -> None:
        check_config(app.config)
        self.settings = Settings.read(app.config)
        self.watching = Watching.of(self.settings, Path(app.instance_path))
        self.poll_interval = self.settings.poll_interval
        self.reconcile_interval = self.settings.reconcile_interval
        declared = Schema.declare(app.config["WAFFLE_CONFS"], app.config)
        pins = read_pins(self.settings.env_prefix, declared.variables, os.environ)
        self.schema = declared.pinned(pins)
        self.assigned = Assigned(self.schema)
        self._app = weakref.ref(app)
        self.woken_by = ""
        self._mule_is_configured = False
        self._attached = self._warned_of_live = False
        self.store = self._open_store(store, Path(app.instance_path))
        self.host: Host = Alone()
        self.listener: wake.Listener | None = None
        self.follows_store = self.settings.multiproc and self.store.shared
        if self.follows_store:
            self._join_others(self.settings.store_url if store is None else "")
        self._change_hooks = Hooks(app, "change", registered.on_change)
        self._updates = Updates(self.schema, Hooks(app, "update", registered.on_update))
        self.served = Served(self.schema, self._call_hooks, repairing=is_repairing())
        conflicts = Conflicts(app.name, self.schema, self.store)
        fetcher = Fetcher(self.host, self.store, self.served, conflicts)
        self.sync = Sync(fetcher, self._ensure_watched, self._describe)
        self.view = View(self.sync, self.assigned, self.schema)
        self.current = self.view.current
        self._ending = Ending(self.served, self.write, self.reconcile_interval)
        self.writer = Writer(
            fetcher, self.sync, self._notify_hosts, max_value_size=self.settings.max_value_size
        )
        self.barrier = Barrier(self.host, self.sync, self.served, self.listener)

    def _open_store(self, given: Store | None, instance: Path) -> Store:
        store = open_store(self.settings.store_url) if given is None else given
        if not isinstance(store, Store):  # without its text: a URL may hold a password
            raise SchemaError(
                f"configstore must be a store, such as SQLStore(url), not {type(store).__name__}. "
                "A URL alone goes into WAFFLE_STORE_URL."
            )
        store = store.beside(instance)
        if self.settings.namespace:
            store = store.within(self.settings.namespace)
        names = self.schema.variables.keys() | self.schema.former_names.keys()
        return store.bind(frozenset(names), self._app_context)

    def _join_others(self, own_url: str) -> None:
        if not unix.PRESENT:
            self.reconcile_interval = self.poll_interval
            return
        watching = self.watching
        reference = weakref.ref(self)  # the listener's thread holds the host, and must not hold us
        self.host = host = HostFiles(
            watching.watcher_file,
            lambda: state.store.identity if (state := reference()) else "",
            self.store.file if own_url else None,  # a model's may have no engine yet
        )
        weakref.finalize(self, host.processes.leave)  # with the application, or at exit
        name = watching.channel_name
        if watching.watchtype == "postgres":
            self.store = self.store.notifying(name, lambda: str(host.notes().host_id))
            self.watching = watching = watching.beside_store(own_url or self.store.libpq_url)
        self._mule_is_configured = Watching.from_environment() == watching
        if watching.watchtype not in wake.CHANNELS:
            return

        def is_needed() -> bool:
            return bool((state := reference()) and state._can_subscribe())

        self.listener = wake.open_listener(
            host, watching.watchtype, watching.channel_url, name, is_needed=is_needed
        )

    @property
    def watched(self) -> tuple[Path, ...]:
        """What uWSGI's master has to monitor."""
        if not isinstance(self.host, HostFiles):
            return ()
        return (self.host.bell_folder.path, self.host.watch_file)

    def attach(self) -> None:
        """Have this process, and those forked from it, woken when something may have changed."""
        if not self.follows_store:
            return
        self._attached = True
        wake.attach(self)
        if wake.process_name() is None:  # uWSGI's master: its mules will have the application
            self._mule_is_configured = True
        self._ensure_watched()
        self.sync.start_reporting()
        if wake.is_forked():
            self._try_to_lead()

    def warn_if_live(self) -> None:
        """In a test: warn once if a running server uses the same store."""
        kinds = {process.kind for process in self.host.processes if process.pid != os.getpid()}
        servers = sorted(kind for kind in kinds if wake.server_of(kind))
        if servers and not self._warned_of_live:
            self._warned_of_live = True
            log.warning(
                "uwsgi_waffle: this is a test (app.testing), and it uses the store of a running "
                "server: %s. Set WAFFLE_STORE_URL to 'memory:' before WaffleConf gets the "
                "application, or each update changes that server.",
                ", ".join(servers),
            )

    def tick(self) -> None:
        """Follow the host, and read the store if that is due; signals and the thread call this."""
        with between_requests():
            self.sync.tick(self.reconcile_interval)
            self.expire()
        self._try_to_lead()
        if wake.has_metrics():
            wake.set_metric("waffle.revision", self.newest_published().revision)
            wake.set_metric("waffle.store_error", int(bool(self.host.notes().error)))

    def expire(self) -> None:
        """End the temporary values whose time has come."""
        self._ending.end_due(self.served.current.snapshot)

    def leave(self) -> None:
        """Stop being one of the processes that follow changes."""
        self.host.processes.leave()

    def newest_published(self) -> Snapshot | Encoded:
        """Return the newest values of this host, also if this process can't serve them."""
        snapshot = self.sync.latest()
        try:
            published = snapshot_id_in(self.host.words())
        except OSError:  # it can't be opened, which is this process's error
            return snapshot
        if published == snapshot.id:
            return snapshot
        return self.host.snapshots.read(published) or snapshot

    def assign(self, values: Mapping[str, object], /, *, testing: bool) -> None:
        """Give variables other values in this process; errors as in `Assigned.assign`."""
        self.assigned.assign(self.view.without_overrides(), values, testing=testing)

    def update(
        self,
        changeset: Changeset,
        *,
        wait: float | None = None,
        hosts: bool = False,
        **options: Unpack[CommitOptions],
    ) -> UpdateResult:
        """Write a change set as `write` does, and wait for others if asked to."""
        self.barrier.check(wait, hosts=hosts)
        made = self.write(changeset, **options)
        result = UpdateResult(made.revision, made.changed)
        return result if wait is None else self.barrier.wait_for(result, wait, hosts=hosts)

    def write(self, changeset: Changeset, **options: Unpack[CommitOptions]) -> Committed:
        """Write a change set, and let the present request or block go on with it."""
        made = self.writer.update(changeset, **options)
        self.view.advance_request()
        self._updates.dispatch(made)
        return made

    def parse_conf(self, keys: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the values of ``keys``, of all variables if there are none.

        Raises:
            UnknownVariable: one of them isn't declared.
        """
        values = self.current().values
        names = [self.schema.variable(key).name for key in keys or self.schema.variables]
        return {name: getattr(values, name) for name in names}

    def update_db(self, values: Mapping[str, object]) -> UpdateResult:
        """Update the declared variables among ``values``; warn of the others."""
        unknown = sorted(key for key in values if key not in self.schema.variables)
        if unknown:
            text = "uwsgi_waffle: update_db left out %s: not declared in WAFFLE_CONFS"
            log.warning(text, ", ".join(map(repr, unknown)))
        known = {key: values[key] for key in values.keys() & self.schema.variables.keys()}
        return self.update(changes_for_update(self.schema, known))

    def update_conf(self) -> None:
        """Read the store now."""
        self.sync.refresh()
        self.expire()
        self.view.advance_request()

    def _call_hooks(self, event: Change | Committed) -> None:
        """Call hooks with a change, or with an edit by hand that this process has recorded."""
        if isinstance(event, Change):
            self._change_hooks.call(event)
        else:
            self._notify_hosts()
            self._updates.dispatch(event)

    def _ensure_watched(self) -> None:
        if self._attached:
            self.woken_by = wake.ensure_watched(self)

    def _notify_hosts(self) -> None:
        if self.listener is not None:
            self.listener.notify_hosts()

    def _describe(self) -> ServerInfo:
        return {
            **wake.describe(),
            "uid": unix.geteuid(),
            "gids": unix.own_groups(),
            "woken_by": self.woken_by,
            "watchtype": self.watching.watchtype,
            "pinned": {name: pin.digest for name, pin in self.schema.pins.items()},
        }

    def _can_subscribe(self) -> bool:
        return wake.can_subscribe(mule_is_configured=self._mule_is_configured)

    def _try_to_lead(self) -> None:
        if self.listener is not None and self._can_subscribe():
            self.listener.try_to_lead()

    def _app_context(self) -> AbstractContextManager[object]:
        app = self._app()
        return nullcontext() if app is None else app.app_context()


def state_of(app: Flask) -> WaffleState:
    """Return what an application has of the extension.

    Raises:
        SchemaError: it has none.
    """
    try:
        return cast(WaffleState, app.extensions[EXTENSION])
    except KeyError:
        raise SchemaError(
            f"{app.name!r} has no WaffleConf: call WaffleConf(app) where the application is made."
        ) from None
