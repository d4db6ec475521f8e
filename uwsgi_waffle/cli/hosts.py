"""What `status --hosts` prints of the hosts that listen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .output import print_line

__all__ = ["hosts_errors", "print_hosts"]


def hosts_errors(found: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with other hosts, by a title for each."""
    errors = {f"{host['name']}'s error": "; ".join(host["errors"]) for host in found["hosts"]}
    errors["hosts' error"] = found["hosts_error"]
    if (silent := found["hosts_subscribed"] - len(found["hosts"])) > 0:
        errors["silent hosts"] = f"{silent} of {found['hosts_subscribed']} gave no answer"
    return errors


def print_hosts(found: Mapping[str, Any]) -> None:
    """Print a line for each host that has answered."""
    answered = f"{len(found['hosts'])} of {found['hosts_subscribed']} answered"
    print_line(f"hosts: {'unknown' if found['hosts_error'] else answered}")
    for host in found["hosts"]:
        behind = f", behind: {', '.join(host['behind'])}" if host["behind"] else ""
        print_line(
            f"{host['name']:<14} revision {host['revision']}, {host['processes']} processes{behind}"
        )
