"""Make the pictures in docs/images from the running program: ``python -m docs.pictures``.

It needs ``pip install '.[test,admin]'`` and a Chromium at /usr/bin/chromium.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
BIN = Path(sysconfig.get_path("scripts"))
CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SHOWN_FOLDER = "/srv/uploads"  # what the pictures show in the place of the temporary folder
DESKTOP: ViewportSize = {"width": 1000, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
PASSWORD = "waffle"
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PATIENCE = 60.0  # seconds for anything to happen
COLUMNS = 100

SMALL_SITE = """
import flask, uwsgi_waffle
from uwsgi_waffle.admin import admin_blueprint

application = flask.Flask("uploads", instance_path={folder!r})
application.secret_key = "of the pictures"
application.config["WAFFLE_CONFS"] = {{
    "SITENAME": {{"desc": "Name in the page header", "default": "Waffle"}},
    "MAX_FILESIZE": {{"desc": "Upload limit in bytes", "default": 1000}},
    "OPEN": {{"desc": "Whether uploads are accepted", "default": True}},
}}
waffle = uwsgi_waffle.WaffleConf(application)
who = lambda: flask.request.authorization.username
application.register_blueprint(admin_blueprint(waffle, authorize=who), url_prefix="/admin")
"""


class Site:
    """A uWSGI with four workers, whose files are in a temporary folder."""

    def __init__(self, folder: Path, application: Path) -> None:
        self.folder = folder
        self._application = application
        self._log = folder / "log"
        self._environ = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "ADMIN_PASSWORD": PASSWORD,
            "COLUMNS": str(COLUMNS),
            "WAFFLE_STORE_URL": f"sqlite:///{folder}/waffle.db",
            "WAFFLE_WATCHER_FILE": f"{folder}/waffle.watch",
        }
        ini = ["master = true", "shared-import = uwsgi_waffle", "single-interpreter = true"]
        ini += ["http-socket = 127.0.0.1:0", "processes = 4", f"wsgi-file = {application}"]
        (folder / "uwsgi.ini").write_text("\n".join(["[uwsgi]", *ini, ""]))
        with self._log.open("wb") as log:
            command = ["uwsgi", "--die-on-term", "--ini", str(folder / "uwsgi.ini")]
            self._process = subprocess.Popen(
                command, cwd=folder, env=self._environ, stdout=log, stderr=log
            )
        wait_until(lambda: self.shell("status").count("worker") == 4, self.log)
        (port,) = re.findall(r"bound to TCP address 127\.0\.0\.1:(\d+)", self.log())
        self.url = f"http://127.0.0.1:{port}"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def shell(self, arguments: str, *, user: str = "ann") -> str:
        """Return what ``flask waffle`` prints."""
        words = arguments.split()
        if words[0] == "set":
            words += ["--actor", user]
        done = subprocess.run(
            ["flask", "--app", str(self._application), "waffle", *words],
            env=self._environ,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return self.shown(done.stdout)

    @contextmanager
    def watching(self) -> Iterator[Callable[[], str]]:
        """Run ``flask waffle watch``; what is called returns what it has printed."""
        path = self.folder / "watch"
        with path.open("wb") as log:
            process = subprocess.Popen(
                ["flask", "--app", str(self._application), "waffle", "watch"],
                env=self._environ,
                stdout=log,
            )
        try:
            wait_until(lambda: "flask" in self.shell("status"), self.log)
            yield path.read_text
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)

    def shown(self, text: str) -> str:
        return text.replace(str(self.folder), SHOWN_FOLDER)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)


@contextmanager
def running(application: Path | None = None) -> Iterator[Site]:
    """Start a site, by default the small one."""
    with tempfile.TemporaryDirectory(prefix="uploads-") as name:
        folder = Path(name)
        if application is None:
            application = folder / "app.py"
            application.write_text(SMALL_SITE.format(folder=name))
        site = Site(folder, application)
        try:
            yield site
        finally:
            site.stop()


def wait_until(look: Callable[[], bool], explain: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > end:
            raise TimeoutError(explain())
        time.sleep(0.05)


@contextmanager
def visiting(
    browser: Browser, site: Site, *, size: ViewportSize = DESKTOP, scheme: Scheme = "light"
) -> Iterator[Page]:
    """Open the admin page for Ann, with the live table filled."""
    token = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    context = browser.new_context(
        viewport=size,
        color_scheme=scheme,
        extra_http_headers={"Authorization": f"Basic {token}"},
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{site.url}/admin/")
    page.get_by_text("4 of 4 serve revision").wait_for()
    yield page
    context.close()


def shoot(
    page: Page, site: Site, name: str, *, down_to: str = "Processes", whole: bool = True
) -> None:
    """Take the page down to the end of a section, with the temporary folder's name replaced."""
    page.evaluate(
        """([real, shown]) => {
            const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (texts.nextNode())
                texts.currentNode.data = texts.currentNode.data.replace(real, shown);
        }""",
        [str(site.folder), SHOWN_FOLDER],
    )
    size = page.viewport_size
    assert size
    if whole:  # a window this high needs no scrolling, so what sticks to its edge is in its place
        section = page.locator("section", has=page.get_by_role("heading", name=down_to))
        box = section.bounding_box()
        assert box
        size["height"] = round(box["y"] + box["height"] + 12)
        page.set_viewport_size({**size, "height": 3000})
        page.mouse.move(0, 0)
    save(f"{name}.png", page.screenshot(clip={"x": 0, "y": 0, **size}))


