"""The version stands in one place."""

from __future__ import annotations

import re
from configparser import ConfigParser

import uwsgi_waffle

from ..docs.page import ROOT


def test_one_place() -> None:
    """setup.cfg takes it from the package, and the changelog begins with it."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: uwsgi_waffle.__version__"
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == uwsgi_waffle.__version__
