"""What operators write, in text or TOML, and what it means: ids, URLs, addresses, numbers, switches.

Told: a value as it was written. Tells: the value itself, or by ValueError what is wrong with it and how it
would be right. Looks nothing up: no name is resolved, no path is touched.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from raftkv.core.types import NodeId

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("info", "warning", "error")

_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_WITH_A_SIGN = re.compile(r"-?[0-9]{1,18}")
_SWITCHES: Final = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


class Address(NamedTuple):
    """Where to bind."""

    host: str
    port: int


InitialCluster = tuple[tuple[NodeId, str], ...]
"""Who forms the cluster: ids and URLs, in order of id."""


def parse_node_id(value: Any) -> NodeId:
    """A node's name."""
    if not isinstance(value, str) or not _NODE_ID.fullmatch(value):
        raise ValueError(f"{value!r} is not a node id: 1 to 64 of A-Z a-z 0-9 . _ -")
    return NodeId(value)


def parse_url(value: Any) -> str:
    """``http://HOST:PORT``, in the one way that it is written."""
    example = "give it like http://127.0.0.1:7401"
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a URL: {example}")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL ({error}): {example}") from None
    if parts.scheme != "http":
        raise ValueError(f"{value!r} does not start with http:// : {example}")
    if not host or not value.isascii() or re.search(r"[\s\x00-\x20\x7f]", value):
        raise ValueError(f"{value!r} names no host: {example}")
    if not port:
        raise ValueError(f"{value!r} names no port: {example}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{value!r} has more than a host and a port: {example}")
    return f"http://{_bracketed(host)}:{port}"


def is_url(value: Any) -> bool:
    """Whether it is a node's URL."""
    try:
        parse_url(value)
    except ValueError:
        return False
    return True


def parse_address(value: Any) -> Address:
    """``HOST:PORT`` to bind; an IPv6 address stands in brackets."""
    example = "give it like 127.0.0.1:7401, or 0.0.0.0:7401 for every interface"
    text = value if isinstance(value, str) else ""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{value!r} is ambiguous: put the IPv6 address in brackets, like [::1]:7401")
    if not host or not _WHOLE_NUMBER.fullmatch(port) or not 1 <= int(port) <= 65_535 or re.search(r"[\s/]", host):
        raise ValueError(f"{value!r} is not HOST:PORT: {example}")
    return Address(host, int(port))


_EXAMPLE = "n1=http://127.0.0.1:7401,n2=…"


def parse_initial_cluster(value: Any) -> InitialCluster:
    """``ID=URL,ID=URL,…``, or in the file a table of the same; sorted by id."""
    if isinstance(value, Mapping):
        pairs = [(str(id), url) for id, url in value.items()]
    elif isinstance(value, str):
        items = [item.strip() for item in value.split(",")]
        for item in items:
            if item and "=" not in item:
                raise ValueError(f"{item!r} is not ID=URL: give it like {_EXAMPLE}")
        pairs = [(id.strip(), url.strip()) for id, _, url in (item.partition("=") for item in items)]
    else:
        raise ValueError(f"{value!r} is not a list of members: give it like {_EXAMPLE}")
    members = sorted((parse_node_id(id), parse_url(url)) for id, url in pairs)
    for kind, names in (("id", [str(id) for id, _ in members]), ("URL", [url for _, url in members])):
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the {kind} {name} is there twice")
    return tuple(members)


def parse_urls(value: Any) -> tuple[str, ...]:
    """``URL,URL,…``, or a list of them; at least one."""
    listed = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"{value!r} is not a list of URLs: give it like http://127.0.0.1:7401,http://…")
    return tuple(dict.fromkeys(parse_url(item) for item in listed))


def parse_switch(value: Any) -> bool:
    """On or off."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        found = _SWITCHES.get(value.lower())
        if found is not None:
            return found
    raise ValueError(f"{value!r} is neither true nor false")


def parse_log_format(value: Any) -> str:
    """How log lines look."""
    return _one_of(LOG_FORMATS, value)


def parse_log_level(value: Any) -> str:
    """Which log lines there are."""
    return _one_of(LOG_LEVELS, value)


def _one_of(known: tuple[str, ...], value: Any) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return str(value)


def parse_path(value: Any) -> Path:
    """A directory; it need not exist yet."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError(f"{value!r} is not a path")
    return Path(value)


def whole_number(least: int, most: int) -> Callable[[Any], int]:
    """A parser of whole numbers between two bounds, both allowed."""

    def parse(value: Any) -> int:
        number = int(value) if isinstance(value, str) and _WITH_A_SIGN.fullmatch(value.strip()) else value
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{value!r} is not a whole number")
        if not least <= number <= most:
            raise ValueError(f"{number} is out of bounds: {least} to {most}")
        return number

    return parse


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host. Names are not looked up: only localhost is known."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def url_address(url: str) -> Address:
    """The host and port of a node's URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None, "parse_url has seen to it"
    assert parts.port is not None, "parse_url has seen to it"
    return Address(parts.hostname, parts.port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
