"""Accepting connections inside an event loop."""

from __future__ import annotations

import asyncio
import warnings
from ctypes import byref, c_void_p
from typing import TYPE_CHECKING, Any, Awaitable, Generator, List, Optional

from .. import _errors, _lib
from .._addr import Address
from .._base import take_descriptor
from .._lib import EAGAIN, OK, Opened, Process, quick, text_of
from .._options import (LINE_MAX, MESSAGE_MAX, QUEUE_MAX, USE_DEFAULT, Default, Stream,
                        check_timeout)
from ._conn import DONE, Connection, Timer
from ._loop import Waiter, Waiters, hub_of, wake

if TYPE_CHECKING:
    from .._options import Timeout


class Listener:
    """Accepts connections. Made by listen(); awaiting it is allowed and gives itself.

    Iterate over it, or call accept(), from any number of tasks. close() ends their waiting. It
    belongs to the event loop that it was made in.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def main():
    ...     async with aio.listen("localhost:0") as listener:
    ...         async with aio.connect(listener.address) as conn:
    ...             async for accepted in listener:
    ...                 await accepted.write(b"welcome\\n")
    ...                 await accepted.flush()
    ...                 accepted.close()
    ...                 break
    ...             print(await conn.readline())
    >>> asyncio.run(main())
    b'welcome\\n'
    """

    _handle: Optional[c_void_p] = None

    def __init__(self, handle: c_void_p, stream: Stream, timeout: Optional[float]) -> None:
        """See listen()."""
        self._handle = handle
        self._stream = stream
        self._timeout = timeout
        self._epoch = Process.epoch
        self._closed = False
        self._loop = asyncio.get_running_loop()
        interest = _lib.nkt_interest()
        quick.nkt_listener_watch(handle, byref(interest))
        hub = hub_of(self._loop)
        self._watches: List[Waiters] = [hub.watch(watch.fd)
                                        for watch in interest.watches[:interest.count]]
        self._is_impaired = False
        if Opened.hook is not None:
            Opened.hook(self)

    def _impaired(self) -> None:
        """It has just been, and impairs what it accepts."""
        self._is_impaired = True

    @classmethod
    def from_socket(cls, sock: Any, *, timeout: Optional[float] = None, line_max: int = LINE_MAX,
                    message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
                    keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
                    recv_buffer: Optional[int] = None, cr_lines: bool = False,
                    delay_small_writes: bool = False) -> Listener:
        """Makes a listener of a listening socket: a socket object, which is detached, or a
        descriptor. It belongs to the listener from then on.

        Raises OSError (ENOTSOCK) for what is none; then it stays the caller's.

        >>> import asyncio, socket
        >>> from netkit import aio
        >>> async def main():
        ...     sock = socket.create_server(("127.0.0.1", 0))
        ...     async with aio.Listener.from_socket(sock) as listener:
        ...         async with aio.connect(listener.address) as conn:
        ...             async with await listener.accept() as accepted:
        ...                 print(accepted.peer == conn.local)
        >>> asyncio.run(main())
        True
        """
        asyncio.get_running_loop()
        stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                        cr_lines, delay_small_writes)
        fd = sock if isinstance(sock, int) else sock.fileno()
        options = _lib.nkt_listen_opts(nonblocking=True, stream=stream.struct)
        handle = c_void_p()
        err = quick.nkt_listener_adopt(fd, byref(options), byref(handle))
        if err < 0:
            raise _errors.error(err)
        take_descriptor(sock)
        return cls(handle, stream, check_timeout(timeout))

    def __await__(self) -> Generator[Any, None, Listener]:
        """Listening does not wait; `await aio.listen(...)` is the same as without."""
        return self
        yield

    def _check(self) -> c_void_p:
        handle = self._handle
        if handle is None or self._closed:
            raise ValueError("accepting on a closed listener")
        if self._epoch is not Process.epoch:
            raise RuntimeError("the listener belongs to the parent process; open one here")
        return handle

    @property
    def timeout(self) -> Optional[float]:
        """Seconds that accept() may take that is given no time-out of its own; None, which is how
        it begins, for as long as it takes."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: Optional[float]) -> None:
        self._timeout = check_timeout(seconds)

    def _ready(self, timer: Optional[Timer]) -> Awaitable[None]:
        interest = _lib.nkt_interest()
        quick.nkt_listener_watch(self._check(), byref(interest))
        waiter = Waiter(self._loop)
        # Out of descriptors it rests for a moment, and the socket is not looked at.
        if interest.deadline_ns != _lib.NEVER:
            delay = (interest.deadline_ns - quick.nkt_now_ns(None)) / 1e9
            self._loop.call_later(max(delay, 0), wake, [waiter])
        if interest.ready:
            self._loop.call_soon(wake, [waiter])
        for watch in self._watches if interest.count > 0 else ():
            watch.enroll(waiter)
        if timer is None:
            return waiter
        return timer.wait(waiter)

    def _try_accept(self) -> Optional[Connection]:
        handle = self._check()
        accepted = c_void_p()
        err = quick.nkt_accept(handle, byref(accepted))
        if err == OK:
            conn = Connection._on_socket(self._loop, accepted, self._stream)
            if self._is_impaired:
                conn._impaired()
            return conn._was_opened()
        if err == EAGAIN:
            return None
        raise _errors.error(err, quick.nkt_listener_os_error(handle))

    async def accept(self, *, timeout: Timeout = USE_DEFAULT) -> Connection:
        """Waits for the next connection. Who is cancelled has taken none.

        Raises TimeoutError after `timeout` seconds (default: the listener's), OSError: EMFILE
        without descriptors (call again; the peers wait), ECANCELED if it was closed meanwhile;
        ValueError if before.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.listen("localhost:0") as listener:
        ...         async with aio.connect(listener.address) as conn:
        ...             async with await listener.accept() as accepted:
        ...                 print(accepted.peer == conn.local)
        >>> asyncio.run(main())
        True
        """
        chosen = self._timeout if isinstance(timeout, Default) else check_timeout(timeout)
        timer = None if chosen is None else Timer(self._loop, chosen)
        conn = self._try_accept()
        while conn is None:
            await self._ready(timer)
            if self._closed:
                raise _errors.os_exception(_lib.ECANCELED)
            conn = self._try_accept()
        return conn

    def __aiter__(self) -> Listener:
        """Accepts one connection after another, until the listener is closed."""
        return self

    async def __anext__(self) -> Connection:
        try:
            return await self.accept()
        except (OSError, ValueError):
            if self._closed:
                raise StopAsyncIteration from None
            raise

    @property
    def address(self) -> Optional[Address]:
        """Where it listens; None for a Unix-domain socket. One that listens on every address
        gives the loopback address to connect to from this host."""
        bound = self.local
        if bound is not None and bound.ip.is_unspecified:
            return Address("::1" if bound.ip.version == 6 else "127.0.0.1", bound.port)
        return bound

    @property
    def local(self) -> Optional[Address]:
        """The address it is bound to, [::] and the port for both families; None for a
        Unix-domain socket."""
        struct = _lib.nkt_addr()
        if quick.nkt_listener_local(self._check(), byref(struct)) < 0:
            return None
        return Address._of(struct)

    @property
    def port(self) -> int:
        """The port; 0 for a Unix-domain socket."""
        bound = self.local
        return 0 if bound is None else bound.port

    @property
    def name(self) -> str:
        """Where it listens, for people: "[::]:7777", "unix:/run/x.sock"."""
        return text_of(quick.nkt_listener_name, self._check())      # type: ignore[arg-type]

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def fileno(self) -> int:
        """The first descriptor, which stays netkit's.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.listen("localhost:0") as listener:
        ...         print(listener.fileno() >= 0)
        >>> asyncio.run(main())
        True
        """
        return int(quick.nkt_listener_descriptor(self._check()))

    def close(self) -> Awaitable[None]:
        """Stops listening, at once; it need not be awaited. accept() of other tasks ends with an
        OSError, iteration just ends. Connections live on. May be called again.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     listener = aio.listen("localhost:0")
        ...     listener.close()
        ...     print([conn async for conn in listener])
        >>> asyncio.run(main())
        []
        """
        if not self._closed:
            self._closed = True
            handle, self._handle = self._handle, None
            if self._epoch is Process.epoch:
                for watch in self._watches:
                    watch.close()
            quick.nkt_listener_close(handle)
        return DONE

    async def __aenter__(self) -> Listener:
        self._check()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed or self._handle is None:
            return "<netkit.aio.Listener closed>"
        return "<netkit.aio.Listener on %s>" % self.name

    def __del__(self, _warn: Any = warnings.warn,
                _close: Any = quick.nkt_listener_close) -> None:
        handle = self._handle
        if handle is None or self._closed:
            return
        if self._epoch is not Process.epoch:
            _close(handle)
            return
        _warn("unclosed %r" % self, ResourceWarning, source=self, stacklevel=2)
        self._handle = None
        watches = getattr(self, "_watches", [])
        left = [len(watches)]

        def close() -> None:
            left[0] -= 1
            if left[0] <= 0:
                _close(handle)

        for watch in watches:
            watch.abandon(close)
        if not watches:
            close()
