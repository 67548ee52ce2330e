"""Datagram sockets inside an event loop.

Each has a C poller of its own, of which the loop watches the one descriptor: that is ready when
the socket is, when interfaces have come or gone, and when another thread has posted something.
Where a poller has no descriptor (Windows) the socket's own is watched.
"""

from __future__ import annotations

import asyncio
from ctypes import byref, c_void_p
from typing import (TYPE_CHECKING, Any, AsyncIterator, Awaitable, Callable, Generator, Iterable,
                    List, Optional, Tuple, Union)

from .. import _errors, _lib
from .._addr import Address
from .._datagrams import (_SEND_AT_ONCE, _SIZE, DATAGRAM_MAX, MANY, Datagram, UDPBase, open_udp,
                          open_udp_pair, peer_of)
from .._lib import EAGAIN, NO_FD, Process, quick
from .._options import USE_DEFAULT, check_timeout
from ._conn import DONE, Timer
from ._impaired import delivered_in
from ._loop import Waiters, Watch, hub_of, open_poller, wake
from ._start import resolve

if TYPE_CHECKING:
    from .._addr import AddressLike
    from .._base import Buffer
    from .._options import Timeout

_TICK = 0.005               # between looks where there is nothing to watch
_ATTEMPTS = 16              # calls that succeed at once, between turns of others


class Ticks(Waiters):
    """For sockets in memory where pollers have no descriptor: looks now and then."""

    __slots__ = ()

    def want_read(self) -> None:
        self.loop.call_later(_TICK, wake, self.readers)


