"""Map what redis-py raises to the errors of a store."""

from __future__ import annotations

from typing import Any

from ..errors import (
    InvalidValue,
    StoreReadOnly,
    StoreUnavailable,
    WaffleError,
    open_files_advice,
)
from ..redis_client import error_message
from .translation import TRIED_AGAIN

__all__ = ["is_moved", "store_error"]

ADVICE = f"Check that Redis answers. {TRIED_AGAIN}"

ADVICE_OF_REFUSALS = {
    "WRONGTYPE": "The key is somebody else's: set WAFFLE_NAMESPACE.",
    "DB index is out of range": "Correct the number in the URL.",
    "NOREPLICAS": "Start the replicas, or lower min-replicas-to-write.",
    "OOM": "Make room, or raise maxmemory.",
}


def store_error(redis: Any, name: str, error: Exception, *, writing: bool) -> WaffleError:
    """Return the error of a store for one of redis-py.

    Args:
        redis: the module.
        name: the store's.
        error: what redis-py raised.
        writing: whether the command was to write.
    """
    message, kinds = error_message(error), redis.exceptions
    if isinstance(error, UnicodeEncodeError):
        return InvalidValue({"": f"{name} can't hold the value: {error.reason}"})
    if isinstance(error, kinds.AuthenticationError):
        return StoreUnavailable(f"{name}: {message}. Correct user and password in its URL.")
    moved = is_moved(error)
    if moved or isinstance(error, kinds.ClusterCrossSlotError):
        place = message.split()[-1] if moved else "the one that has the keys"
        return StoreUnavailable(
            f"{name} is a node of a Redis Cluster, and another node has the store's keys. "
            f"Name that node in the URL: {place}."
        )
    if isinstance(error, kinds.ReadOnlyError) or "READONLY" in message:
        return StoreReadOnly(
            f"{name} refuses to be written, because it is a replica: {message}. Nothing was "
            "changed. Name the primary in the URL."
        )
    if isinstance(error, kinds.ResponseError):
        return _refusal(name, message, kinds, error, writing=writing)
    return StoreUnavailable(f"{name}: {message}. {open_files_advice(message) or ADVICE}")


def is_moved(error: Exception) -> bool:
    """Return whether another node of a Cluster has the key."""
    # Before redis-py 6 it is a ResponseError like others.
    return type(error).__name__ == "MovedError" or str(error).startswith("MOVED ")


def _refusal(
    name: str, message: str, kinds: Any, error: Exception, *, writing: bool
) -> WaffleError:
    unchanged = "Nothing was changed. " if writing else ""
    if isinstance(error, kinds.NoPermissionError) or "user executing the script" in message:
        error_type = StoreReadOnly if writing else StoreUnavailable
        return error_type(f"{name}: {message}. {unchanged}Give the user this right.")
    if "unknown command" in message.lower():
        message = message.partition(", with args")[0]  # those may be values
        return StoreUnavailable(
            f"{name}: {message}. If that is a Sentinel, name the primary in the URL instead. If "
            "Redis doesn't have this command, as with rename-command, let it have it."
        )
    advice = next((text for word, text in ADVICE_OF_REFUSALS.items() if word in message), "")
    return StoreUnavailable(f"{name}: Redis refuses: {message}. {unchanged}{advice}".rstrip())
