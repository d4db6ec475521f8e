"""Read a Markdown page as a list of steps: its code blocks and the comments for the test."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

BLOCKS = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^\s`]*)[^\n`]*\n"
    r"(?P<text>.*?)^(?P=indent)(?P=fence)[ ]*$"
    r"|^ *<!-- test: (?P<comment>.*?)-->",
    re.DOTALL | re.MULTILINE,
)
ALONE = {"fresh", "stop", "clone", "needs"}
BEFORE_A_BLOCK = {"file", "append", "server", "run", "skip"}
SHELLS = {"sh", "bash", "shell"}
HIDDEN = {"python", "console", "file", "append"}
LINK = re.compile(r"(?<!\\)!?\[(?:[^\[\]]|!?\[[^\]]*\]\([^)]*\))*\]\((?P<target>[^)\s]+)\)")


class PageError(Exception):
    """A page can't be read as a test: the message names its line."""


@dataclass(frozen=True)
class Step:
    """One thing that the test does: ``verb`` is ``python``, ``console``, ``file`` or a comment."""

    line: int
    verb: str
    argument: str
    text: str


def pages() -> list[Path]:
    """Return all pages that are tests."""
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def steps(text: str) -> list[Step]:
    """Return what the test of a page has to do, in the page's order.

    Raises:
        PageError: a comment isn't understood, or stands before nothing.
    """
    found: list[Step] = []
    pending: Step | None = None
    last_end = 0
    for block in BLOCKS.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        if pending is not None and (block["comment"] or text[last_end : block.start()].strip()):
            raise PageError(f"line {pending.line}: no block follows right after this comment")
        last_end = block.end()
        if block["comment"] is not None:
            step = _read_comment(line, block["comment"])
            if step.verb in BEFORE_A_BLOCK and not step.text:
                pending = step
            else:
                found.append(step)
            continue
        body = textwrap.dedent(block["text"]) if block["indent"] else block["text"]
        found += _read_block(line, block["language"], body, pending)
        pending = None
    if pending is not None:
        raise PageError(f"line {pending.line}: no block follows right after this comment")
    return found


def _read_comment(line: int, comment: str) -> Step:
    head, newline, text = comment.partition("\n")
    verb, _, argument = head.strip().partition(" ")
    verb, argument = verb.rstrip(","), argument.strip()
    known = HIDDEN if newline else ALONE | BEFORE_A_BLOCK
    if verb not in known:
        raise PageError(f"line {line}: {verb!r} is not one of {', '.join(sorted(known))}")
    if verb in {"file", "append", "needs", "skip"} and not argument:
        raise PageError(f"line {line}: {verb!r} needs an argument")
    return Step(line, verb, argument, text)


def _read_block(line: int, language: str, text: str, comment: Step | None) -> list[Step]:
    if comment is None:
        verb = "python" if language == "pycon" else language
        return [Step(line + 1, verb, "", text)] if verb in {"python", "console"} else []
    if comment.verb == "skip":
        return []
    verb = "console" if comment.verb == "run" else comment.verb
    if verb in {"console", "server"} and language in SHELLS:
        text = re.sub(r"^", "$ ", text.rstrip("\n"), flags=re.MULTILINE)
    return [Step(line + 1, verb, comment.argument, text)]


def prose(text: str) -> str:
    """Return a page without its code blocks and comments, with as many lines."""
    return re.sub(
        rf"{BLOCKS.pattern}|<!--.*?-->",
        lambda block: "\n" * block[0].count("\n"),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def links(text: str) -> list[str]:
    """Return the targets of a page's links and pictures."""
    text = prose(text)
    inline = LINK.finditer(re.sub(r"`[^`\n]*`", "``", text))
    html: list[str] = re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    return [link["target"] for link in inline] + html


def anchors(text: str) -> set[str]:
    """Return the anchors that a code host gives a page's headings."""
    found: dict[str, int] = {}
    names: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    names |= set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#*)?$", prose(text), re.MULTILINE):
        slug = _slug(heading)
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def _slug(heading: str) -> str:
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    kept = "".join(c for c in plain if c in " -_" or unicodedata.category(c)[0] in {"L", "N", "M"})
    return kept.replace(" ", "-")
