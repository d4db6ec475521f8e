"""The admin page with 60 and with 500 variables of every kind, in a real browser."""

from __future__ import annotations

import datetime as dt
import enum
import os
import re
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Literal

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect
from pydantic import BaseModel, Field, HttpUrl, SecretStr, create_model
from werkzeug.serving import make_server

from uwsgi_waffle import MemoryStore, WaffleConf
from uwsgi_waffle.admin import admin_blueprint

GROUPS = ("Site", "Uploads", "Mail", "Payment", "Search", "Experiments")
NOON = dt.datetime(2026, 11, 27, 12, 0)


class Mode(str, enum.Enum):
    FAST = "fast"
    SAFE = "safe"


#: Of each kind: the name, the type, the default, the title.
KINDS: tuple[tuple[str, Any, Any, str], ...] = (
    ("NAME", str, "Waffle", "Name of the site"),
    ("LIMIT", int, 10, "Largest upload (MB)"),
    ("OPEN", bool, True, "Uploads are accepted"),
    ("DAY", dt.date, dt.date(2026, 1, 2), "First day"),
    ("TIME", dt.time, dt.time(9, 30), "Opening time"),
    ("AT", dt.datetime, NOON, "Maintenance at"),
    ("TIMEOUT", dt.timedelta, dt.timedelta(minutes=30), "Longest wait"),
    ("PRICE", Decimal, Decimal("12.50"), "Price (EUR)"),
    ("QUOTA", int | None, 5, "Quota (files)"),
    ("BANNER", str | None, None, ""),
    ("METHODS", list[Literal["card", "cash", "invoice"]], ["card"], "Methods"),
    ("MODE", Mode, Mode.FAST, "Mode"),
    ("BETA", bool | None, None, "Beta"),
    ("HOOK", HttpUrl, "https://hooks.example/in", "Webhook"),
    ("RULES", dict[str, Any], {"a": [1, 2], "b": {"c": "x" * 200}}, "Rules"),
    ("STORY", str, "A long text. " * 40, "Story"),
    ("KEY", SecretStr, SecretStr(""), "Key"),
    ("UNTOUCHED", int, 1, "Fixed"),
)


