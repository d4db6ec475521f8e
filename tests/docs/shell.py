"""A bash that lives as long as a page: it runs commands, keeps servers, and compares output."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

PATIENCE = 90.0  # seconds for a command, and for a server to listen
STOP_PATIENCE = 20.0  # seconds for a server to end; then it is killed


@dataclass(frozen=True)
class Command:
    """A command of a console block and the output that the page shows; None where it shows none."""

    text: str
    output: str | None

    @property
    def interrupted(self) -> bool:
        return self.output is not None and "^C" in self.output.splitlines()


def commands(block: str) -> list[Command]:
    """Return the commands of a console block."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif not found:
            raise ValueError(f"a console block begins with '$ ', not with {line!r}")
        elif line.startswith("> ") and not found[-1][1]:
            found[-1][0].append(line[2:])
        else:
            found[-1][1].append(line)
    return [
        Command("\n".join(text), "\n".join(output) if any(output) else None)
        for text, output in found
    ]


def pattern(expected: str) -> str:
    """Return a regular expression for output in which ``...`` stands for anything."""
    lines = []
    for line in normalized(expected).splitlines():
        if line.strip() == "...":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            lines.append("[^\n]*?".join(map(re.escape, line.split("..."))) + "\n")
    return "".join(lines)


def normalized(output: str) -> str:
    """Return output without trailing spaces, blank lines at its end, and colours."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output).replace("\r\n", "\n")
    text = "\n".join(line.rstrip() for line in plain.splitlines()).rstrip("\n")
    return f"{text}\n" if text else ""


def compare(expected: str, output: str) -> str:
    """Return what differs, or an empty string."""
    if re.fullmatch(pattern(expected), normalized(output)):
        return ""
    shown, printed = (normalized(text).splitlines() for text in (expected, output))
    lines = unified_diff(shown, printed, "the page", "what was printed", lineterm="")
    return "\n".join(lines)


@dataclass
class Background:
    """A command that goes on, in a process group of its own."""

    group: int
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """Interrupt it as Ctrl-C does, and wait until it is gone."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, number)
            end = time.monotonic() + STOP_PATIENCE
            while self.alive and time.monotonic() < end:
                time.sleep(0.01)
        assert not self.alive, f"it can't be ended:\n{self.output[-4000:]}"


class Shell:
    """A bash in ``folder``; its own files are in ``scratch``."""

    def __init__(self, folder: Path, scratch: Path, environ: dict[str, str]) -> None:
        self._scratch = scratch
        self._count = 0
        self._read_end, write_end = os.pipe()
        try:
            with (scratch / "bash.log").open("wb") as log:
                self._bash = subprocess.Popen(
                    ["bash", "--norc", "--noprofile"],
                    cwd=folder,
                    env=environ,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[write_end],
                    start_new_session=True,
                    # A shell that runs the tests in the background has them ignore Ctrl-C.
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                )
        finally:
            os.close(write_end)
        self._out = write_end
        self._send("rc=0; set -m")  # each server gets a process group of its own

    def run(self, command: str, *, patience: float = PATIENCE) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed."""
        script, log = self._files(command)
        fd = self._out
        self._send(f"(exit $rc); . {script} </dev/null >{log} 2>&1 {fd}>&-; rc=$?; echo $rc >&{fd}")
        answer = self._answer(patience)
        output = log.read_text(errors="replace")
        assert answer, f"no end within {patience} s: {command}\n{output[-4000:]}"
        return int(answer), output

    def start(self, command: str) -> Background:
        """Start a command in the background."""
        script, log = self._files(command)
        log.touch()
        fd = self._out
        self._send(f". {script} </dev/null >{log} 2>&1 {fd}>&- & echo $! >&{fd}")
        return Background(int(self._answer(PATIENCE)), log)

    def close(self) -> None:
        assert self._bash.stdin
        with contextlib.suppress(OSError):
            self._bash.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        os.close(self._read_end)

    def _files(self, command: str) -> tuple[Path, Path]:
        self._count += 1
        script = self._scratch / f"{self._count}.sh"
        script.write_text(f"{command}\n")
        return script, script.with_suffix(".log")

    def _send(self, line: str) -> None:
        assert self._bash.stdin
        self._bash.stdin.write(f"{line}\n".encode())
        self._bash.stdin.flush()

    def _answer(self, patience: float) -> str:
        ready, _, _ = select.select([self._read_end], [], [], patience)
        return os.read(self._read_end, 100).decode().strip() if ready else ""


def wait_for(
    look: Callable[[], bool], explain: Callable[[], str], *, patience: float = PATIENCE
) -> None:
    """Look every few milliseconds until it is true."""
    end = time.monotonic() + patience
    while not look():
        assert time.monotonic() < end, explain()
        time.sleep(0.01)
