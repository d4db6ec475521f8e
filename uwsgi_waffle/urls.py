"""URLs of databases, for people: without passwords and tokens."""

from __future__ import annotations

import re

__all__ = ["redact_url"]

PASSWORD = re.compile(r"(\b\w*(?:passw|pwd|secret|token)\w*=)[^&\s]*", re.IGNORECASE)


def redact_url(url: str) -> str:
    """Return a URL, or a driver's ``name=value`` pairs, without what is secret."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return PASSWORD.sub(r"\1***", url)
    place, question, query = rest.partition("?")
    server, slash, path = place.partition("/")
    login, at, server = server.rpartition("@")
    user, colon, _ = login.partition(":")
    if colon:
        login = f"{user}:***"
    elif login and scheme in ("redis", "rediss", "unix"):
        login = ":***"  # it may be a token
    query = PASSWORD.sub(r"\1***", query)
    return f"{scheme}://{login}{at}{server}{slash}{path}{question}{query}"
