"""netkit: networking for people who just want to talk."""

from __future__ import annotations

from . import _lib
from ._addr import IP, Address, Network
from ._errors import (AddressError, Attempt, ConnectError, IncompleteRead, LineTooLong,
                      MessageTooLong)

__version__ = "0.1.0"
__all__ = ["AddressError", "Address", "Attempt", "ConnectError", "IP", "IncompleteRead",
           "LineTooLong", "MessageTooLong", "Network", "__version__"]
