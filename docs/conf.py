"""How Sphinx builds these pages: ``sphinx-build -W --keep-going -b html docs build/docs``."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import uwsgi_waffle  # noqa: E402  # the checkout's, which is on the path only now

project = "uwsgi_waffle"
copyright = "the authors of uwsgi_waffle"
version = release = uwsgi_waffle.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["images"]

myst_heading_anchors = 4  # links with #anchors, as a code host has them
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"uwsgi_waffle {release}"

pygments_style = "friendly"
pygments_dark_style = "native"
