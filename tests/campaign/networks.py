"""Network namespaces: some hosts, and one more in which their servers listen."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["DATABASE", "REDIS", "Networks", "why_not"]

#: Where the servers listen.
REDIS, DATABASE = "10.0.0.1", "10.0.0.2"
PATIENCE = 60.0  # seconds, for a busy machine


class Network:
    """A network namespace of its own. It ends with a process that does nothing else.

    Attributes:
        prefix: the words before a command that run it there.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        stack.callback(self.holder.wait)
        stack.callback(self.holder.kill)
        self.place = f"/proc/{self.holder.pid}/ns/net"
        self.prefix = ("nsenter", f"--net={self.place}")
        end, ours = time.monotonic() + PATIENCE, os.readlink("/proc/self/ns/net")
        while os.readlink(self.place) == ours:
            assert time.monotonic() < end, "unshare --net has made no namespace"
            time.sleep(0.005)

    def ip(self, words: str) -> None:
        """Run iproute2 there."""
        command = [*self.prefix, "ip", *words.split()]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"ip {words}: {done.stderr}"


class Networks:
    """A star: each host has a link to the servers, and none to another host.

    Args:
        stack: ends them.
        names: of the hosts.
    """

    def __init__(self, stack: ExitStack, names: Iterable[str]) -> None:
        self.servers = Network(stack)
        self.servers.ip("link set lo up")
        for address in (REDIS, DATABASE):
            self.servers.ip(f"address add {address}/32 dev lo")
        # So that a rule of ours can come before what says which addresses are local.
        self.servers.ip("rule add pref 100 lookup local")
        self.servers.ip("rule delete pref 0")
        self.hosts: dict[str, Network] = {}
        self._address: dict[str, str] = {}
        for number, name in enumerate(names, start=1):
            host = self.hosts[name] = Network(stack)
            self._address[name] = f"10.0.{number}.2"
            self.servers.ip(f"link add {name} type veth peer name eth0 netns {host.holder.pid}")
            self.servers.ip(f"address add 10.0.{number}.1/30 dev {name}")
            self.servers.ip(f"link set {name} up")
            host.ip(f"address add {self._address[name]}/30 dev eth0")
            for device in ("lo", "eth0"):
                host.ip(f"link set {device} up")
            host.ip(f"route add default via 10.0.{number}.1")

    @contextmanager
    def partition(
        self, name: str, servers: Iterable[str], *, there: bool = True, back: bool = True
    ) -> Iterator[None]:
        """Drop silently what passes between a host and servers, in one direction or in both.

        Args:
            name: the host.
            servers: their addresses.
            there: whether to drop what the host sends.
            back: whether to drop what it's sent.
        """
        host = self._address[name]
        rules = [f"from {host} to {server}" for server in servers if there]
        rules += [f"from {server} to {host}" for server in servers if back]
        for rule in rules:
            self.servers.ip(f"rule add pref 10 {rule} blackhole")
        try:
            yield
        finally:
            for rule in rules:
                self.servers.ip(f"rule delete pref 10 {rule} blackhole")

    @contextmanager
    def vanish(self, name: str) -> Iterator[None]:
        """Take a host's link down."""
        self.hosts[name].ip("link set eth0 down")
        try:
            yield
        finally:
            self.hosts[name].ip("link set eth0 up")
            self.hosts[name].ip(f"route add default via {self._address[name][:-1]}1")


def why_not() -> str:
    """Return why there can be no such networks here, ``""`` if there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if not shutil.which("ip"):
        return "there is no ip: apt-get install iproute2"
    attempt = "ip link add v0 type veth peer name v1 && ip rule add from 10.0.0.1 blackhole"
    command = ["unshare", "--net", "sh", "-c", attempt]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""
