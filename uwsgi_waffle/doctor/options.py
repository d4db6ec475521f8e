"""uWSGI's options, as an ini file gives them, or the command line and environment of an instance
that runs.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .processes import arguments_of, environment_of, folder_of

__all__ = ["Options", "of_instances", "read_ini"]

MOST_FILES = 50
OFF = frozenset({"false", "off", "no", "0"})
#: Options of the command line that take no value, of those that are asked for here.
FLAGS = frozenset(
    {
        "master",
        "lazy",
        "lazy-apps",
        "enable-threads",
        "single-interpreter",
        "strict",
        "need-app",
        "vacuum",
        "die-on-term",
    }
)
LETTERS = {"M": "master", "T": "enable-threads", "i": "single-interpreter"}
FILES = frozenset({"ini", "include", "inherit", "config"})
OTHER_FILES = frozenset({"xml", "xmlconfig", "yaml", "yml", "json", "sqlite3", "ldap", "x"})
OTHER_SUFFIXES = (".xml", ".yaml", ".yml", ".json")
LOGIC = re.compile(r"if-?.*|for(-glob|-times|-readline)?")
#: What makes uWSGI start a master without being told to: those of its options with the flag
#: UWSGI_OPT_MASTER.
BRINGS_A_MASTER = re.compile(
    r"cheap(er.*)?|idle|mules?|farm|spooler.*|(signal-)?(rb)?timer|((unique|legion)-)*cron.*|touch-.*|fs-.*|.*reload-on-.*|stats.*"
    r"|metric.*|enable-metrics|legion.*|.*alarm.*|log-(master|syslog|socket|maxsize|encoder|route|filter|drain)|(threaded-)?logger"
    r"|(smart-)?attach-.*|master-fifo|subscribe.*|(py|python)-auto-?reload|py-tracebacker"
)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one uWSGI instance.

    Attributes:
        source: where they were found, for a person.
        pairs: names and values in their order; a name may come several times, and a flag has the
            value "".
        environ: the ``WAFFLE_*`` variables that the instance was started with, as far as they can
            be known.
        unread: what couldn't be read, and why; then nobody knows which lines are missing.
        assumed: what was read in another way than uWSGI may have done it.
    """

    source: str
    pairs: tuple[tuple[str, str], ...]
    environ: Mapping[str, str]
    unread: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def all(self, *names: str) -> list[str]:
        """Return the values of all options with these names."""
        return [value for name, value in self.pairs if name in names]

    def on(self, *names: str) -> bool:
        """Tell whether a flag is set; the last line counts, and ``flag = false`` is no."""
        return any(self.all(name) and self.all(name)[-1].lower() not in OFF for name in names)

    @property
    def has_master(self) -> bool:
        """Whether there is a master, asked for or brought along by another option."""
        if self.all("master"):
            return self.on("master")
        return any(BRINGS_A_MASTER.fullmatch(name) for name, _ in self.pairs)

    @property
    def settings(self) -> dict[str, str]:
        """The ``WAFFLE_*`` variables that a process of the instance has in its environment."""
        lines = (value.partition("=") for value in self.all("env"))
        return {
            **self.environ,
            **{
                name: value
                for name, equals, value in lines
                if equals and name.startswith("WAFFLE_")
            },
        }


def read_ini(path: Path) -> Options:
    """Read an ini file as uWSGI does: see ``core/ini.c`` and ``core/config.c`` of its source."""
    path = path.absolute()
    reader = _Reader([Path.cwd(), path.parent])
    reader.load(str(path))
    return reader.options(str(path), os.environ, {})


def of_instances(pids: Iterable[int]) -> tuple[Options, ...]:
    """Return the options that the uWSGI instances of these processes were started with; what is the
    same counts once.
    """
    found: dict[object, Options] = {}
    for options in map(_of_process, sorted(pids)):
        found.setdefault(
            (options.pairs, options.unread, frozenset(options.environ.items())), options
        )
    return tuple(found.values())


def _of_process(pid: int) -> Options:
    environ = environment_of(pid)
    # `chdir` changes the folder after the file was read.
    reader = _Reader([Path(place) for place in (folder_of(pid), environ.get("PWD")) if place])
    for key, value in environ.items():
        if key.startswith("UWSGI_"):
            reader.take(key.removeprefix("UWSGI_").lower().replace("_", "-"), value)
    reader.take_arguments(arguments_of(pid)[1:])
    if not reader.pairs and not reader.unread:
        reader.unread.append(
            "how it was started can't be seen; `procname` and `auto-procname` hide it"
        )
    source = ", ".join(reader.files) or "the command line"
    given = {key: value for key, value in environ.items() if key.startswith("WAFFLE_")}
    return reader.options(f"{source} (runs, pid {pid})", environ, given)


