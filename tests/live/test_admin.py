"""The admin page of `examples/admin` under uWSGI, in a real browser: every test with JavaScript and
without.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from uwsgi_waffle.host import HostFiles

from ..host import report_process
from .servers import ROOT, Server, Servers, kill

WORKERS = 4
NAME, PASSWORD = "ann", "waffle"

Visit = Callable[..., Page]


@pytest.fixture
def site(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The example as its source says to start it; every worker has answered."""
    monkeypatch.setattr(Server, "read", lambda server, **_: front(server))
    source = (ROOT / "examples/admin/app.py").read_text()
    assert f"    export ADMIN_PASSWORD={PASSWORD}\n" in source
    (command,) = re.findall(r"^    (uwsgi .*)$", source, re.MULTILINE)
    server = servers.start(
        [*shlex.split(command.replace(":8000", ":0")), "--die-on-term"],
        ADMIN_PASSWORD=PASSWORD,
        WAFFLE_STORE_URL=f"sqlite:///{servers.folder}/waffle.db",
        WAFFLE_WATCHER_FILE=f"{servers.folder}/waffle.watch",
    )
    server.eventually(lambda: processes(server), until=lambda pids: len(pids) == WORKERS)
    return server


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.ports[0]}"


def front(server: Server) -> str:
    with urllib.request.urlopen(url(server), timeout=30) as answer:
        return str(answer.read().decode())


def processes(server: Server) -> dict[str, int]:
    """Return the pid of each worker, as the page shows them."""
    manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    manager.add_password(None, url(server), NAME, PASSWORD)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
    with opener.open(f"{url(server)}/admin/", timeout=30) as answer:
        return {
            name: int(pid)
            for name, pid in re.findall(
                r'<th scope="row">(worker \d)</th><td>(\d+)</td>', answer.read().decode()
            )
        }


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without JavaScript"])
def scripts(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def visit(browser: Browser, site: Server, scripts: bool) -> Iterator[Visit]:
    """Open the page in a browser of its own, for one more person; what the browser complains about
    fails the test.
    """
    contexts, complaints = [], []

    def visit(name: str = NAME, *, width: int = 1100) -> Page:
        context = browser.new_context(
            base_url=url(site),
            http_credentials={"username": name, "password": PASSWORD},
            java_script_enabled=scripts,
            viewport={"width": width, "height": 844},
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if "Content Security Policy" in message.text
                else None
            ),
        )
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto("/admin/")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def save(page: Page, **secrets: str) -> None:
    """Save. Without JavaScript the page first shows what will change; secrets are typed again."""
    button = page.get_by_role("button", name=re.compile("^Save")).last
    if button.get_attribute("name") != "preview":
        button.click()
        return
    with page.expect_navigation():
        button.click()
    if page.get_by_text("Not saved yet").is_visible():
        for name, secret in secrets.items():
            page.get_by_label(name, exact=True).fill(secret)
        page.get_by_role("button", name=re.compile("^Save")).first.click()


def test_edit_several_of_every_kind(site: Server, visit: Visit) -> None:
    """One update, served by every worker; the history and the field say who and why."""
    page = visit()
    page.get_by_label("SITENAME", exact=True).fill("Liège <b>")
    page.get_by_label("MAX_FILESIZE", exact=True).fill("12345")
    page.get_by_label("OPEN", exact=True).uncheck()
    page.get_by_label("LOG_LEVEL", exact=True).select_option("DEBUG")
    page.get_by_label("MIRRORS", exact=True).fill('["https://three.example"]')
    page.get_by_label("API_TOKEN", exact=True).fill("geheim\nzwei")
    page.get_by_label("Why").fill("<i>move</i>")
    save(page, API_TOKEN="geheim\nzwei")

    expect(page.get_by_role("status").first).to_contain_text("Saved as revision 1")
    expect(page.get_by_label("SITENAME", exact=True)).to_have_value("Liège <b>")
    expect(page.get_by_label("OPEN", exact=True)).not_to_be_checked()
    expect(page.get_by_label("LOG_LEVEL", exact=True)).to_have_value("DEBUG")
    expect(page.get_by_label("API_TOKEN", exact=True)).to_have_value("")
    history = page.locator(".history")
    expect(history).to_contain_text("<i>move</i>")
    expect(history).to_contain_text("ann, 20")
    assert "geheim" not in page.content()
    for _ in range(20):
        assert front(site) == "Liège <b> takes 12345 bytes.\n"