class UDP(UDPBase):
    """A datagram socket for IPv6 and IPv4. Made by udp() and udp_pair(); awaiting it is allowed
    and gives itself.

    A datagram arrives whole or not at all, perhaps twice, perhaps out of order. An error of one
    datagram is raised and the socket lives on. Any number of tasks may receive and send; close()
    ends their waiting. Who is cancelled has taken nothing. It belongs to the event loop that it
    was made in.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def main():
    ...     async with aio.udp("127.0.0.1:0") as server, aio.udp(timeout=5) as client:
    ...         await client.send(b"ping", server.local)
    ...         data, sender = await server.recv()
    ...         await server.send(b"pong", sender)
    ...         print((await client.recv()).data)
    >>> asyncio.run(main())
    b'pong'
    """

    _functions = quick

    def __init__(self, handle: c_void_p, timeout: Optional[float]) -> None:
        """See udp()."""
        self._loop = asyncio.get_running_loop()
        super().__init__(handle, timeout)
        self._attempts = 0
        self._due: Optional[asyncio.TimerHandle] = None
        self._poller = c_void_p(open_poller())
        self._events = (_lib.nkt_event * 1)()
        err = quick.nkt_poller_add_udp(self._poller, handle, None)
        if err < 0:
            self._free()
            raise _errors.error(err)
        fd = quick.nkt_poller_fd(self._poller)
        if fd == NO_FD:
            fd = quick.nkt_udp_descriptor(handle)
        self._watch: Waiters = (Ticks(self._loop) if fd == NO_FD
                                else hub_of(self._loop).watch(fd))
        self._was_opened()

    def __await__(self) -> Generator[Any, None, UDP]:
        """Opening does not wait; `await aio.udp(...)` is the same as without."""
        return self
        yield

    # --- Waiting ------------------------------------------------------------------

    def _look(self) -> None:
        """Has the poller tell the handle what became ready."""
        quick.nkt_poller_wait(self._poller, 0)
        while quick.nkt_poller_next(self._poller, byref(self._events)) >= 0:
            pass

    def _deliver(self) -> None:
        """Has what is under way leave when it is due, whether anybody waits or not."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._closed or self._loop.is_closed():
            return
        delay = delivered_in(self._handle, quick.nkt_udp_watch, quick.nkt_udp_impair_stats)
        if delay < float("inf"):
            self._due = self._loop.call_later(delay, self._deliver)

    async def _ready(self, timer: Optional[Timer]) -> None:
        waiter = self._watch.readable()
        delay_ms = quick.nkt_poller_timeout_ms(self._poller)
        later = None if delay_ms < 0 else self._loop.call_later(delay_ms / 1000, wake, [waiter])
        try:
            if timer is None:
                await waiter
            else:
                await timer.wait(waiter)
        except BaseException:
            # Who always leaves at once would never hear of what has come.
            if not self._closed:
                self._look()
            raise
        finally:
            if later is not None:
                later.cancel()
        if self._closed:
            raise _errors.os_exception(_lib.ECANCELED)
        self._look()

    async def _attempt(self, once: Callable[[], int], timeout: Timeout) -> int:
        timer: Optional[Timer] = None
        while True:
            self._check()
            self._attempts += 1
            if self._attempts > _ATTEMPTS:
                self._attempts = 0
                try:
                    await asyncio.sleep(0)
                finally:
                    if not self._closed:
                        self._look()
                self._check()
            err = once()
            if err != EAGAIN:
                if self._is_impaired:
                    self._deliver()
                return err
            if timer is None:
                seconds = self._timeout_of(timeout)
                timer = None if seconds is None else Timer(self._loop, seconds)
            self._attempts = 0
            await self._ready(timer)

    # --- Receiving ----------------------------------------------------------------

    async def recv(self, size: int = DATAGRAM_MAX, *, timeout: Timeout = USE_DEFAULT) -> Datagram:
        """Waits for a datagram, which may be empty, and gives it: it unpacks into data and
        sender. What is longer than `size` bytes is cut, and says so by `truncated`.

        Raises TimeoutError after `timeout` seconds (default: the socket's). On a connected
        socket, or with `icmp_errors`, ConnectionRefusedError and the like when an ICMP error has
        answered a datagram of ours: its `address` says whose; the socket lives on. OSError with
        ECANCELED if it was closed meanwhile; ValueError if before.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.udp("localhost:0") as a, aio.udp("localhost:0") as b:
        ...         await a.send(b"hello", ("127.0.0.1", b.port))
        ...         data, sender = await b.recv(timeout=5)
        ...         print(data, sender.port == a.port)
        >>> asyncio.run(main())
        b'hello' True
        """
        self._check()

        def once() -> int:
            self._room(size)        # another task may take fewer
            return self._recv_once()
        err = await self._attempt(once, timeout)
        if err < 0:
            raise self._failure(err, self._one.addr)
        return self._received()

    async def recv_many(self, limit: int = MANY, *,
                        timeout: Timeout = USE_DEFAULT) -> List[Datagram]:
        """Waits for a datagram and gives it with those that have come as well, at most `limit`:
        a fraction of the cost of single ones. None is cut. Raises as recv().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.udp_pair()
        ...     async with a, b:
        ...         await a.send_many([b"one", b"two"])
        ...         print([data for data, sender in await b.recv_many()])
        >>> asyncio.run(main())
        [b'one', b'two']
        """
        self._check()

        def once() -> int:
            self._many_room(limit)
            return self._many_once()
        count = await self._attempt(once, timeout)
        if count < 0:
            raise self._failure(count, self._list[0].addr)
        return self._received_many(count)

    async def __aiter__(self) -> AsyncIterator[Datagram]:
        """Gives one datagram after another, until the socket is closed."""
        while True:
            try:
                some = await self.recv_many()
            except (OSError, ValueError):
                if self._closed:
                    return
                raise
            for datagram in some:
                yield datagram

    # --- Sending ------------------------------------------------------------------

    async def send(self, data: Buffer, to: Optional[AddressLike] = None, *,
                   timeout: Timeout = USE_DEFAULT) -> int:
        """Sends one datagram to an address, or to the connected peer. A group or 255.255.255.255
        goes out of every suitable interface. Gives its length.

        Waits while the system's buffer is full. Raises TimeoutError; AddressError, a ValueError,
        for what is no address (host names are not: see resolve()); OSError: EMSGSIZE (longer
        than a datagram may be, or with `dont_fragment` than the path takes), ENOTCONN (no `to`,
        and not connected), EAFNOSUPPORT, ENETUNREACH; on a connected socket
        ConnectionRefusedError, which answers an earlier datagram: this one was not sent.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.udp() as sock:
        ...         print(await sock.send(b"hello", "127.0.0.1:9"))
        >>> asyncio.run(main())
        5
        """
        pointer, size, address, _keep, _struct = self._send_call(data, to)
        err = await self._attempt(
            lambda: quick.nkt_udp_send(         # type: ignore[no-any-return]
                self._handle, pointer, size, address), timeout)
        if err < 0:
            raise self._failure(err)
        return err

    async def send_many(self, datagrams: Iterable[Union[Buffer, Tuple[Buffer, AddressLike]]],
                        to: Optional[AddressLike] = None, *,
                        timeout: Timeout = USE_DEFAULT) -> int:
        """Sends datagrams in order: data for `to` or the connected peer, or pairs of data and
        address. Those of equal length to one receiver cost a fraction of single ones where the
        system can segment. Gives how many there were.

        Raises as send(); `sent` of the exception tells how many had gone out.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.udp("127.0.0.1:0") as a, aio.udp("127.0.0.1:0") as b:
        ...         print(await a.send_many([b"one", b"two"], b.local))
        ...         print(await a.send_many([(b"for b", b.local), (b"for me", a.local)]))
        ...         print([(await b.recv()).data for _ in range(3)], (await a.recv()).data)
        >>> asyncio.run(main())
        2
        2
        [b'one', b'two', b'for b'] b'for me'
        """
        array, count, _keep = self._rows(datagrams, to)
        sent = 0
        while sent < count:
            rest = byref(array, sent * _SIZE)
            some = min(count - sent, _SEND_AT_ONCE)
            failure: Any
            try:
                err = await self._attempt(
                    lambda: quick.nkt_udp_send_many(        # type: ignore[no-any-return]
                        self._handle, rest, some), timeout)
            except TimeoutError as error:
                failure = error
                failure.sent = sent
                raise
            if err < 0:
                failure = self._failure(err)
                failure.sent = sent
                raise failure
            sent += err
        return sent

    async def broadcast(self, data: Buffer, port: int, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Sends one datagram to every IPv4 network at hand, by its own broadcast address. Gives
        its length if one network took it. Raises as send().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.udp(family=4) as sock:
        ...         print(await sock.broadcast(b"who is there?", 5577))
        >>> asyncio.run(main())                             # doctest: +SKIP
        13
        """
        pointer, size, _none, _keep, _struct = self._send_call(data, None)
        number = Address("0.0.0.0", port).port
        err = await self._attempt(
            lambda: quick.nkt_udp_broadcast(        # type: ignore[no-any-return]
                self._handle, pointer, size, number), timeout)
        if err < 0:
            raise self._failure(err)
        return err

    async def connect(self, peer: AddressLike, port: Optional[int] = None, *,
                      timeout: Optional[float] = 30.0) -> None:
        """Sends and receives only to and from one peer from now on. A host name is looked up,
        within `timeout` seconds.

        Raises AddressError, socket.gaierror, OSError (ENETUNREACH, EAFNOSUPPORT).

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.udp("127.0.0.1:0") as a, aio.udp("127.0.0.1:0") as b:
        ...         await a.connect("127.0.0.1", b.port)
        ...         await a.send(b"hello")
        ...         print((await b.recv(timeout=5)).data)
        >>> asyncio.run(main())
        b'hello'
        """
        found = peer_of(peer, port)
        if isinstance(found, Address):
            self._connect_to(found)
        else:
            self._connect_any(await resolve(found[0], found[1], timeout=timeout))

    # --- The end ------------------------------------------------------------------

    def _free(self) -> None:
        handle, self._handle = self._handle, None
        if self._due is not None and not self._loop.is_closed():
            self._due.cancel()
        quick.nkt_udp_close(handle)
        quick.nkt_poller_close(self._poller)

    def close(self) -> Awaitable[None]:
        """Closes it, at once; it need not be awaited. Calls of other tasks end with an OSError,
        iteration just ends. May be called again.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     sock = aio.udp()
        ...     sock.close()
        ...     print(sock.closed)
        >>> asyncio.run(main())
        True
        """
        if not self._closed:
            self._closed = True
            if self._epoch is Process.epoch:
                self._watch.close()
            self._free()
        return DONE

    async def __aenter__(self) -> UDP:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self, _forget: Any = quick.nkt_udp_close,
                _close: Any = quick.nkt_poller_close) -> None:
        handle = self._handle
        if handle is None or not hasattr(self, "_watch"):
            return
        self._warn_unclosed()
        self._closed = True
        self._handle = None
        poller, watch = self._poller, self._watch

        def close() -> None:
            _forget(handle)
            _close(poller)
        if self._epoch is not Process.epoch:
            close()
        elif isinstance(watch, Watch) and watch.reading and not self._loop.is_closed():
            # A finalizer runs anywhere and must not touch the loop. Waking the poller makes the
            # loop call the watch.
            watch.orphan = close
            quick.nkt_poller_wake(poller)
        else:
            watch.abandon(close)


