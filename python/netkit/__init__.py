"""netkit: networking for people who just want to talk.

    with netkit.connect("localhost:6379", timeout=5) as conn:
        conn.write(b"PING\\r\\n")
        print(conn.readline())

connect(), listen(), serve(), udp(), resolve() and pair() block; netkit.aio has the same for
asyncio, with the same names, arguments and exceptions. netkit.sim puts any of them on a bad
network. Times are in seconds, lengths in bytes. What fails raises OSError in the class that
Python has for it; bad arguments raise ValueError.
"""

from __future__ import annotations

from ._addr import IP, Address, Network
from ._base import ConnectionInfo
from ._conn import Connection, Listener, connect, listen, pair, resolve, serve
from ._datagrams import Datagram, SendResult, UDPInfo
from ._errors import (AddressError, Attempt, ConnectError, IncompleteRead, LineTooLong,
                      MessageTooLong)
from ._lib import VERSION as _VERSION
from ._lib import get_include
from ._options import USE_DEFAULT
from ._udp import UDP, udp, udp_pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import sim as sim
else:
    def __getattr__(name):
        # Most programs need no bad network, and should not wait for its import.
        if name == "sim":
            from importlib import import_module
            return import_module(__name__ + ".sim")
        raise AttributeError("module %r has no attribute %r" % (__name__, name))

__version__ = "0.1.0"
assert __version__ == _VERSION

__all__ = [
    "Address", "AddressError", "Attempt", "ConnectError", "Connection", "ConnectionInfo",
    "Datagram", "IP", "IncompleteRead", "LineTooLong", "Listener", "MessageTooLong", "Network",
    "SendResult", "UDP", "UDPInfo", "USE_DEFAULT", "connect", "get_include", "listen", "pair",
    "resolve", "serve", "udp", "udp_pair"]
