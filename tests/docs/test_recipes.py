"""The recipes of docs/monitoring.md, with the present versions of those they are for."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from uwsgi_waffle import MemoryStore, WaffleConf
from uwsgi_waffle.logging import RevisionFilter

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"


def needs(module: str, distribution: str) -> pytest.MarkDecorator:
    """Skip a test whose package isn't installed."""
    return pytest.mark.skipif(
        importlib.util.find_spec(module.partition(".")[0]) is None,
        reason=f"{distribution} is not installed: pip install {distribution}",
    )


class Site:
    """An application at revision 1, and the page's recipe for one package."""

    def __init__(self, words: str, **names: Any) -> None:
        self.app = Flask("site")
        self.app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        self.waffle = WaffleConf(self.app, MemoryStore())
        self.waffle.update({"SITENAME": "Gent"})
        blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        (recipe,) = [block for block in blocks if words in block]
        known = {"app": self.app, "waffle": self.waffle, "RevisionFilter": RevisionFilter}
        exec(recipe, {**known, **names})


@needs("structlog", "structlog")
def test_structlog(capsys: pytest.CaptureFixture[str]) -> None:
    import structlog

    Site("import structlog")
    structlog.get_logger().info("sold out")
    assert json.loads(capsys.readouterr().out) == {"event": "sold out", "waffle_revision": 1}
    structlog.reset_defaults()


@needs("sentry_sdk", "sentry-sdk")
def test_sentry() -> None:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    sent: list[dict[str, Any]] = []

    class Collected(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            sent.append(envelope.get_event())

    Site("import sentry_sdk", SENTRY_DSN=None)
    options = sentry_sdk.get_client().options
    recipe = options["before_send"]
    sentry_sdk.init("http://key@sentry.example/1", transport=Collected(), before_send=recipe)
    sentry_sdk.capture_message("sold out")
    sentry_sdk.flush()
    sentry_sdk.init()
    assert [event["tags"] for event in sent] == [{"waffle_revision": 1}]


@needs("opentelemetry.sdk.trace", "opentelemetry-sdk")
def test_opentelemetry() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    site, exporter, provider = Site("from opentelemetry"), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("site").start_as_current_span("request"):
        site.app.test_client().get("/")
    (span,) = exporter.get_finished_spans()
    assert span.attributes == {"waffle.revision": 1}
    provider.shutdown()
