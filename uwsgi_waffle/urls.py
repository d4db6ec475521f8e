"""URLs of databases: for people, without passwords and tokens, and for libpq."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode

__all__ = ["libpq_url", "redact_url"]

PASSWORD = re.compile(r"(\b\w*(?:passw|pwd|secret|token)\w*=)[^&\s]*", re.IGNORECASE)
SERVER = re.compile(r"([\w.-]*)(?::(\d*))?")


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
    elif login and scheme.startswith(("redis", "valkey", "unix")):
        login = ":***"  # it may be a token
    query = PASSWORD.sub(r"\1***", query)
    return f"{scheme}://{login}{at}{server}{slash}{path}{question}{query}"


def libpq_url(url: str) -> str:
    """Return SQLAlchemy's URL of a PostgreSQL database as libpq reads it.

    For SQLAlchemy a plus in the query is a space, and ``host=one:5433&host=two`` are two servers.
    """
    start, mark, query = re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", url).partition("?")
    pairs = parse_qsl(query)
    servers = [SERVER.fullmatch(value) for name, value in pairs if name == "host"]
    named = [server.groups("") for server in servers if server]
    if len(named) == len(servers) and (len(named) > 1 or any(port for _, port in named)):
        pairs = [pair for pair in pairs if pair[0] != "host"]
        pairs += zip(("host", "port"), map(",".join, zip(*named, strict=True)), strict=True)
    return start + mark + urlencode(pairs, quote_via=quote)