class _Reader:
    """Collects options from the files and arguments that it is given."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        self.pairs: list[tuple[str, str]] = []
        self.files: list[str] = []
        self.unread: list[str] = []
        self.assumed: list[str] = []

    def options(self, source: str, environ: Mapping[str, str], given: Mapping[str, str]) -> Options:
        """Return what was collected, with its placeholders filled in."""
        first: dict[str, str] = {}
        for key, value in self.pairs:
            first.setdefault(key, value)

        def fill(value: str) -> str:
            value = re.sub(r"\$\((.+?)\)", lambda found: environ.get(found[1], found[0]), value)
            for _ in range(8):  # a value may hold another placeholder; not for ever
                value = re.sub(r"%\((.+?)\)", lambda found: first.get(found[1], found[0]), value)
            return value

        return Options(
            source,
            tuple((key, fill(value)) for key, value in self.pairs),
            given,
            tuple(self.unread),
            tuple(self.assumed),
        )

    def take(self, key: str, value: str) -> None:
        """Take one option; files that it names are read at its place."""
        if key in OTHER_FILES or (
            key in FILES and value.partition(":")[0].endswith(OTHER_SUFFIXES)
        ):
            self.unread.append(f"{value} isn't an ini file, and no other can be read here")
        elif key in FILES:
            self.load(value)
        elif key in ("set", "S", "set-placeholder", "set-ph"):
            name, _, text = value.partition("=")
            self.pairs.append((name, text))
        elif LOGIC.fullmatch(key):
            self.assumed.append(f"the block of `{key} = {value}` is taken as if it held")
        elif key == "emperor":
            self.unread.append("the Emperor's vassals have files of their own; name one with --ini")
        else:
            self.pairs.append((key, value))

    def take_arguments(self, words: list[str]) -> None:
        """Take the words of a command line."""
        rest = iter(words)
        ahead: list[str] = []
        while word := ahead.pop() if ahead else next(rest, ""):
            if word.startswith("--"):
                key, equals, value = word[2:].partition("=")
                if not equals and key not in FLAGS:
                    value = next(rest, "")
                    if value.startswith("-") or (key not in FILES and _is_file(value)):
                        ahead, value = [value], ""
                self.take(key, value)
            elif word.startswith("-"):
                for letter in word[1:]:
                    if letter not in LETTERS:
                        break
                    self.take(LETTERS[letter], "")
            elif _is_file(word):
                self.take("config", word)

    def load(self, name: str) -> None:
        """Read a file, ``name.ini`` or ``name.ini:section``."""
        place, _, section = name.partition(":")
        path = next(
            (folder / place for folder in self._folders if (folder / place).exists()), Path(place)
        )
        if len(self.files) == MOST_FILES:
            told = f"{name} includes itself, or is one of more than {MOST_FILES} files"
            self.unread += [] if told in self.unread else [told]
            return
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError as error:
            self.unread.append(f"{name} can't be read: {error.strerror}")
            return
        self.files.append(f"{path}:{section}" if section else str(path))
        found = list(_lines(_with_magic(text, path), section or "uwsgi"))
        if not found:
            self.unread.append(f"{place} has no section [{section or 'uwsgi'}]")
        for key, value in found:
            self.take(key, value)


def _lines(text: str, wanted: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in text.split("\n"):
        line = line.strip(" \t\r")
        if line.startswith("["):
            section = line[1:-1]
        elif line and line[0] not in ";#" and section == wanted:
            key, _, value = line.partition("=")
            yield key.rstrip(" \t\r"), value.strip(" \t\r")


def _with_magic(text: str, path: Path) -> str:
    path = path.absolute()
    known = {
        "%": "%",
        "(": "%(",
        "p": str(path),
        "s": path.name,
        "n": path.stem,
        "e": path.suffix[1:],
        "d": f"{path.parent}/",
        "c": path.parent.name,
        "h": platform.node(),
    }
    return re.sub("%(.)", lambda found: known.get(found[1], ""), text)


def _is_file(word: str) -> bool:
    return word.partition(":")[0].endswith((".ini", *OTHER_SUFFIXES))
