"""Coverage-guided fuzzing with atheris of all that reads foreign bytes; what it finds stays in
``corpus`` and is a test.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")
LONGEST = 4096  # bytes
TARGET_NAMES = ("snapshot", "header", "process", "message", "history")
KEPT = 200  # inputs of each target, the shortest
PROCESS = b'{"pid":7,"kind":"worker 1","revision":1,"applied_at":1.0,"snapshot":"","error":""}'
NOTES = (
    b'{"host_id":7,"store":"s","watch_stamp":"w","checked_at":1,"retry_at":0,"updates":2,'
    b'"error":"down"}'
)
HISTORY = (
    b'{"since":1,"rows":[{"revision":2,"key":"A","old":null,"new":"1","actor":"","note":"",'
    b'"at":"2026-01-01T00:00:00+00:00"}]}'
)


def inputs(target: str) -> list[bytes]:
    """Return what is kept of a target, one in each line."""
    path = CORPUS / f"{target}.txt"
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def seeds(target: str) -> list[bytes]:
    """Return what the fuzzing of a target begins with: something sound."""
    return {
        "snapshot": [b'7\n{"A":1,"B":"b"}'],
        "header": [bytes(24) + NOTES],
        "process": [PROCESS],
        "message": [b"1700000000.123456" + b"0" * 20],
        "history": [HISTORY],
    }[target]


def keep(target: str, found: set[bytes]) -> None:
    """Keep inputs: those that are there, and the shortest of the new ones."""
    known = inputs(target) or seeds(target)
    new = sorted(found - set(known), key=lambda data: (len(data), data))
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{target}.txt").write_text(
        "".join(f"{data.hex()}\n" for data in [*known, *new[: max(0, KEPT - len(known))]])
    )


def fuzz(target: str, seconds: float) -> list[str]:
    """Fuzz one target for so long, keep the inputs that reached something new, and return what it
    died of.
    """
    with tempfile.TemporaryDirectory(prefix="waffle-") as folder:
        whole, died = (Path(folder) / name for name in ("whole", "died"))
        for path in (whole, died):
            path.mkdir()
        for data in inputs(target) or seeds(target):
            (whole / hashlib.sha256(data).hexdigest()).write_bytes(data)
        command = [sys.executable, "-m", "tests.campaign.fuzz", target, f"-max_len={LONGEST}"]
        limits = [
            f"-max_total_time={max(1, round(seconds))}",
            "-timeout=10",
            f"-artifact_prefix={died}/",
        ]
        done = subprocess.run(
            [*command, *limits, str(whole)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        told = [done.stdout + done.stderr] if done.returncode else []
        keep(target, {path.read_bytes() for place in (whole, died) for path in place.iterdir()})
    return told


def run(minutes: float) -> int:
    """Fuzz all targets, one after the other; print what was found and return the exit code."""
    try:
        import atheris  # noqa: F401  # only whether it is there
    except ImportError:
        print("atheris is missing: pip install atheris", file=sys.stderr)
        return 2
    found = 0
    for target in TARGET_NAMES:
        known = len(inputs(target))
        for told in fuzz(target, 60 * minutes / len(TARGET_NAMES)):
            found += 1
            print(told[-3000:])
        new = len(inputs(target)) - known
        print(f"{target}: {minutes / len(TARGET_NAMES):g} minutes, {new} more kept", flush=True)
    print(f"{found} findings")
    return 1 if found else 0


def main() -> None:
    """Be libFuzzer for one target; called by `fuzz`."""
    import atheris

    logging.disable()
    with atheris.instrument_imports(include=["uwsgi_waffle"]):
        from .targets import TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
