"""A writer outside the server: it updates to each number that it reads, and prints it when done."""

import sys

from tests.live.site import application, waffle

for line in sys.stdin:
    with application.app_context():
        waffle.update({"A": int(line), "B": int(line)})
    print(line, end="", flush=True)