def test_invalid_value(visit: Visit) -> None:
    """The field with the error has the focus; everything else that was typed is kept."""
    page = visit()
    page.get_by_label("SITENAME", exact=True).fill("Gent")
    limit = page.get_by_label("MAX_FILESIZE", exact=True)
    limit.fill("-5")
    save(page)
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    expect(limit).to_be_focused()
    expect(limit).to_have_value("-5")
    expect(limit).to_have_attribute("aria-invalid", "true")
    expect(limit).to_have_accessible_description(
        re.compile("Upload limit in bytes.*greater than 0, not '-5'", re.DOTALL)
    )
    expect(page.get_by_label("SITENAME", exact=True)).to_have_value("Gent")
    expect(page.locator("#revision")).to_have_text("0")
    limit.fill("5")
    save(page)
    expect(page.get_by_role("status").first).to_contain_text("Saved as revision 1")


def test_conflict_between_two_browsers(visit: Visit) -> None:
    """The slower one sees both values and all that was typed. Saving again replaces the other's."""
    slow, fast = visit("slow"), visit("fast")
    fast.get_by_label("SITENAME", exact=True).fill("Fast")
    save(fast)
    expect(fast.get_by_role("status").first).to_contain_text("Saved as revision 1")

    name = slow.get_by_label("SITENAME", exact=True)
    name.fill("Slow")
    slow.get_by_label("MAX_FILESIZE", exact=True).fill("7")
    save(slow)
    expect(slow.get_by_role("alert")).to_contain_text("somebody else was faster")
    expect(name).to_have_value("Slow")
    expect(name).to_have_accessible_description(
        re.compile(r"In force now\s*: Fast\s+\(by fast, revision 1\)")
    )
    expect(slow.get_by_label("MAX_FILESIZE", exact=True)).to_have_value("7")
    expect(slow.locator("#revision")).to_have_text("1")

    save(slow)
    expect(slow.get_by_role("status").first).to_contain_text("Saved as revision 2")
    expect(name).to_have_value("Slow")


def test_rollback_and_reset(visit: Visit) -> None:
    page = visit()
    for name in ("Gent", "Namur"):
        page.get_by_label("SITENAME", exact=True).fill(name)
        save(page)
        expect(page.get_by_label("SITENAME", exact=True)).to_have_value(name)
        expect(page.get_by_role("status").first).to_contain_text("Saved")
    page.get_by_role("button", name="Roll back to revision 1").click()
    expect(page.get_by_role("heading", name="Back to revision 1?")).to_be_visible()
    expect(page.get_by_role("listitem")).to_contain_text(
        re.compile(r"SITENAME\s*:\s*Namur.*Gent", re.DOTALL)
    )
    page.get_by_role("button", name="Roll back to revision 1").click()
    expect(page.get_by_role("status").first).to_contain_text("Saved as revision 3")
    expect(page.get_by_label("SITENAME", exact=True)).to_have_value("Gent")
    page.get_by_label("Reset SITENAME to its default").check()
    save(page)
    expect(page.get_by_role("status").first).to_contain_text("Saved as revision 4")
    expect(page.get_by_label("SITENAME", exact=True)).to_have_value("Waffle")
    page.get_by_role("button", name="Roll back to revision 0").click()
    expect(page.get_by_text("nothing to change")).to_be_visible()


