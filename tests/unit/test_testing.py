"""`uwsgi_waffle.testing.override`: other values within a block, for whoever is in it and nobody
else.
"""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import unittest
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, current_app
from pydantic import BaseModel, field_validator, model_validator

from uwsgi_waffle import (
    Change,
    InvalidValue,
    MemoryStore,
    SchemaError,
    UnknownVariable,
    WaffleConf,
    config_changed,
)
from uwsgi_waffle.testing import override

from .conftest import CONFS, Process

app = Flask("for the decorators")
app.config["WAFFLE_CONFS"] = CONFS
waffle = WaffleConf(app, MemoryStore())


class Limits(BaseModel):
    LOW: int = 1
    HIGH: int = 10
    NAME: str = "a"
    app: str = "a field may have any name"

    @field_validator("NAME")
    @classmethod
    def lower(cls, name: str) -> str:
        return name.lower()

    @model_validator(mode="after")
    def ordered(self) -> Limits:
        if self.LOW > self.HIGH:
            raise ValueError("LOW must not be above HIGH")
        return self


@pytest.fixture
def limits() -> Process:
    """An application whose variables are a model's."""
    app = Flask("limits")
    app.config["WAFFLE_CONFS"] = Limits
    return Process(app, WaffleConf(app, MemoryStore()))


def everywhere(site: Process, name: str = "SITENAME") -> set[Any]:
    """What is read in each way that there is, outside a request and in one."""

    def ways() -> list[Any]:
        with site.app.app_context():
            by_context = current_app.config[name]
        values, config = site.waffle.values, site.app.config
        ours = [
            values[name],
            getattr(values, name),
            config[name],
            config.get(name),
            dict(config.items())[name],
            by_context,
        ]
        return [*ours, site.state.parse_conf([name])[name]]

    with site.app.test_request_context():
        seen = ways()
    return {*seen, *ways()}


def test_every_way_of_reading_sees_it_and_the_store_does_not(site: Process, other: Process) -> None:
    """All but the value stays as it was: other processes, the revision, history and status."""
    site.waffle.update({"SITENAME": "stored"})
    before = site.waffle.revision, site.waffle.history(), site.waffle.status()["revision"]
    with override(site.app, SITENAME="x", LIMIT="20"):
        assert everywhere(site) == {"x"}
        assert everywhere(site, "LIMIT") == {20}  # as `update` would make it of the text
        assert everywhere(site, "TOKEN") == {""}
        assert everywhere(other) == {"stored"}
        assert (
            site.waffle.revision,
            site.waffle.history(),
            site.waffle.status()["revision"],
        ) == before
        assert site.waffle.values is site.waffle.values
    assert everywhere(site) == {"stored"}


def test_the_test_client_sees_it(site: Process) -> None:
    site.app.get("/")(lambda: site.waffle.values.SITENAME)
    client = site.app.test_client()
    with override(site.app, SITENAME="x"):
        assert client.get("/").text == "x"
    assert client.get("/").text == "Waffle"


def test_a_request_that_began_before_sees_it(site: Process, other: Process) -> None:
    """Only what is overridden; the rest stays that of the request's revision, also when the block
    is over.
    """
    with site.app.test_request_context():
        assert site.waffle.values.LIMIT == 10
        other.waffle.update({"SITENAME": "new", "LIMIT": 99})
        with override(site.app, SITENAME="x"):
            assert (
                site.waffle.values.SITENAME,
                site.waffle.values.LIMIT,
                site.waffle.revision,
            ) == ("x", 10, 0)
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Waffle", 10)


def test_a_request_that_begins_within_a_block_outlives_it(site: Process) -> None:
    with site.app.test_request_context():
        with override(site.app, SITENAME="x"):
            assert site.waffle.values.SITENAME == "x"
        assert site.waffle.values.SITENAME == "Waffle"