def udp(address: Optional[AddressLike] = None, port: Optional[int] = None, *,
        timeout: Optional[float] = None, family: Optional[int] = None,
        interface: Optional[str] = None, reuse_port: bool = False, icmp_errors: bool = False,
        dont_fragment: bool = False, loopback: bool = True, hops: Optional[int] = None,
        multicast_hops: Optional[int] = None, traffic_class: int = 0,
        send_buffer: Optional[int] = None, recv_buffer: Optional[int] = None) -> UDP:
    """Opens a datagram socket on ":port" (every address, IPv6 and IPv4), "address:port",
    "localhost:port" (both loopback addresses), or on a free port. It does not wait; awaiting it is
    allowed.
    Bound to one address it sends to groups and broadcasts through that interface alone.

    timeout             seconds of each call that is given none; None for as long as it takes
    family              4 or 6 alone; None for both
    interface           only through this one, by name
    reuse_port          share the port with others that ask for it too: each hears groups and
                        broadcasts, one each datagram for this host
    icmp_errors         receiving raises ICMP errors, although it is not connected
    dont_fragment       larger than the path takes is EMSGSIZE
    loopback            this host hears its own multicast
    hops                hop limit (TTL) of what goes to one receiver, 1 to 255
    multicast_hops      the same for groups; None for 1: this network only
    traffic_class       DSCP and ECN of what is sent, 0 to 255
    send_buffer         the system's buffer, bytes; None for its choice
    recv_buffer         the same for receiving

    Raises AddressError, a ValueError, for bad text, OSError (EADDRINUSE, EADDRNOTAVAIL, ENODEV,
    EAFNOSUPPORT), PermissionError.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def main():
    ...     async with aio.udp("localhost:0") as sock:
    ...         print(sock.port > 0)
    >>> asyncio.run(main())
    True
    """
    asyncio.get_running_loop()
    check_timeout(timeout)
    return UDP(open_udp(True, address, port, family, interface, reuse_port, icmp_errors,
                        dont_fragment, loopback, hops, multicast_hops, traffic_class, send_buffer,
                        recv_buffer), timeout)


class UDPPair(Tuple[UDP, UDP]):
    """What udp_pair() gives: two sockets; awaiting it is allowed and gives itself."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Tuple[UDP, UDP]]:
        return self
        yield


def udp_pair(*, timeout: Optional[float] = None) -> UDPPair:
    """Two datagram sockets in memory: what one sends the other receives. For tests. Awaiting it
    is allowed.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def main():
    ...     a, b = aio.udp_pair()
    ...     async with a, b:
    ...         await a.send(b"hello")
    ...         print((await b.recv()).data)
    >>> asyncio.run(main())
    b'hello'
    """
    asyncio.get_running_loop()
    check_timeout(timeout)
    return UDPPair(UDP(handle, timeout) for handle in open_udp_pair(True))


for _class in (UDP, udp, udp_pair):
    _class.__module__ = "netkit.aio"
