"""Platforms that Linux plays; the import comes first, before anything has taken what Linux has.

With ``--like-macos`` it takes away what macOS lacks, here and in the Python programs that tests
start.
"""

import os
import runpy
import sys
from pathlib import Path

__all__ = ["HERE"]

HERE = Path(__file__).parent

if "--like-macos" in sys.argv:
    folder = HERE / "macos"
    runpy.run_path(str(folder / "sitecustomize.py"))
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
