"""The tests of the pages notice what they are there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from .page import PageError, anchors, links, steps
from .runner import Runner
from .shell import compare

APP = """
<!-- test: file app.py -->
```python
from flask import Flask
import uwsgi_waffle

app = Flask(__name__)
app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
waffle = uwsgi_waffle.WaffleConf(app)

@app.get("/")
def show():
    return waffle.values.SITENAME + "\\n"
```
"""


def run(text: str, folder: Path) -> None:
    Runner("a page", folder, {}).run(steps(text))


def test_a_page_as_it_should_be(tmp_path: Path) -> None:
    """Files, a server on a free port, commands that share a shell, hidden blocks, doctests."""
    text = f"""{APP}
<!-- test: server -->
```console
$ flask run
...
 * Running on http://127.0.0.1:5000
...
```

```console
$ flask waffle set SITENAME=Gent \\
>     --note why
SITENAME: "Waffle" -> "Gent"
revision 1
$ curl -s http://127.0.0.1:5000/
Gent
$ NAME=Gent
$ echo $NAME ... ; false
Gent ...
$ echo $?
1
$ flask waffle history
1  ... UTC  ...  SITENAME: "Waffle" -> "Gent"  # why
```

<!-- test: python
hidden = 1
-->

```python
shown = hidden + 1
```

```pycon
>>> shown
2
>>> import app
>>> app.waffle.values.SITENAME
'Gent'
```

```console
$ sh -c 'echo started; exec sleep 60'
started
^C
```

<!-- test: fresh -->

```console
$ ls
```
"""
    run(text, tmp_path)


@pytest.mark.parametrize(
    "block",
    [
        "```console\n$ echo a\nb\n```",
        "```console\n$ echo a; echo b\na\n```",
        "```console\n$ false\n```",
        "```console\n$ pip install 'uwsgi_waffle[nonsense]'\n```",
        "```pycon\n>>> 1 + 1\n3\n```",
        "```python\nassert False\n```",
        "<!-- test: server -->\n```console\n$ false http://127.0.0.1:8000\n```",
    ],
)
def test_what_a_page_gets_wrong(block: str, tmp_path: Path) -> None:
    """Whatever differs from what is shown fails."""
    with pytest.raises(AssertionError):
        run(block, tmp_path)


@pytest.mark.parametrize(
    "text",
    ["<!-- test: nonsense -->", "<!-- test: skip -->\n```\n```", "<!-- test: file a -->\nno block"],
)
def test_comments_that_say_nothing(text: str) -> None:
    """A comment that isn't understood is an error, not a comment."""
    with pytest.raises(PageError):
        steps(text)


def test_wildcards() -> None:
    """Three dots stand for part of a line; alone, for lines."""
    assert not compare("a ... c\n...\nend", "a b c\nx\ny\nend\n")
    assert not compare("...\nend", "end")
    assert compare("a ... c", "a b\nc")
    assert compare("a", "a\nb")


def test_links_and_anchors() -> None:
    """Code holds no links and no headings; anchors are those of a code host."""
    text = (
        "# A `b`, c\n\n[![x](p.png)](q.md)\n```\n# d\n[x](y)\n```\n`[i](j)` [e](f.md#a-b-c)\n"
        "# Twice\n# Twice"
    )
    assert sorted(links(text)) == ["f.md#a-b-c", "q.md"]
    assert anchors(text) == {"a-b-c", "twice", "twice-1"}
