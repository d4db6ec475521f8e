"""What Prometheus reads, by its own parser."""

from __future__ import annotations

import subprocess
import sys
import time

from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from uwsgi_waffle import MemoryStore, WaffleConf
from uwsgi_waffle.host.header import WORDS_SIZE
from uwsgi_waffle.metrics import WaffleCollector

from ..host import eventually
from ..redis_server import RedisServer
from .conftest import ALWAYS, CONFS, Host, Process

OF_THE_HOST = (
    "store_revision",
    "processes",
    "processes_behind",
    "store_error",
    "store_check_age_seconds",
    "updates_total",
)


def scrape(waffle: WaffleConf) -> dict[str, float]:
    """Return each metric by its name without the prefix; all have help, a type, and no labels."""
    registry = CollectorRegistry()
    registry.register(WaffleCollector(waffle))
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            assert sample.labels == {}
            assert (family.type == "counter") == sample.name.endswith("_total")
            found[sample.name.removeprefix("uwsgi_waffle_")] = sample.value
    return found


def test_a_host_that_is_well(site: Process, other: Process) -> None:
    site.waffle.update({"LIMIT": 20})
    site.waffle.update({"LIMIT": 30})
    other.tick()
    for process in (site, other):
        metrics = scrape(process.waffle)
        assert tuple(metrics) == ("revision", *OF_THE_HOST)
        age = metrics.pop("store_check_age_seconds")
        assert age >= 0
        assert metrics == {
            "revision": 2,
            "store_revision": 2,
            "processes": 2,
            "processes_behind": 0,
            "store_error": 0,
            "updates_total": 3,  # the values at the start are the first that were shown
        }


def test_the_openmetrics_format_takes_it_too(site: Process) -> None:
    registry = CollectorRegistry()
    registry.register(WaffleCollector(site.waffle))
    families = {
        family.name for family in parse_openmetrics(generate_openmetrics(registry).decode())
    }
    assert families == {
        f"uwsgi_waffle_{name.removesuffix('_total')}" for name in ("revision", *OF_THE_HOST)
    }


def test_a_process_that_is_behind_is_seen_from_any(site: Process, neighbour: int) -> None:
    """Worker 9 stands in the table at a revision that isn't the newest."""
    metrics = scrape(site.waffle)
    assert (metrics["processes"], metrics["processes_behind"]) == (2, 1)
    assert {p["pid"]: p["behind"] for p in site.waffle.status()["processes"]}[neighbour]


def test_a_process_that_is_behind_tells_both_revisions(site: Process, host: Host) -> None:
    old = host.start(confs={**CONFS, "SITENAME": {"default": 0}})
    site.waffle.update({"SITENAME": "text"})
    metrics = scrape(old.waffle)
    assert (metrics["revision"], metrics["store_revision"], metrics["processes_behind"]) == (
        0,
        1,
        1,
    )


def test_a_store_that_is_down(host: Host) -> None:
    store = host.store()
    site = host.start(store, RECONCILE_INTERVAL=1.0)
    with site.files.lock(1) as header:
        header.set_notes(checked_at=time.monotonic_ns() - 90 * 10**9)
    store.failing = ALWAYS
    site.tick()
    metrics = scrape(site.waffle)
    assert metrics["store_error"] == 1
    assert metrics["store_check_age_seconds"] >= 90


def test_updates_are_counted_for_the_host_from_the_headers_beginning(
    site: Process, other: Process, host: Host
) -> None:
    """One for each revision, whoever makes it; none for an update that changes nothing. A new
    header begins anew.
    """
    before = scrape(site.waffle)["updates_total"]
    for number, process in enumerate((site, other, site), start=1):
        process.waffle.update({"LIMIT": 20 + number})
        process.waffle.update({"LIMIT": 20 + number})
    assert scrape(other.waffle)["updates_total"] == before + 3
    host.header.unlink()
    site.tick()
    assert scrape(site.waffle)["updates_total"] <= 1


def test_noise_in_the_header_is_a_number(site: Process, host: Host) -> None:
    """Whatever stands there, and an update goes on counting from it."""
    with host.header.open("r+b") as file:
        file.seek(WORDS_SIZE)
        file.write(b"\xff" * 8)
    assert scrape(site.waffle)["updates_total"] < 2**53
    site.waffle.update({"LIMIT": 20})
    assert scrape(site.waffle)["updates_total"] < 2**53


def test_redis_in_and_out_of_reach(host: Host, redis_server: RedisServer) -> None:
    site = host.start(WATCHTYPE="redis", REDIS_URL=redis_server.url)
    assert scrape(site.waffle)["redis_listener"] == 0, "none is elected before the first tick"
    site.tick()
    eventually(lambda: scrape(site.waffle)["redis_listener"])
    assert scrape(site.waffle)["redis_error"] == 0
    redis_server.kill()
    eventually(lambda: scrape(site.waffle)["redis_error"])


def test_what_is_not_shared_tells_its_revision() -> None:
    app = Flask("memory")
    app.config["WAFFLE_CONFS"] = CONFS
    waffle = WaffleConf()
    registry = CollectorRegistry(auto_describe=True)
    registry.register(WaffleCollector(waffle))  # before there is an application
    waffle.init_app(app, MemoryStore())
    waffle.update({"LIMIT": 20})
    assert scrape(waffle) == {"revision": 1, "store_revision": 1}
    assert b"uwsgi_waffle_revision 1.0" in generate_latest(registry)


def test_without_the_library_the_error_says_what_to_install() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; import uwsgi_waffle.metrics"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install 'uwsgi_waffle[prometheus]'" in done.stderr.splitlines()[-1]
