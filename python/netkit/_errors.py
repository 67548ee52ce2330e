"""From netkit's error codes to Python's exceptions.

What the system can say is an OSError of the class that Python has for it, with `errno` set on
every system to the same number. `code` is netkit's own number, NKT_EREFUSED and so on, the same
everywhere. Bad arguments are ValueError. Three things have no errno and are classes of their own:
a line or message longer than allowed, and a stream that ends in the middle of something.
"""

from __future__ import annotations

import errno as _errno

import _socket

from . import _lib
from ._lib import quick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple, Type

    from ._addr import Address

gaierror = _socket.gaierror


class AddressError(ValueError):
    """Text that is not the address, port, network or host name that it should be.

    `code` is netkit's number. Raised before anything is sent.

    >>> import netkit
    >>> netkit.IP("127.1")
    Traceback (most recent call last):
        ...
    netkit.AddressError: '127.1': not a valid IP address
    """

    code: int = _lib.EADDR


class LineTooLong(ValueError):
    """A line, or what read_until reads, is longer than `line_max`.

    Nothing of it has been consumed: read it in pieces with read1(), or leave it out with
    skip_line().

    >>> import netkit
    >>> a, b = netkit.pair()
    >>> with a, b:
    ...     a.write(b"x" * 1000 + b"\\nnext\\n")
    ...     b.line_max = 100
    ...     try:
    ...         b.readline()
    ...     except netkit.LineTooLong:
    ...         b.skip_line()
    ...     b.readline()
    1006
    True
    b'next\\n'
    """

    code: int = _lib.ETOOLONG


class MessageTooLong(ValueError):
    """A message is longer than `message_max`; nothing of it has been consumed or sent.

    >>> import netkit
    >>> a, b = netkit.pair()
    >>> with a, b:
    ...     a.message_max = 100
    ...     try:
    ...         a.write_message(b"x" * 101)
    ...     except netkit.MessageTooLong as error:
    ...         print(error)
    a message of 101 bytes is longer than message_max, 100 bytes
    """

    code: int = _lib.ETOOLONG


class IncompleteRead(ConnectionResetError, EOFError):
    """The stream ended in the middle of what should have been read.

    `partial` has the bytes that came.

    >>> import netkit
    >>> a, b = netkit.pair()
    >>> with a, b:
    ...     a.write(b"123")
    ...     a.close()
    ...     try:
    ...         b.read_exact(4)
    ...     except EOFError as error:
    ...         print(error.partial)
    3
    b'123'
    """

    code: int = _lib.ETRUNCATED
    partial: bytes = b""


class Attempt:
    """One address that a connect has tried.

    `address` is where; `error` is why it failed, None for the one that answered; `start` and
    `end` are seconds since the connect began, `end` None while it is under way.

    >>> import netkit
    >>> with netkit.listen("127.0.0.1:0") as listener:
    ...     with netkit.connect(listener.address) as conn:
    ...         [attempt] = conn.attempts
    ...         attempt.address == listener.address, attempt.error
    (True, None)
    """

    __slots__ = ("address", "error", "start", "end")

    def __init__(self, address: Address, error: Optional[OSError], start: float,
                 end: Optional[float]) -> None:
        self.address: Address = address
        self.error: Optional[OSError] = error
        self.start: float = start
        self.end: Optional[float] = end

    def __repr__(self) -> str:
        return "<Attempt %s: %s>" % (self.address, self.error or "connected")


class ConnectError(OSError):
    """A connect that failed; what is raised is also the class that Python has for the reason,
    ConnectionRefusedError, TimeoutError, PermissionError, socket.gaierror and so on.

    `attempts` is a tuple of Attempt, one for each address that was tried; `code` is netkit's
    number; the message tells of each.

    >>> import netkit
    >>> try:
    ...     netkit.connect("localhost:1", timeout=5)
    ... except ConnectionRefusedError as error:
    ...     print(isinstance(error, netkit.ConnectError), len(error.attempts) > 0)
    True True
    """

    code: int = _lib.EOS
    attempts: Tuple[Attempt, ...] = ()


class _Refused(ConnectError, ConnectionRefusedError):
    pass


class _Reset(ConnectError, ConnectionResetError):
    pass


class _Aborted(ConnectError, ConnectionAbortedError):
    pass


class _TimedOut(ConnectError, TimeoutError):
    pass


class _Forbidden(ConnectError, PermissionError):
    pass


class _NoSuchPath(ConnectError, FileNotFoundError):
    pass


class _NoSuchHost(ConnectError, gaierror):
    pass


for _class, _shown in ((_Refused, "ConnectionRefusedError"), (_Reset, "ConnectionResetError"),
                       (_Aborted, "ConnectionAbortedError"), (_TimedOut, "TimeoutError"),
                       (_Forbidden, "PermissionError"), (_NoSuchPath, "FileNotFoundError"),
                       (_NoSuchHost, "gaierror")):
    # What a traceback shows: the reason first.
    _class.__name__ = _class.__qualname__ = _shown
    _class.__doc__ = ConnectError.__doc__
for _public in (AddressError, LineTooLong, MessageTooLong, IncompleteRead, Attempt, ConnectError):
    _public.__module__ = "netkit"


def _number(name: str, other: str = "EIO") -> int:
    return int(getattr(_errno, name, getattr(_errno, other)))


