"""A collector for `prometheus_client`: one scrape of any worker reports the whole host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .errors import missing_library
from .extension import WaffleConf

try:
    from prometheus_client import Metric
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        ". ".join(missing_library("prometheus_client", "prometheus_client", "prometheus"))
    ) from error

__all__ = ["WaffleCollector"]

HELP = {
    "revision": "Revision that the answering process serves",
    "store_revision": "Newest revision that this host has read from the store",
    "processes": "Processes of this host that serve the variables",
    "processes_behind": "Processes of this host that serve another revision than the newest",
    "store_error": "Whether the last attempt to read the store failed",
    "store_check_age_seconds": "Seconds since this host last compared with the store",
    "listener": "Whether a process of this host listens to other hosts",
    "error": "Whether listening to other hosts fails",
    "hosts": "Hosts that listen",
    "hosts_answered": "Hosts that have described themselves",
    "host_revision": "Newest revision of a host",
    "host_processes": "Processes of a host",
    "host_processes_behind": "Processes of a host that lag",
    "host_errors": "Errors of a host",
}


class WaffleCollector(Collector):
    """Exports `WaffleConf.status`. All metrics but ``uwsgi_waffle_revision`` cover the whole host.

    Args:
        waffle: what it is about.
        hosts: ask all hosts at each scrape, which takes a second at most. One host's is enough.

    Register it beside a ``MultiProcessCollector`` as well, because it reports each process once.
    If the `WaffleConf` has several applications, collect in the application context of one.

    Example:
        >>> from flask import Flask
        >>> from prometheus_client import CollectorRegistry, generate_latest
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> from uwsgi_waffle.metrics import WaffleCollector
        >>> app = Flask(__name__)
        >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        >>> registry = CollectorRegistry()
        >>> registry.register(WaffleCollector(WaffleConf(app, MemoryStore())))
        >>> print(generate_latest(registry).decode().splitlines()[-1])
        uwsgi_waffle_store_revision 0.0
    """

    def __init__(self, waffle: WaffleConf, *, hosts: bool = False) -> None:
        self._waffle, self._hosts = waffle, hosts

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the collector can be registered before `WaffleConf.init_app`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; only the revisions if the store isn't shared with other processes."""
        status = self._waffle.status(hosts=self._hosts)
        yield _gauge("revision", status["revision"])
        yield _gauge("store_revision", status["newest"])
        if status["watcher_file"] is not None:
            yield from self._collect_host(status)
        if self._hosts and not status["hosts_error"]:
            yield from self._collect_hosts(status)

    def _collect_host(self, status: Mapping[str, Any]) -> Iterator[Metric]:
        processes, watchtype = status["processes"], status["watchtype"]
        yield _gauge("processes", len(processes))
        yield _gauge("processes_behind", sum(process["behind"] for process in processes))
        yield _gauge("store_error", bool(status["store_error"]))
        if status["store_checked"] is not None:
            yield _gauge("store_check_age_seconds", status["store_checked"])
        yield CounterMetricFamily(
            "uwsgi_waffle_updates",
            "Revisions published to the processes of this host",
            value=status["updates"],
        )
        if channel := status.get(watchtype):
            yield _gauge("listener", channel["listener"] is not None, of=f"{watchtype}_")
            yield _gauge("error", bool(channel["error"]), of=f"{watchtype}_")

    def _collect_hosts(self, status: Mapping[str, Any]) -> Iterator[Metric]:
        yield _gauge("hosts", status["hosts_subscribed"])
        yield _gauge("hosts_answered", len(status["hosts"]))
        for name in ("revision", "processes", "processes_behind", "errors"):
            metric = _gauge(f"host_{name}", labels=["host"])
            for host in status["hosts"]:
                value = host["behind" if name == "processes_behind" else name]
                metric.add_metric([host["name"]], len(value) if isinstance(value, list) else value)
            yield metric


def _gauge(
    name: str, value: float | None = None, *, of: str = "", labels: Sequence[str] | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"uwsgi_waffle_{of}{name}", HELP[name], value=value, labels=labels)
