"""A user's class as what a connection stands on: the extension point of both namespaces.

netkit.h calls back with pointers; here they become the methods of an object. An exception in one
of them is kept, the call in C ends with an error, and the exception comes out of the Python call.
"""

from __future__ import annotations

import ctypes

from . import _lib
from ._errors import ERRNO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

_CODES: Dict[int, int] = {number: code for code, number in ERRNO.items()}
_GATHER_MAX = 65536     # bytes that are joined for one send
# Those that are under way, by the number that stands for them in C.
_alive: Dict[int, Custom] = {}


class Custom:
    """The table of functions for one object with `recv` and `send`.

    The object has recv(size) -> bytes (b"" at the end) and send(data) -> count. Both may say that
    they cannot now, by returning None or raising BlockingIOError: then the connection waits for
    fileno(), if there is one, or for its notify(). Optional: shutdown_write(), close(), abort().
    """

    def __init__(self, target: Any, conn: Any) -> None:
        for needed in ("recv", "send"):
            if not callable(getattr(target, needed, None)):
                raise TypeError("a transport has the methods recv and send; %s has no %s"
                                % (type(target).__name__, needed))
        self.target = target
        self.raised: Optional[BaseException] = None
        self.rest = b""                 # of a recv that gave more than was asked for
        self.blocked = 0                # directions that said "not now"
        self.inside = 0                 # calls of its methods that are under way
        self.key = id(self)
        self.table = _lib.nkt_transport(
            size=ctypes.sizeof(_lib.nkt_transport), name=type(target).__name__.encode(),
            recv=_recv, send=_send, shutdown_write=_shutdown_write, watch=_watch, close=_close)
        _alive[self.key] = self

    def forget(self) -> None:
        """It is not called any more."""
        _alive.pop(self.key, None)

    def take(self) -> Optional[BaseException]:
        """The exception that a method raised, once."""
        raised, self.raised = self.raised, None
        return raised

    def fail(self, raised: BaseException) -> int:
        """Keeps an exception, and gives the code for C."""
        self.raised = raised
        if not isinstance(raised, Exception):
            return _lib.EINTR           # KeyboardInterrupt and the like end nothing
        if isinstance(raised, OSError) and raised.errno is not None:
            code = _CODES.get(raised.errno, _lib.EOS)
            if code not in (_lib.EAGAIN, _lib.EINTR):
                return code
        return _lib.EOS

    def notify(self) -> None:
        """What was blocked is looked at again."""
        self.blocked = 0


def _of(link: int) -> Custom:
    key = ctypes.cast(link, ctypes.POINTER(_lib.nkt_link)).contents.self
    return _alive[key]


def _not_now(custom: Custom, direction: int) -> int:
    custom.blocked |= direction
    return _lib.EAGAIN


def _do_recv(link: int, buffer: int, size: int) -> int:
    custom = _of(link)
    custom.inside += 1
    try:
        data = custom.rest or custom.target.recv(size)
        if data is None:
            return _not_now(custom, _lib.READ)
        custom.blocked &= ~_lib.READ
        data = bytes(data)
        custom.rest = data[size:]
        pointer, _keep = _lib.pointer_to(data)
        ctypes.memmove(buffer, pointer, min(len(data), size))
        return min(len(data), size) or _lib.EOF
    except BlockingIOError:
        return _not_now(custom, _lib.READ)
    except BaseException as raised:
        return custom.fail(raised)
    finally:
        custom.inside -= 1


def _do_send(link: int, pieces: int, count: int) -> int:
    custom = _of(link)
    custom.inside += 1
    try:
        array = ctypes.cast(pieces, ctypes.POINTER(_lib.nkt_str))
        # Many small pieces are one call, a large one is not copied twice.
        some: List[bytes] = []
        total = 0
        for i in range(count):
            if some and total + array[i].len > _GATHER_MAX:
                break
            some.append(ctypes.string_at(array[i].ptr, array[i].len))
            total += array[i].len
        data = some[0] if len(some) == 1 else b"".join(some)
        sent = custom.target.send(data)
        if not sent:
            return _not_now(custom, _lib.WRITE)
        if not 0 < sent <= len(data):
            raise ValueError("send() of %r says that %r of %d bytes were sent"
                             % (custom.target, sent, len(data)))
        custom.blocked &= ~_lib.WRITE
        return int(sent)
    except BlockingIOError:
        return _not_now(custom, _lib.WRITE)
    except BaseException as raised:
        return custom.fail(raised)
    finally:
        custom.inside -= 1


def _do_shutdown_write(link: int) -> int:
    custom = _of(link)
    custom.inside += 1
    try:
        method = getattr(custom.target, "shutdown_write", None)
        if method is not None:
            method()
        custom.blocked &= ~_lib.WRITE
        return _lib.OK
    except BlockingIOError:
        return _not_now(custom, _lib.WRITE)
    except BaseException as raised:
        return custom.fail(raised)
    finally:
        custom.inside -= 1


def _do_watch(link: int, want: int, out: int) -> None:
    custom = _of(link)
    interest = ctypes.cast(out, ctypes.POINTER(_lib.nkt_interest)).contents
    if want & ~custom.blocked:
        interest.ready = True
    # A poller keeps the descriptor for when that is over.
    method = getattr(custom.target, "fileno", None)
    if method is not None:
        custom.inside += 1
        try:
            # Whether it is ready is the descriptor's to say until the next attempt.
            _lib.quick.nkt_interest_add(out, method(), want)
        except BaseException as raised:
            custom.raised = raised
            interest.ready = True
        finally:
            custom.inside -= 1


def _do_close(link: int, abort: bool) -> None:
    custom = _of(link)
    custom.forget()
    try:
        method = getattr(custom.target, "abort", None) if abort else None
        method = method or getattr(custom.target, "close", None)
        if method is not None:
            method()
    except BaseException as raised:
        custom.raised = raised


_recv = _lib.RECV_FUNC(_do_recv)
_send = _lib.SEND_FUNC(_do_send)
_shutdown_write = _lib.SHUTDOWN_FUNC(_do_shutdown_write)
_watch = _lib.WATCH_FUNC(_do_watch)
_close = _lib.CLOSE_FUNC(_do_close)
