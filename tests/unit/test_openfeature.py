"""`WaffleProvider`, seen through the OpenFeature SDK."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field

from ..host import Host, Process, eventually

api = pytest.importorskip("openfeature.api")
exception = pytest.importorskip("openfeature.exception")
event = pytest.importorskip("openfeature.event")
provider = pytest.importorskip("uwsgi_waffle.openfeature")


class Level(enum.Enum):
    LOW = "low"


CONFS: dict[str, Any] = {
    "OPEN": {"default": False},
    "NAME": {"default": "Waffle"},
    "LIMIT": {"default": 10},
    "RATE": {"default": 0.5},
    "NAMES": {"default": ["a"]},
    "TABLE": {"default": {"a": 1}},
    "DAY": {"default": datetime(2026, 1, 1)},
    "LEVEL": {"default": Level.LOW},
    "MAYBE": {"default": None, "type": str | None},
    "TOKEN": {"default": "geheim", "secret": True},
}


@pytest.fixture
def site(host: Host) -> Process:
    return host.start(confs=CONFS)


@pytest.fixture
def other(host: Host, site: Process) -> Process:
    return host.start(confs=CONFS)


@pytest.fixture
def client(site: Process) -> Iterator[Any]:
    api.set_provider(provider.WaffleProvider(site.waffle))
    yield api.get_client()
    api.clear_providers()


class TestValues:
    @pytest.mark.parametrize(
        ("kind", "name", "default", "new"),
        [
            ("boolean", "OPEN", False, True),
            ("string", "NAME", "Waffle", "New"),
            ("string", "DAY", "2026-01-01T00:00:00", "2026-02-01T00:00:00"),
            ("string", "LEVEL", "low", "low"),
            ("integer", "LIMIT", 10, 20),
            ("float", "RATE", 0.5, 1.5),
            ("float", "LIMIT", 10.0, 20.0),
            ("object", "NAMES", ["a"], ["b"]),
            ("object", "TABLE", {"a": 1}, {"b": [2]}),
        ],
    )
    def test_value_reason_and_revision(
        self, site: Process, client: Any, kind: str, name: str, default: Any, new: Any
    ) -> None:
        resolve = getattr(client, f"get_{kind}_details")
        other_default = {"boolean": True, "string": "", "integer": 0, "float": 0.0, "object": {}}
        before = resolve(name, other_default[kind])
        assert (before.value, before.reason) == (default, "DEFAULT")
        assert (before.flag_metadata, before.error_code) == ({"revision": 0}, None)
        site.waffle.update({name: new})
        after = resolve(name, other_default[kind])
        assert (after.value, type(after.value)) == (new, type(new))
        assert (after.reason, after.flag_metadata) == ("STATIC", {"revision": 1})

    def test_no_value_is_the_callers_default(self, site: Process, client: Any) -> None:
        found = client.get_string_details("MAYBE", "mine")
        assert (found.value, found.reason, found.error_code) == ("mine", "DEFAULT", None)
        site.waffle.update({"MAYBE": "set"})
        assert client.get_string_value("MAYBE", "mine") == "set"

    def test_a_request_sees_one_revision(self, site: Process, other: Process, client: Any) -> None:
        with site.app.test_request_context():
            assert client.get_boolean_value("OPEN", True) is False
            other.waffle.update({"OPEN": True})
            assert client.get_boolean_value("OPEN", True) is False
        assert client.get_boolean_value("OPEN", False) is True


class TestErrors:
    def test_what_is_not_declared_is_not_found(self, client: Any) -> None:
        found = client.get_boolean_details("OPNE", True)
        assert (found.value, found.reason) == (True, "ERROR")
        assert found.error_code == exception.ErrorCode.FLAG_NOT_FOUND
        assert "'OPNE' is not declared" in found.error_message

    def test_a_secret_is_not_found(self, client: Any) -> None:
        """Hooks of OpenFeature write values into traces."""
        found = client.get_string_details("TOKEN", "")
        assert (found.value, found.error_code) == ("", exception.ErrorCode.FLAG_NOT_FOUND)
        assert "geheim" not in str(found)

    @pytest.mark.parametrize(
        ("kind", "name", "default"),
        [
            ("boolean", "LIMIT", True),
            ("string", "OPEN", "x"),
            ("integer", "OPEN", 5),
            ("integer", "RATE", 5),
            ("integer", "NAME", 5),
            ("float", "OPEN", 5.0),
            ("float", "NAME", 5.0),
            ("object", "NAME", {}),
        ],
    )
    def test_another_type_is_a_mismatch(
        self, client: Any, kind: str, name: str, default: object
    ) -> None:
        found = getattr(client, f"get_{kind}_details")(name, default)
        assert (found.value, found.reason) == (default, "ERROR")
        assert found.error_code == exception.ErrorCode.TYPE_MISMATCH


class TestEvents:
    def test_a_change_by_another_process_is_an_event(
        self, site: Process, other: Process, client: Any
    ) -> None:
        heard: list[Any] = []
        api.add_handler(event.ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, heard.append)
        other.waffle.update({"OPEN": True, "LIMIT": 20, "TOKEN": "neu"})
        site.tick()
        eventually(lambda: bool(heard))  # another thread may be calling the hooks
        (details,) = heard
        assert details.flags_changed == ["LIMIT", "OPEN"]
        assert details.metadata == {"revision": 1}
        assert details.provider_name == "uwsgi_waffle"
        api.remove_handler(event.ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, heard.append)

    def test_a_provider_that_was_replaced_is_silent(self, site: Process, client: Any) -> None:
        heard: list[Any] = []
        api.clear_providers()
        api.add_handler(event.ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, heard.append)
        site.waffle.update({"OPEN": True})
        assert heard == []


def test_a_deprecated_variable_warns_nobody(host: Host) -> None:
    """A warning would be an error here, and an error gives the caller's default."""

    class Confs(BaseModel):
        OLD: bool = Field(default=True, deprecated="use NEW")

    api.set_provider(provider.WaffleProvider(host.start(confs=Confs).waffle))
    assert api.get_client().get_boolean_value("OLD", False)
    api.clear_providers()


def test_without_the_sdk_the_error_says_what_to_install() -> None:
    program = "import sys; sys.modules['openfeature'] = None; import uwsgi_waffle.openfeature"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Run: pip install 'uwsgi_waffle[openfeature]'" in done.stderr