def save(name: str, data: bytes) -> None:
    (IMAGES / name).write_bytes(data)
    print(f"docs/images/{name}: {len(data):,} bytes")


def terminal(name: str, *parts: tuple[str, str]) -> None:
    """Draw commands and what they have printed."""
    lines: list[tuple[str, str]] = []
    for command, output in parts:
        lines.append(("prompt", f"$ {command}"))
        for line in output.rstrip("\n").splitlines():
            lines += [("output", part) for part in wrap(line, COLUMNS, subsequent_indent="  ")]
    save(f"{name}.svg", svg(lines).encode())


def svg(lines: list[tuple[str, str]]) -> str:
    """Return a terminal; its colours follow the reader's light or dark mode."""
    step, advance, margin = 20, 8.4, 16
    width = COLUMNS * advance + 2 * margin
    height = len(lines) * step + 2 * margin - 4
    texts = "\n".join(
        f'<text class="{kind}" x="{margin}" y="{margin + 12 + number * step}"'
        f' textLength="{len(line) * advance:.1f}" xml:space="preserve">{escape(line)}</text>'
        for number, (kind, line) in enumerate(lines)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}"\
 width="{width:.0f}" height="{height}">
<style>
rect {{ fill: #ffffff; stroke: #ddd8d0 }}
text {{ font: 14px ui-monospace, monospace; fill: #1f1d1a }}
.prompt {{ font-weight: bold; fill: #92400e }}
@media (prefers-color-scheme: dark) {{
rect {{ fill: #211f1c; stroke: #3a3732 }}
text {{ fill: #ece8e1 }}
.prompt {{ fill: #f0b26b }}
}}
</style>
<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1}" rx="8"/>
{texts}
</svg>
"""


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        with running() as site:
            take_small_site(browser, site)
        with running(ROOT / "examples/admin/app.py") as site:
            take_admin(browser, site)
        browser.close()


def take_small_site(browser: Browser, site: Site) -> None:
    """The README's picture, and the terminal's."""
    site.shell("set SITENAME=Gent --note rename --wait 10")
    with site.watching() as watched:
        site.shell("set MAX_FILESIZE=2000 OPEN=false --note maintenance --wait 10", user="bob")
        site.shell("set OPEN=true --note done --wait 10", user="bob")
        wait_until(lambda: "OPEN: false -> true" in watched(), watched)
    terminal("watch", ("flask waffle watch", watched() + "^C"))
    terminal("status", ("flask waffle status", site.shell("status")))
    terminal("doctor", ("flask waffle doctor", site.shell("doctor")))
    with visiting(browser, site) as page:
        shoot(page, site, "page")


def take_admin(browser: Browser, site: Site) -> None:
    """The example's page: both sizes, both colour schemes, and a conflict."""
    site.shell("set SITENAME=Gaufre API_TOKEN=t0ken --note branding --wait 10")
    site.shell("set LOG_LEVEL=WARNING MAX_FILESIZE=50000000 --note videos --wait 10", user="bob")
    for place, size in (("desktop", DESKTOP), ("phone", PHONE)):
        for scheme in SCHEMES:
            with visiting(browser, site, size=size, scheme=scheme) as page:
                shoot(page, site, f"admin-{place}-{scheme}", whole=place == "desktop")
    with visiting(browser, site) as page:
        page.get_by_label("SITENAME").first.fill("Wafel")
        site.shell("set SITENAME=Waffel --wait 10", user="bob")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").wait_for()
        shoot(page, site, "admin-conflict", down_to="Variables")


if __name__ == "__main__":
    main()