@pytest.mark.parametrize("in_request", [False, True])
def test_an_update_within_a_block_writes_what_it_was_asked(
    site: Process, other: Process, in_request: bool
) -> None:
    """Not the override; the overridden name keeps its value in the block, the other one has its new
    value.
    """
    changes: list[Change] = []
    site.waffle.on_change()(changes.append)
    seen_by_hook: list[Any] = []
    site.waffle.on_change()(lambda change: seen_by_hook.append(site.waffle.values.SITENAME))
    with ExitStack() as stack:
        if in_request:
            stack.enter_context(site.app.test_request_context())
        with override(site.app, SITENAME="x"):
            assert (
                site.waffle.values.SITENAME,
                site.waffle.values.LIMIT,
                site.waffle.revision,
            ) == ("x", 10, 0)
            assert site.waffle.update({"LIMIT": 20}, expect_revision=0).changed == ("LIMIT",)
            assert (
                site.waffle.values.SITENAME,
                site.waffle.values.LIMIT,
                site.waffle.revision,
            ) == ("x", 20, 1)
            assert (other.waffle.values.SITENAME, other.waffle.values.LIMIT) == ("Waffle", 20)
            assert site.waffle.update({"SITENAME": "stored"}).changed == ("SITENAME",)
            assert site.waffle.values.SITENAME == "x"
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("stored", 20)
    assert [(dict(change.old), dict(change.new)) for change in changes] == [
        ({"LIMIT": 10}, {"LIMIT": 20}),
        ({"SITENAME": "Waffle"}, {"SITENAME": "stored"}),
    ]
    assert seen_by_hook == ["Waffle", "stored"]


def test_nested_ones_combine(site: Process) -> None:
    with override(site.app, SITENAME="outer", LIMIT=1):
        with override(site.app, SITENAME="inner"):
            assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("inner", 1)
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("outer", 1)
    assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Waffle", 10)


def test_any_order_of_leaving(site: Process) -> None:
    first, second, third = (
        override(site.app, SITENAME="1", LIMIT=1),
        override(site.app, SITENAME="2"),
        override(site.app, SITENAME="3"),
    )
    for block in (first, second, third):
        block.__enter__()
    second.__exit__(None, None, None)
    assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("3", 1)
    first.__exit__(None, None, None)
    assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("3", 10)
    third.__exit__(None, None, None)
    assert site.waffle.values.SITENAME == "Waffle"


def test_one_object_serves_again_and_within_itself(site: Process) -> None:
    block = override(site.app, SITENAME="x")
    for _ in range(2):
        with block:
            with block:
                assert site.waffle.values.SITENAME == "x"
            assert site.waffle.values.SITENAME == "x"
        assert site.waffle.values.SITENAME == "Waffle"


def test_an_error_in_the_block_ends_it(site: Process) -> None:
    with pytest.raises(ZeroDivisionError), override(site.app, SITENAME="x"):
        raise ZeroDivisionError
    assert site.waffle.values.SITENAME == "Waffle"


def test_threads_see_their_own(site: Process) -> None:
    """All are in their blocks at the same time, and one in none; each sees what is its own. One
    object may serve them all.
    """
    together, shared = threading.Barrier(5), override(site.app, LIMIT=7)

    def read(number: int) -> tuple[Any, Any]:
        with ExitStack() as stack:
            if number:
                stack.enter_context(shared)
                stack.enter_context(override(site.app, SITENAME=f"thread {number}"))
            together.wait()
            seen = site.waffle.values.SITENAME, site.app.config["LIMIT"]
            together.wait()
        return seen

    with override(site.app, SITENAME="main"), ThreadPoolExecutor(5) as pool:
        found = list(pool.map(read, range(5)))
        assert site.waffle.values.SITENAME == "main"
    assert found == [("Waffle", 10), *((f"thread {number}", 7) for number in range(1, 5))]


def test_tasks_see_their_own_and_those_they_began_in(site: Process) -> None:
    """A task that outlives the block no longer sees it."""

    async def run() -> None:
        begun, over = asyncio.Event(), asyncio.Event()

        async def child(name: str) -> list[tuple[Any, Any]]:
            with override(site.app, SITENAME=name):
                begun.set()
                seen = [(site.waffle.values.SITENAME, site.waffle.values.LIMIT)]
                await over.wait()
                return [*seen, (site.waffle.values.SITENAME, site.waffle.values.LIMIT)]

        with override(site.app, LIMIT=5):
            tasks = [asyncio.create_task(child(name)) for name in "ab"]
            await begun.wait()
            await asyncio.sleep(0)
            assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Waffle", 5)
        over.set()
        assert await asyncio.gather(*tasks) == [[(name, 5), (name, 10)] for name in "ab"]

    asyncio.run(run())


