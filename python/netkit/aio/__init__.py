"""netkit for asyncio: what netkit has, with the same names, arguments and exceptions, awaited.

    async with aio.connect("localhost:6379", timeout=5) as conn:
        await conn.write(b"PING\\r\\n")
        print(await conn.readline())

It works on every event loop of asyncio and on uvloop. Objects of one namespace have no method of
the other. What never waits is not awaited: properties, listen(), pair(), close(); but the last
three may be. Cancelling a call at any of its awaits loses nothing that had arrived, and the object
stays usable; so asyncio.timeout() and asyncio.wait_for() may be put around anything.
"""

from __future__ import annotations

from .._addr import IP, Address, Network
from .._base import ConnectionInfo
from .._datagrams import Datagram, SendResult, UDPInfo
from .._errors import (AddressError, Attempt, ConnectError, IncompleteRead, LineTooLong,
                       MessageTooLong)
from .._options import USE_DEFAULT
from ._conn import Connection
from ._listen import Listener
from ._start import connect, listen, pair, resolve, serve
from ._udp import UDP, udp, udp_pair

__all__ = [
    "Address", "AddressError", "Attempt", "ConnectError", "Connection", "ConnectionInfo",
    "Datagram", "IP", "IncompleteRead", "LineTooLong", "Listener", "MessageTooLong", "Network",
    "SendResult", "UDP", "UDPInfo", "USE_DEFAULT", "connect", "listen", "pair", "resolve",
    "serve", "udp", "udp_pair"]

for _class in (Connection, Listener, connect, listen, pair, resolve, serve):
    _class.__module__ = "netkit.aio"