class Site:
    """The page, served by a thread of this process; `waffle` changes and reads the same store."""

    def __init__(self, number: int, fixed: frozenset[str] = frozenset()) -> None:
        app = Flask("many")
        app.config.update(SECRET_KEY="of the test", WAFFLE_CONFS=self._model(number))
        self.waffle = WaffleConf(app, MemoryStore())
        app.register_blueprint(
            admin_blueprint(
                self.waffle, authorize=lambda: "ann", may_change=lambda name: name not in fixed
            )
        )
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @staticmethod
    def _model(number: int) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for position in range(number):
            name, annotation, default, title = KINDS[position % len(KINDS)]
            group = GROUPS[position * len(GROUPS) // number]
            fields[f"{name}_{position // len(KINDS)}"] = (
                annotation,
                Field(
                    default,
                    title=title or None,
                    description="What it is for, in a sentence of a usual length",
                    json_schema_extra={"group": group},
                ),
            )
        return create_model("Many", **fields)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


Start = Callable[..., Site]
Visit = Callable[..., Page]


@pytest.fixture
def start() -> Iterator[Start]:
    sites: list[Site] = []

    def start(number: int = 60, *, fixed: frozenset[str] = frozenset()) -> Site:
        sites.append(Site(number, fixed))
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without JavaScript"])
def scripts(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open the page; an error of its script fails the test."""
    contexts, complaints = [], []

    def visit(
        site: Site, query: str = "", *, scripts: bool = True, width: int = 1100, **options: Any
    ) -> Page:
        context = browser.new_context(
            base_url=site.url,
            java_script_enabled=scripts,
            viewport={"width": width, "height": 844},
            reduced_motion="reduce",
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"/waffle/{query}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def control(page: Page, name: str) -> Any:
    return page.locator(f"#value-{name}")


def open_all(page: Page) -> None:
    closed = page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()


def save(page: Page) -> None:
    button = page.get_by_role("button", name=re.compile("^Save"))
    if button.last.get_attribute("name") == "preview":
        with page.expect_navigation():
            button.last.click()
        expect(page.get_by_text("Not saved yet")).to_be_visible()
    button.first.click()
    expect(page.locator(".notice.good")).to_contain_text("Saved as revision")


def test_every_kind_of_input(start: Start, visit: Visit, scripts: bool) -> None:
    """What is typed is stored; what isn't touched isn't in the update."""
    site = start()
    page = visit(site, scripts=scripts)
    open_all(page)
    control(page, "LIMIT_0").fill("20")
    page.locator("#value-OPEN_0").uncheck()
    control(page, "DAY_0").fill("2026-12-24")
    control(page, "TIME_0").fill("10:15")
    control(page, "AT_0").fill("2026-12-24T18:00")
    control(page, "TIMEOUT_0").fill("1 day 02:30:00")
    control(page, "PRICE_0").fill("8259.488927008254")
    page.locator("[name=none-QUOTA_0]").check()
    page.locator("[name=none-BANNER_0]").uncheck()
    control(page, "BANNER_0").fill("null")
    page.locator("[name=item-METHODS_0]").nth(2).check()
    control(page, "MODE_0").select_option("safe")
    control(page, "BETA_0").select_option(label="off")
    control(page, "HOOK_0").fill("https://b.example/")
    control(page, "RULES_0").fill('{"a": []}')
    save(page)
    values = site.waffle.values
    assert {entry.key: getattr(values, entry.key) for entry in site.waffle.history(100)} == {
        "LIMIT_0": 20,
        "OPEN_0": False,
        "DAY_0": dt.date(2026, 12, 24),
        "TIME_0": dt.time(10, 15),
        "AT_0": dt.datetime(2026, 12, 24, 18, 0),
        "TIMEOUT_0": dt.timedelta(days=1, hours=2, minutes=30),
        "PRICE_0": Decimal("8259.488927008254"),
        "QUOTA_0": None,
        "BANNER_0": "null",
        "METHODS_0": ["card", "invoice"],
        "MODE_0": Mode.SAFE,
        "BETA_0": False,
        "HOOK_0": HttpUrl("https://b.example/"),
        "RULES_0": {"a": []},
    }
    assert site.waffle.revision == 1


@pytest.mark.parametrize("number", [60, 500])
def test_a_page_that_nobody_has_touched_has_no_changes(
    start: Start, visit: Visit, number: int
) -> None:
    """Whatever a browser makes of the values that it is shown."""
    page = visit(start(number))
    expect(page.get_by_role("button", name=re.compile("^Save"))).to_have_text("Save")
    expect(page.locator(".variable.edited")).to_have_count(0)


def test_what_a_save_will_change_is_beside_the_button(start: Start, visit: Visit) -> None:
    """While it is typed, with JavaScript; a group says how many edits it has."""
    site = start(500, fixed=frozenset({"UNTOUCHED_0"}))
    page = visit(site)
    open_all(page)
    expect(page.locator("#preview")).to_be_hidden()
    control(page, "NAME_0").fill("Gent")
    page.locator("#value-OPEN_1").uncheck()
    page.locator("[name=item-METHODS_0]").nth(1).check()
    page.locator("[name=none-QUOTA_0]").check()
    control(page, "BANNER_2").fill("Hello")
    expect(page.locator("#changes li")).to_have_count(5)
    texts = [" ".join(text.split()) for text in page.locator("#changes li").all_inner_texts()]
    changed = [text.partition(": ")[2].replace(" becomes", "") for text in texts]
    assert changed == [
        "Waffle → Gent",
        "5 → no value",
        "card → card, cash",
        "on → off",
        "no value → Hello",
    ]
    expect(page.get_by_role("button", name="Save 5 changes")).to_be_visible()
    expect(page.locator("[name=none-BANNER_2]")).not_to_be_checked()
    expect(page.locator(".unsaved").first).to_have_text("5 not saved")
    expect(control(page, "UNTOUCHED_0")).to_be_disabled()
    page.locator("#value-OPEN_1").check()
    expect(page.get_by_role("button", name="Save 4 changes")).to_be_visible()
    save(page)
    expect(page.locator(".notice.good li")).to_have_count(4)
    assert site.waffle.values.BANNER_2 == "Hello"


def test_a_value_that_no_form_holds_is_reset(start: Start, visit: Visit, scripts: bool) -> None:
    site = start()
    site.waffle.update({"NAME_1": "x" * 70_000})
    page = visit(site, "?q=name_1", scripts=scripts)
    page.locator("[name=reset-NAME_1]").check()
    if scripts:
        expect(page.locator("#changes li")).to_contain_text("Waffle (default)")
    save(page)
    assert site.waffle.values.NAME_1 == "Waffle"


def test_the_filter(start: Start, visit: Visit, scripts: bool) -> None:
    """By name, by value and by what has changed; what is edited is never hidden."""
    site = start()
    site.waffle.update({"LIMIT_1": 77})
    page = visit(site, scripts=scripts)
    seen = page.locator(".variable:visible")

    def find(text: str, *, only_changed: bool = False) -> None:
        page.get_by_label("Find").fill(text)
        page.get_by_label("Only changed").set_checked(only_changed)
        if not scripts:
            page.get_by_role("button", name="Show", exact=True).click()

    find("limit_")
    expect(seen).to_have_count(4)
    find("77")
    expect(seen).to_have_count(1)
    find("", only_changed=True)
    expect(seen).to_have_count(1)
    expect(page.locator("#shown")).to_contain_text("1 of 60")
    find("nothing has this")
    expect(page.locator("#none")).to_be_visible()
    if scripts:
        find("limit_2")
        control(page, "LIMIT_2").fill("55")
        find("name_")
        expect(seen).to_have_count(5)
        expect(control(page, "LIMIT_2")).to_be_visible()
        control(page, "LIMIT_2").fill("10")
        find("name_1")
        expect(control(page, "LIMIT_2")).to_be_hidden()


def test_groups_with_the_keyboard(start: Start, visit: Visit, scripts: bool) -> None:
    """A group opens with Enter; an error in one opens it and has the focus."""
    page = visit(start(), scripts=scripts)
    group = page.locator("details").nth(1)
    group.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(group.locator(".variable").first).to_be_visible()
    limit = control(page, "TIMEOUT_2")
    page.locator("details", has=limit).locator("summary").press("Enter")
    limit.fill("soon")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    expect(limit).to_be_focused()


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_is_wider_than_the_screen(start: Start, visit: Visit, width: int) -> None:
    site = start()
    site.waffle.update({"NAME_0": "x" * 400, "STORY_1": "y" * 3000}, note="z" * 300)
    page = visit(site, width=width)
    open_all(page)
    for query in ("", "?rollback=0", "?saved=1"):
        if query:
            page.goto(f"/waffle/{query}")
        sizes = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1], query


@pytest.mark.parametrize("width", [320, 768])
def test_what_has_the_focus_is_seen(start: Start, visit: Visit, width: int, scripts: bool) -> None:
    """After a refused save: the first error with its text, above the bar with the button."""
    page = visit(start(), width=width, scripts=scripts)
    open_all(page)
    for name in ("TIMEOUT_0", "RULES_0", "PRICE_1", "HOOK_1", "TIMEOUT_2"):
        control(page, name).fill("{soon")
    page.locator("#time").fill("soon")
    with page.expect_navigation():
        page.locator("#save").click()
    expect(control(page, "TIMEOUT_0")).to_be_focused()
    error, bar = page.locator("#value-TIMEOUT_0-notes").bounding_box(), page.locator(".save")
    assert error
    assert error["y"] + error["height"] <= (bar.bounding_box() or error)["y"]


def test_on_a_phone_an_input_stands_below_its_label(start: Start, visit: Visit) -> None:
    """And a unit beside its input."""
    page = visit(start(), width=320)
    open_all(page)

    def box(found: Any) -> Any:
        return found.bounding_box()

    for name in ("note", "time"):
        label, input = box(page.locator(f"label[for={name}]")), box(page.locator(f"#{name}"))
        assert label["x"] == input["x"]
        assert label["y"] < input["y"]
    limit = page.locator(".measure", has=control(page, "LIMIT_0"))
    input, unit = box(limit.locator("input")), box(limit.locator(".unit"))
    assert input["x"] + input["width"] < unit["x"]
    assert input["y"] < unit["y"] < input["y"] + input["height"]


@pytest.fixture
def accessible() -> Callable[[Page], None]:
    """Return a function that fails if axe-core finds anything on a page."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ModuleNotFoundError:
        missing = "axe-core is missing: pip install axe-playwright-python"
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)

    def check(page: Page) -> None:
        found = Axe().run(page).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []

    return check


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    start: Start, visit: Visit, accessible: Callable[[Page], None], scheme: str
) -> None:
    """On the page, with edits, with errors, and where a rollback is confirmed."""
    site = start(fixed=frozenset({"UNTOUCHED_0", "OPEN_1", "METHODS_1"}))
    hour = dt.timedelta(hours=1)
    site.waffle.update({"LIMIT_1": 77, "KEY_0": "k"}, actor="bob", note="why", expires=hour)
    site.waffle.update({"UNTOUCHED_0": 2})
    # axe-core is put into the page, which the page's own policy would forbid.
    page = visit(site, bypass_csp=True, color_scheme=scheme, width=390)
    open_all(page)
    accessible(page)
    control(page, "TIMEOUT_0").fill("soon")
    page.locator("[name=none-QUOTA_0]").check()
    page.set_viewport_size({"width": 1100, "height": 844})
    accessible(page)
    page.get_by_role("button", name=re.compile("^Save")).click()
    expect(page.get_by_role("alert")).to_be_visible()
    accessible(page)
    page.evaluate("window.onbeforeunload = null")
    other = visit(site, "?rollback=0", bypass_csp=True, color_scheme=scheme)
    accessible(other)