def test_a_block_that_is_left_in_another_context(site: Process) -> None:
    """As a fixture of an asynchronous test may be."""
    block = override(site.app, SITENAME="x")
    entered = contextvars.copy_context()
    entered.run(block.__enter__)
    assert entered.run(lambda: site.waffle.values.SITENAME) == "x"
    block.__exit__(None, None, None)
    assert entered.run(lambda: site.waffle.values.SITENAME) == "Waffle"


def test_one_object_in_two_contexts(site: Process) -> None:
    """Each leaves the block that it has entered, though the other has entered later."""
    block, contexts = (
        override(site.app, SITENAME="x"),
        [contextvars.copy_context() for _ in range(2)],
    )
    for context in contexts:
        context.run(block.__enter__)
    contexts[0].run(block.__exit__, None, None, None)
    assert [context.run(lambda: site.waffle.values.SITENAME) for context in contexts] == [
        "Waffle",
        "x",
    ]
    contexts[1].run(block.__exit__, None, None, None)
    assert contexts[1].run(lambda: site.waffle.values.SITENAME) == "Waffle"


def test_only_the_given_application(site: Process, limits: Process) -> None:
    with override(site.app, SITENAME="x"), override(limits.app, LOW=3):
        assert (site.waffle.values.SITENAME, limits.waffle.values.LOW) == ("x", 3)
    with override(site.app, SITENAME="x"):
        assert everywhere(limits, "LOW") == {1}


def test_two_applications_of_one_extension() -> None:
    both, apps = WaffleConf(), [Flask(name) for name in "ab"]
    for each in apps:
        each.config["WAFFLE_CONFS"] = CONFS
        both.init_app(each, MemoryStore())
    with override(apps[0], SITENAME="x"):
        seen = []
        for each in apps:
            with each.app_context():
                seen.append(both.values.SITENAME)
    assert seen == ["x", "Waffle"]


def test_bad_ones_are_refused_before_the_block(site: Process) -> None:
    """With the errors of `update`; a secret is not shown."""
    ran: list[bool] = []
    for error, values in (
        (UnknownVariable, {"SITENAMES": "x"}),
        (InvalidValue, {"LIMIT": -5}),
        (InvalidValue, {"LIMIT": 1, "SITENAME": 2}),
    ):
        with pytest.raises(error), override(site.app, **values):
            ran.append(True)
        with pytest.raises(error):
            override(site.app, **values)(lambda: ran.append(True))()
    with pytest.raises(InvalidValue) as refused, override(site.app, TOKEN=["hunter2"]):
        ran.append(True)
    assert "hunter2" not in str(refused.value)
    assert ran == []
    assert site.waffle.values.SITENAME == "Waffle"


def test_an_application_without_the_extension() -> None:
    with pytest.raises(SchemaError, match="has no WaffleConf"), override(Flask("none"), X=1):
        pass


def test_a_models_validators_see_all_values(limits: Process) -> None:
    """Those that are in force, those of outer blocks, and those of the block; what they make of a
    value is what is read.
    """
    with override(limits.app, NAME="ABC", app="x"):
        assert (limits.waffle.values.NAME, limits.waffle.values.app) == ("abc", "x")
        assert isinstance(limits.waffle.values, Limits)
    with (
        pytest.raises(InvalidValue, match="LOW must not be above HIGH"),
        override(limits.app, LOW=11),
    ):
        pass
    with override(limits.app, HIGH=20):
        with override(limits.app, LOW=11):
            assert (limits.waffle.values.LOW, limits.waffle.values.HIGH) == (11, 20)
        with pytest.raises(InvalidValue), override(limits.app, LOW=21):
            pass
        assert limits.waffle.values.LOW == 1
    limits.waffle.update({"HIGH": 30})
    with override(limits.app, LOW=25):
        assert limits.waffle.values.LOW == 25


