"""A connection to a host that may have a name, given up without a trace.

Told: what speaks on the connection, a host and a port. Tells: the connection, or why there is none. uvloop's own
``create_connection`` leaves a name's resolution behind when it is cancelled, and reports its failure afterwards as
an exception that nobody retrieved; here the resolution ends with whoever asked.
"""

from __future__ import annotations

import socket
from asyncio import AbstractEventLoop, BaseProtocol
from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

P = TypeVar("P", bound=BaseProtocol)


async def dial(loop: AbstractEventLoop, protocol: Callable[[], P], host: str, port: int) -> P:
    """Connected over TCP to the first of the host's addresses that accepts.

    OSError: none does, or the name is nobody's. UnicodeError: it is no name at all.
    """
    refused: OSError | None = None
    for address in await _addresses(loop, host, port):
        try:
            _, connection = await loop.create_connection(protocol, address, port)
        except OSError as error:
            refused = refused or error
        else:
            return connection
    raise refused or OSError(f"{host} has no address")


async def _addresses(loop: AbstractEventLoop, host: str, port: int) -> list[str]:
    try:
        ip_address(host)
    except ValueError:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
    return [host]