ERRNO: Dict[int, int] = {
    _lib.EAGAIN: _errno.EAGAIN,
    _lib.EINVAL: _errno.EINVAL,
    _lib.ENOMEM: _errno.ENOMEM,
    _lib.ENOSPACE: _errno.ENOSPC,
    _lib.ETIMEDOUT: _errno.ETIMEDOUT,
    _lib.ECANCELED: _number("ECANCELED", "EINTR"),
    _lib.EINTR: _errno.EINTR,
    _lib.EPROTO: _number("EPROTO"),
    _lib.EREFUSED: _errno.ECONNREFUSED,
    _lib.ERESET: _errno.ECONNRESET,
    _lib.EPIPE: _errno.EPIPE,
    _lib.EABORTED: _errno.ECONNABORTED,
    _lib.ENETUNREACH: _errno.ENETUNREACH,
    _lib.EHOSTUNREACH: _errno.EHOSTUNREACH,
    _lib.EADDRINUSE: _errno.EADDRINUSE,
    _lib.EADDRNOTAVAIL: _errno.EADDRNOTAVAIL,
    _lib.ENOTCONN: _errno.ENOTCONN,
    _lib.EMFILE: _errno.EMFILE,
    _lib.EACCES: _errno.EACCES,
    _lib.EUNSUPPORTED: _number("EOPNOTSUPP"),
    _lib.EBUSY: _errno.EBUSY,
    _lib.ENOTFOUND: _errno.ENOENT,
    _lib.ENODEV: _errno.ENODEV,
    _lib.EMSGSIZE: _errno.EMSGSIZE,
    # Of datagrams: lines and messages that are too long are exceptions of their own.
    _lib.ETOOLONG: _errno.EMSGSIZE,
    _lib.ENOTSOCK: _errno.ENOTSOCK,
    _lib.EFORKED: _errno.EPERM,
    _lib.ENETDOWN: _errno.ENETDOWN,
    _lib.EGROUP: _errno.EINVAL,
    _lib.EFAMILY: _number("EAFNOSUPPORT"),
    _lib.EVIRTUAL: _errno.ENOTSOCK,
    _lib.EDEADLK: _errno.EDEADLK,
}

_ADDRESS_CODES = frozenset((_lib.EADDR, _lib.EPORT, _lib.ENAME, _lib.EAMBIGUOUS))

_CONNECT_CLASSES: Dict[int, Type[ConnectError]] = {
    _lib.EREFUSED: _Refused, _lib.ERESET: _Reset, _lib.EABORTED: _Aborted,
    _lib.ETIMEDOUT: _TimedOut, _lib.EACCES: _Forbidden,
}


def text(code: int) -> str:
    """The sentence for a code: "connection refused: nothing listens there"."""
    found: bytes = quick.nkt_strerror(code)
    return found.decode()


def name(code: int) -> str:
    """The name of a code: "NKT_EREFUSED"."""
    found: bytes = quick.nkt_errname(code)
    return found.decode()


def _with(error: Any, code: int) -> Any:
    error.code = code
    return error


def _errno_of(code: int, os_error: int) -> int:
    return ERRNO.get(code, os_error or _errno.EIO)


def error(code: int, os_error: int = 0, message: str = "") -> Exception:
    """The exception for a code, for a call that is none of the special ones below."""
    if not message:
        message = text(code)
        if code == _lib.EOS and os_error:
            import os
            message = os.strerror(os_error)
    if code in _ADDRESS_CODES:
        return _with(AddressError(message), code)       # type: ignore[no-any-return]
    if code == _lib.EINVAL:
        return _with(ValueError(message), code)         # type: ignore[no-any-return]
    if code == _lib.ENOMEM:
        return _with(MemoryError(message), code)        # type: ignore[no-any-return]
    if code == _lib.EFORKED:
        return _with(RuntimeError(message), code)       # type: ignore[no-any-return]
    return os_exception(code, os_error, message)


def os_exception(code: int, os_error: int = 0, message: str = "") -> OSError:
    """The OSError for a code."""
    if code == _lib.ELOOKUP:
        return lookup_error(code, message or text(code))
    made = OSError(_errno_of(code, os_error), message or text(code))
    return _with(made, code)                            # type: ignore[no-any-return]


def listen_error(code: int, os_error: int, message: str) -> Exception:
    """The exception for a listen that failed."""
    made = error(code, os_error, message)
    if code == _lib.ETOOLONG:
        return _with(OSError(_errno.ENAMETOOLONG, message), code)   # type: ignore[no-any-return]
    return made


def lookup_error(code: int, message: str) -> OSError:
    """The socket.gaierror for a look-up."""
    number = _socket.EAI_AGAIN if code == _lib.ELOOKUP else _socket.EAI_NONAME
    return _with(gaierror(number, message), code)       # type: ignore[no-any-return]


def connect_error(code: int, os_error: int, message: str, attempts: Tuple[Attempt, ...],
                  unix: bool = False) -> Exception:
    """The exception for a connect that failed after its arguments were found good."""
    if code in _ADDRESS_CODES or code in (_lib.EINVAL, _lib.ENOMEM):
        return error(code, os_error, message)
    number = _errno.ENAMETOOLONG if code == _lib.ETOOLONG else _errno_of(code, os_error)
    made: ConnectError
    if code in (_lib.ENOTFOUND, _lib.ELOOKUP) and not unix:
        number = _socket.EAI_AGAIN if code == _lib.ELOOKUP else _socket.EAI_NONAME
        made = _NoSuchHost(number, message)
    elif code == _lib.ENOTFOUND:
        made = _NoSuchPath(number, message)
    else:
        made = _CONNECT_CLASSES.get(code, ConnectError)(number, message)
    made.attempts = attempts
    return _with(made, code)                            # type: ignore[no-any-return]