def test_the_table_of_processes_is_alive(site: Server, visit: Visit, scripts: bool) -> None:
    """A killed worker gives way to a new one; one that is stopped is behind until it goes on.
    Without JavaScript, at a reload.
    """
    page = visit()
    table = page.locator("#table tbody")

    def look_until(check: Callable[[], None]) -> None:
        if scripts:
            check()
            return

        def reloaded() -> bool:
            page.reload()
            try:
                check()
            except AssertionError as error:
                raise ValueError(error) from error
            return True

        site.eventually(reloaded)

    patience = 60_000 if scripts else 50
    before = processes(site)
    kill(before["worker 2"])
    look_until(
        lambda: expect(table.locator(f'[data-pid="{before["worker 2"]}"]')).to_have_count(
            0, timeout=patience
        )
    )
    look_until(
        lambda: expect(table.get_by_role("row", name=re.compile("worker 2 "))).to_have_count(
            1, timeout=patience
        )
    )
    look_until(lambda: expect(table.get_by_role("row")).to_have_count(WORKERS, timeout=patience))

    stopped = processes(site)["worker 3"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        with closing(visit("other")) as other:
            other.get_by_label("SITENAME", exact=True).fill("Gent")
            save(other)
            expect(other.get_by_role("status").first).to_contain_text("Saved")
        look_until(
            lambda: expect(table.locator(f'[data-pid="{stopped}"]')).to_have_class(
                re.compile("behind"), timeout=patience
            )
        )
        look_until(lambda: expect(table.locator(".behind")).to_have_count(1, timeout=patience))
    finally:
        os.kill(stopped, signal.SIGCONT)
    look_until(lambda: expect(table.locator(".behind")).to_have_count(0, timeout=patience))
    if scripts:
        expect(page.locator("#summary")).to_have_text(f"{WORKERS} of {WORKERS} serve revision 1.")
        expect(page.locator("#newer")).to_be_visible()


def test_processes_of_two_containers_may_have_equal_pids(
    site: Server, visit: Visit, scripts: bool
) -> None:
    """Each has a row of its own."""
    files = HostFiles(site.folder / "waffle.watch")
    other = report_process(files, processes(site)["worker 1"], "worker 9")
    page = visit()
    if scripts:
        serving = f"{WORKERS} of {WORKERS + 1} serve revision 0."
        expect(page.locator("#summary")).to_have_text(serving)
    expect(page.locator("#table tbody tr")).to_have_count(WORKERS + 1)
    other.processes.leave()


@pytest.mark.parametrize("scripts", [True], ids=["with JavaScript"], indirect=True)
def test_what_javascript_adds(visit: Visit) -> None:
    """The number of unsaved changes, and a question before they are left."""
    page = visit()
    button = page.get_by_role("button", name=re.compile("^Save"))
    expect(button).to_have_text("Save")
    page.get_by_label("SITENAME", exact=True).fill("Gent")
    page.get_by_label("OPEN", exact=True).uncheck()
    expect(button).to_have_text("Save 2 changes")
    page.get_by_label("OPEN", exact=True).check()
    expect(button).to_have_text("Save 1 change")
    page.get_by_label("SITENAME", exact=True).fill("Waffle")
    expect(button).to_have_text("Save")


@pytest.mark.parametrize("scripts", [True], ids=["with JavaScript"], indirect=True)
def test_what_is_no_number_is_not_sent_as_nothing(visit: Visit) -> None:
    """A number input gives a form no text that is no number, so the form is held back until it is
    one.
    """
    page = visit()
    limit = page.get_by_label("MAX_FILESIZE", exact=True)
    limit.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("1e+-")
    button = page.get_by_role("button", name=re.compile("^Save"))
    expect(button).to_have_text("Save 1 change")
    save(page)
    expect(limit).to_be_focused()
    assert limit.evaluate("input => input.validity.badInput")
    limit.fill("12")
    save(page)
    expect(page.get_by_role("status").first).to_contain_text("Saved as revision 1")
    expect(limit).to_have_value("12")


def test_with_the_keyboard_alone(visit: Visit, scripts: bool) -> None:
    """From the top of the page to a saved value, with Tab, keys and Enter; each stop is seen."""
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the variables")).to_be_focused()
    expect(page.get_by_role("link", name="To the variables")).to_be_in_viewport()
    page.keyboard.press("Enter")
    limit = page.get_by_label("MAX_FILESIZE", exact=True)
    for _ in range(20):
        page.keyboard.press("Tab")
        if limit.evaluate("element => element === document.activeElement"):
            break
    expect(limit).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("77")
    page.keyboard.press("Enter")
    if not scripts:
        expect(page.get_by_text("Not saved yet")).to_be_visible()
        page.get_by_role("button", name="Save 1 change").press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Saved as revision 1")
    expect(limit).to_have_value("77")


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone(visit: Visit, width: int) -> None:
    """Nothing is wider than the screen, with long values in the form and the history.

    What is in a box that scrolls may be.
    """
    page = visit(width=width)
    page.get_by_label("SITENAME", exact=True).fill("x" * 300)
    save(page)
    expect(page.get_by_role("status").first).to_contain_text("Saved")
    inside = page.locator("main").bounding_box()
    assert inside is not None
    assert inside["x"] + inside["width"] <= width
    for box in page.locator(
        "input:visible, textarea, select, button, :not(.scroll) > table, code"
    ).all():
        where = box.bounding_box()
        assert where is None or where["x"] + where["width"] <= width


def test_nobody_else_gets_in(site: Server) -> None:
    for path in ("", "processes", "waffle-static/admin.js"):
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{url(site)}/admin/{path}", timeout=30)
        with refused.value as answer:
            assert "SITENAME" not in answer.read().decode()
