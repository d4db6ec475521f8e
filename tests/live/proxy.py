"""A TCP proxy in front of a Unix socket, that can swallow everything without a word."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path

TURN = 0.05  # seconds between two looks whether to end
LATER = 0.3  # seconds


class Proxy:
    """Listens on a free port of loopback; while `black_hole` is set nothing passes and nothing is
    closed. What contains ``late`` arrives a moment later, whatever passes on other connections.
    """

    def __init__(self, target: Path, *, late: bytes | None = None) -> None:
        self._target, self._late = target, late
        self.black_hole, self._closed = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TURN)
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._serving: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        self._closed.set()
        self._accepting.join()  # first: it may be about to start one more of the others
        for thread in self._serving:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.connections += 1
                self._serving.append(threading.Thread(target=self._serve, args=(client,)))
                self._serving[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            socket.socket(socket.AF_UNIX) as server,
            contextlib.suppress(OSError),
        ):  # one of them was closed
            server.connect(str(self._target))
            while not self._closed.is_set():
                for source in select.select([client, server], [], [], TURN)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if self._late and self._late in data:
                        self._closed.wait(LATER)
                    if not self.black_hole.is_set():
                        (server if source is client else client).sendall(data)
