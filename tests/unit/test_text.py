"""Text for terminals and logs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from flask import request

from uwsgi_waffle import Change, HostFilesError, InvalidValue, UnknownVariable, WaffleError
from uwsgi_waffle.text import escape_line, guard, to_json

from ..host import Process

HARMLESS = ["", "a b", "Brügge", "日本", "🧇", "a\\n"]
HARMFUL = ["a\nb", "\x1b[2J", "\r", "\x9b2J", "\u2028", "\u202e", "\x7f", "\ud800", "\U000e0001"]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_can_be_printed_stays_as_it_is(text: str) -> None:
    assert escape_line(text) == text
    assert to_json(text) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("text", HARMFUL, ids=ascii)
def test_what_can_not_be_printed_is_escaped(text: str) -> None:
    assert escape_line(text).isprintable()
    assert escape_line(f"Brügge{text}").startswith("Brügge")


@pytest.mark.parametrize("text", HARMLESS + HARMFUL, ids=ascii)
def test_json_stays_json(text: str) -> None:
    document = to_json({text: [text]}, indent=2)
    assert json.loads(document) == {text: [text]}
    assert all(line.isprintable() for line in document.split("\n"))


class TestLog:
    """A log line of the package is one line, and nothing in it moves a terminal's cursor."""

    @pytest.fixture
    def written(self) -> Iterator[io.StringIO]:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logger = logging.getLogger("uwsgi_waffle")
        logger.addHandler(handler)
        yield stream
        logger.removeHandler(handler)

    @pytest.mark.parametrize("text", HARMFUL, ids=ascii)
    def test_what_strangers_write_stays_within_its_line(
        self, written: io.StringIO, text: str
    ) -> None:
        logging.getLogger("uwsgi_waffle").warning("100 %%, %s, %d", f"a{text}b", 5)
        (line,) = written.getvalue().splitlines()
        assert line.isprintable()
        assert line.startswith("100 %, a")

    def test_a_line_end_in_an_error_looks_like_no_line_of_the_log(
        self, written: io.StringIO
    ) -> None:
        try:
            raise ValueError("a\nERROR forged\x1b[2J")
        except ValueError:
            logging.getLogger("uwsgi_waffle").exception("it failed")
        first, *others = written.getvalue().splitlines()
        assert first == "it failed"
        assert others[-1] == "  ERROR forged\\x1b[2J"
        assert all(line.startswith("  ") for line in others)

    def test_a_handler_that_fails_does_not_undo_what_is_logged(
        self, site: Process, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As one whose filter asks for the request. Else an update that is stored would fail."""

        def ask_for_the_request(record: logging.LogRecord) -> bool:
            return bool(request.url)

        def faulty(change: Change) -> None:
            raise ValueError("no")

        site.waffle.on_change(faulty)
        handler = logging.StreamHandler()
        handler.addFilter(ask_for_the_request)
        logging.getLogger().addHandler(handler)
        try:
            assert site.waffle.update({"LIMIT": 20}).revision == 1
        finally:
            logging.getLogger().removeHandler(handler)
        assert "return bool(request.url)" in capsys.readouterr().err

    def test_a_logger_of_the_applications_own_handles_it(self, written: io.StringIO) -> None:
        """As `logging.setLoggerClass` makes them."""

        class Marking(logging.Logger):
            def handle(self, record: logging.LogRecord) -> None:
                record.msg = f"MARKED {record.msg}"
                super().handle(record)

        logger = Marking("uwsgi_waffle")
        logger.handlers = logging.getLogger("uwsgi_waffle").handlers
        guard(logger)
        logger.error("it failed")
        assert written.getvalue() == "MARKED it failed\n"

    def test_a_harmless_line_keeps_its_template(self, caplog: pytest.LogCaptureFixture) -> None:
        """Collectors of errors group lines by it."""
        logging.getLogger("uwsgi_waffle").warning("%s is late", "Brügge")
        assert (caplog.records[0].msg, caplog.records[0].args) == ("%s is late", ("Brügge",))


@pytest.mark.parametrize("text", HARMFUL, ids=ascii)
def test_an_error_is_one_line_wherever_it_is_shown(text: str) -> None:
    """A server that can't start prints it in a traceback."""
    errors = [
        InvalidValue({f"a{text}b": "no JSON"}),
        UnknownVariable(f"a{text}b is not declared"),
        HostFilesError(f"a{text}b: Permission denied"),
    ]
    assert all(str(error).isprintable() for error in errors)
    assert str(WaffleError()) == ""