def test_an_update_that_the_override_does_not_fit(limits: Process) -> None:
    """The update succeeds, because the store knows no override; reading raises the error."""
    with override(limits.app, LOW=5):
        assert limits.waffle.update({"HIGH": 3}).revision == 1
        with pytest.raises(
            InvalidValue, match="override of LOW doesn't fit the values of revision 1"
        ):
            _ = limits.waffle.values
        assert limits.app.test_client().get("/").status_code == 404  # a request that reads nothing
        limits.waffle.update({"HIGH": 6})
        assert (limits.waffle.values.LOW, limits.waffle.values.HIGH) == (5, 6)
    assert limits.waffle.values.LOW == 1


def test_values_are_those_of_the_moment_of_entering(site: Process) -> None:
    """What happens to a list afterwards is nothing to the override, as with an update."""
    app = Flask("lists")
    app.config["WAFFLE_CONFS"] = {"LIST": {"default": [0]}, "N": {"default": 0}}
    waffle, given = WaffleConf(app, MemoryStore()), [1]
    with override(app, LIST=given):
        given.append(2)
        waffle.update({"N": 1})
        assert waffle.values.LIST == [1]


@override(app, SITENAME="decorated")
def test_a_decorated_test(tmp_path: object) -> None:
    """Its fixtures are those that it names."""
    assert tmp_path
    assert waffle.values.SITENAME == "decorated"


class TestMethods:
    @override(app, SITENAME="method")
    def test_a_decorated_method(self) -> None:
        assert waffle.values.SITENAME == "method"

    def test_its_neighbour(self) -> None:
        assert waffle.values.SITENAME == "Waffle"


@override(app, SITENAME="class")
class TestClass:
    test_data = "no function"

    @override(app, LIMIT=3)
    def test_all_its_methods(self) -> None:
        assert (waffle.values.SITENAME, waffle.values.LIMIT) == ("class", 3)

    @pytest.mark.parametrize("number", [1, 2])
    def test_another(self, number: int) -> None:
        assert (number, waffle.values.SITENAME) == (number, "class")

    @staticmethod
    def test_a_static_one() -> None:
        assert waffle.values.SITENAME == "class"

    def helper(self) -> Any:
        return waffle.values.SITENAME


def test_a_class_has_only_its_tests_decorated() -> None:
    assert TestClass().helper() == "Waffle"
    with pytest.raises(TypeError, match="no method of 'TestNothing'"):

        @override(app, SITENAME="x")
        class TestNothing:
            pass


@override(app, SITENAME="case")
class TestCase(unittest.TestCase):
    def test_a_case(self) -> None:
        assert waffle.values.SITENAME == "case"


class TestAsynchronous(unittest.IsolatedAsyncioTestCase):
    @override(app, SITENAME="asynchronous")
    async def test_a_coroutine(self) -> None:
        await asyncio.sleep(0)
        assert waffle.values.SITENAME == "asynchronous"


def test_a_coroutine_sees_it_until_its_end() -> None:
    @override(app, SITENAME="x")
    async def run() -> Any:
        await asyncio.sleep(0)
        return waffle.values.SITENAME

    async def both() -> tuple[Any, Any]:
        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        return waffle.values.SITENAME, await task

    assert asyncio.run(both()) == ("Waffle", "x")


def test_a_generator_is_refused() -> None:
    def generator() -> Iterator[None]:
        yield

    async def asynchronous() -> AsyncIterator[None]:
        yield

    for function in (generator, asynchronous):
        with pytest.raises(TypeError, match=r"write `with override\(…\):` around its yield"):
            override(app, SITENAME="x")(function)


def test_the_signal_tells_the_true_change(site: Process) -> None:
    received: list[Any] = []

    def receive(sender: Flask, change: Change) -> None:
        received.append(change.new["SITENAME"])

    with config_changed.connected_to(receive, sender=site.app), override(site.app, SITENAME="x"):
        site.waffle.update({"SITENAME": "x"})
    assert received == ["x"]


def test_it_needs_no_pytest() -> None:
    program = (
        "import sys, uwsgi_waffle.testing;"
        " print('pytest' in sys.modules, 'xprocess' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
