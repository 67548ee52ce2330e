"""Datagram sockets that block."""

from __future__ import annotations

from _thread import allocate_lock
from ctypes import byref, c_void_p
from time import monotonic

from . import _lib
from ._addr import Address
from ._conn import LOOP_MS, _ending, _limit_of, _slice_of, free_when_idle, resolve
from ._datagrams import (_SEND_AT_ONCE, _SIZE, DATAGRAM_MAX, MANY, Datagram, UDPBase, open_udp,
                         open_udp_pair, peer_of)
from ._lib import Process, quick, slow
from ._options import USE_DEFAULT, check_timeout
from ._running import in_loop, warn_in_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, Union

    from ._addr import AddressLike
    from ._base import Buffer
    from ._options import Timeout


class UDP(UDPBase):
    """A datagram socket for IPv6 and IPv4. Made by udp() and udp_pair().

    A datagram arrives whole or not at all, perhaps twice, perhaps out of order. An error of one
    datagram is raised and the socket lives on. One thread may receive while another sends; calls
    of several threads in one direction take turns. close() may be called from anywhere, and ends
    the waiting of others.

    A call that does not end in its time raises TimeoutError. Ctrl-C ends any wait.

    >>> import netkit
    >>> with netkit.udp("127.0.0.1:0", timeout=5) as server, netkit.udp(timeout=5) as client:
    ...     client.send(b"ping", server.local)
    ...     data, sender = server.recv()
    ...     server.send(b"pong", sender)
    ...     client.recv().data
    4
    4
    b'pong'
    """

    _functions = slow

    def __init__(self, handle: c_void_p, timeout: Optional[float]) -> None:
        """See udp()."""
        self._receiving = allocate_lock()
        self._sending = allocate_lock()
        self._ms = [0, 0]               # receiving, sending
        super().__init__(handle, timeout)
        self._was_opened()

    def _wait(self, once: Callable[[], int], timeout: Timeout, sends: bool) -> int:
        """Calls `once`, which waits in C, again after signals and slices, until the time is
        over. Python's signal handlers run in between; what they raise comes out here."""
        limit = _limit_of(self._timeout_of(timeout))
        option = _lib.UDP_SEND_TIMEOUT_MS if sends else _lib.UDP_RECV_TIMEOUT_MS
        inside = in_loop()
        while True:
            ms = LOOP_MS if inside else _slice_of(limit)
            if ms != self._ms[sends]:
                quick.nkt_udp_set_option(self._handle, option, ms)
                self._ms[sends] = ms
            err = once()
            if err == _lib.EINTR or (err == _lib.ETIMEDOUT and
                                     (limit is None or monotonic() < limit)):
                if inside:
                    inside = False
                    warn_in_loop()
                continue
            return err

    # --- Receiving ----------------------------------------------------------------

    def recv(self, size: int = DATAGRAM_MAX, *, timeout: Timeout = USE_DEFAULT) -> Datagram:
        """Waits for a datagram, which may be empty, and gives it: it unpacks into data and
        sender. What is longer than `size` bytes is cut, and says so by `truncated`.

        Raises TimeoutError after `timeout` seconds (default: the socket's). On a connected
        socket, or with `icmp_errors`, ConnectionRefusedError and the like when an ICMP error has
        answered a datagram of ours: its `address` says whose; the socket lives on. OSError with
        ECANCELED if it was closed meanwhile; ValueError if before.

        >>> import netkit
        >>> with netkit.udp("localhost:0") as a, netkit.udp("localhost:0") as b:
        ...     a.send(b"hello", ("127.0.0.1", b.port))
        ...     data, sender = b.recv(timeout=5)
        ...     data, sender.port == a.port
        5
        (b'hello', True)
        """
        try:
            with self._receiving:
                self._check()
                self._room(size)
                err = self._wait(self._recv_once, timeout, False)
                if err < 0:
                    raise self._failure(err, self._one.addr)
                return self._received()
        finally:
            if self._closed:
                self._end()

    def recv_many(self, limit: int = MANY, *, timeout: Timeout = USE_DEFAULT) -> List[Datagram]:
        """Waits for a datagram and gives it with those that have come as well, at most `limit`:
        a fraction of the cost of single ones. None is cut. Raises as recv().

        >>> import netkit
        >>> a, b = netkit.udp_pair()
        >>> with a, b:
        ...     a.send_many([b"one", b"two"])
        ...     [data for data, sender in b.recv_many()]
        2
        [b'one', b'two']
        """
        try:
            with self._receiving:
                self._check()
                self._many_room(limit)
                count = self._wait(self._many_once, timeout, False)
                if count < 0:
                    raise self._failure(count, self._list[0].addr)
                return self._received_many(count)
        finally:
            if self._closed:
                self._end()

    def __iter__(self) -> Iterator[Datagram]:
        """Gives one datagram after another, until the socket is closed."""
        while True:
            try:
                some = self.recv_many()
            except (OSError, ValueError):
                if self._closed:
                    return
                raise
            yield from some

    # --- Sending ------------------------------------------------------------------

    def _sending_call(self, once: Callable[[], Any], timeout: Timeout) -> int:
        try:
            with self._sending:
                self._check()
                return self._wait(once, timeout, True)
        finally:
            if self._closed:
                self._end()

    def send(self, data: Buffer, to: Optional[AddressLike] = None, *,
             timeout: Timeout = USE_DEFAULT) -> int:
        """Sends one datagram to an address, or to the connected peer. A group or 255.255.255.255
        goes out of every suitable interface. Gives its length.

        Waits while the system's buffer is full. Raises TimeoutError; AddressError, a ValueError,
        for what is no address (host names are not: see resolve()); OSError: EMSGSIZE (longer
        than a datagram may be, or with `dont_fragment` than the path takes), ENOTCONN (no `to`,
        and not connected), EAFNOSUPPORT, ENETUNREACH; on a connected socket
        ConnectionRefusedError, which answers an earlier datagram: this one was not sent.

        >>> import netkit
        >>> with netkit.udp() as sock:
        ...     sock.send(b"hello", "127.0.0.1:9")
        5
        """
        pointer, size, address, _keep, _struct = self._send_call(data, to)
        function = self._functions.nkt_udp_send
        err = self._sending_call(lambda: function(self._handle, pointer, size, address), timeout)
        if err < 0:
            raise self._failure(err)
        return err

    def send_many(self, datagrams: Iterable[Union[Buffer, Tuple[Buffer, AddressLike]]],
                  to: Optional[AddressLike] = None, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Sends datagrams in order: data for `to` or the connected peer, or pairs of data and
        address. Those of equal length to one receiver cost a fraction of single ones where the
        system can segment. Gives how many there were.

        Raises as send(); `sent` of the exception tells how many had gone out.

        >>> import netkit
        >>> with netkit.udp("127.0.0.1:0") as a, netkit.udp("127.0.0.1:0") as b:
        ...     a.send_many([b"one", b"two"], b.local)
        ...     a.send_many([(b"for b", b.local), (b"for me", a.local)])
        ...     [b.recv().data for _ in range(3)], a.recv().data
        2
        2
        ([b'one', b'two', b'for b'], b'for me')
        """
        array, count, _keep = self._rows(datagrams, to)
        function = self._functions.nkt_udp_send_many
        sent = 0
        while sent < count:
            rest = byref(array, sent * _SIZE)
            some = min(count - sent, _SEND_AT_ONCE)
            err = self._sending_call(lambda: function(self._handle, rest, some), timeout)
            if err < 0:
                failure: Any = self._failure(err)
                failure.sent = sent
                raise failure
            sent += err
        return sent

    def broadcast(self, data: Buffer, port: int, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Sends one datagram to every IPv4 network at hand, by its own broadcast address. Gives
        its length if one network took it. Raises as send().

        >>> import netkit
        >>> with netkit.udp(family=4) as sock:
        ...     sock.broadcast(b"who is there?", 5577)      # doctest: +SKIP
        13
        """
        pointer, size, _none, _keep, _struct = self._send_call(data, None)
        number = Address("0.0.0.0", port).port
        function = self._functions.nkt_udp_broadcast
        err = self._sending_call(lambda: function(self._handle, pointer, size, number), timeout)
        if err < 0:
            raise self._failure(err)
        return err

    def connect(self, peer: AddressLike, port: Optional[int] = None, *,
                timeout: Optional[float] = 30.0) -> None:
        """Sends and receives only to and from one peer from now on. A host name is looked up,
        within `timeout` seconds.

        Raises AddressError, socket.gaierror, OSError (ENETUNREACH, EAFNOSUPPORT).

        >>> import netkit
        >>> with netkit.udp("127.0.0.1:0") as a, netkit.udp("127.0.0.1:0") as b:
        ...     a.connect("127.0.0.1", b.port)
        ...     a.send(b"hello")
        ...     b.recv(timeout=5).data
        5
        b'hello'
        """
        found = peer_of(peer, port)
        if isinstance(found, Address):
            self._connect_to(found)
        else:
            self._connect_any(resolve(found[0], found[1], timeout=timeout))

    # --- Ending -------------------------------------------------------------------

    def close(self) -> None:
        """Closes it. Calls of other threads end with an OSError, iteration just ends. May be
        called again. Never waits.

        >>> import netkit
        >>> sock = netkit.udp()
        >>> sock.close()
        >>> sock.closed
        True
        """
        if self._closed:
            return
        self._closed = True
        if self._epoch is not Process.epoch:
            handle, self._handle = self._handle, None
            quick.nkt_udp_close(handle)
            return
        with _ending:
            if self._handle is not None and (self._receiving.locked() or self._sending.locked()):
                quick.nkt_udp_interrupt(self._handle)
        self._end()

    def _end(self) -> None:
        free_when_idle(self, self._receiving, self._sending)

    def _free(self) -> None:
        with _ending:
            handle, self._handle = self._handle, None
            quick.nkt_udp_close(handle)

    def __enter__(self) -> UDP:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._handle is not None:
            self._warn_unclosed()
            self.close()


def udp(address: Optional[AddressLike] = None, port: Optional[int] = None, *,
        timeout: Optional[float] = None, family: Optional[int] = None,
        interface: Optional[str] = None, reuse_port: bool = False, icmp_errors: bool = False,
        dont_fragment: bool = False, loopback: bool = True, hops: Optional[int] = None,
        multicast_hops: Optional[int] = None, traffic_class: int = 0,
        send_buffer: Optional[int] = None, recv_buffer: Optional[int] = None) -> UDP:
    """Opens a datagram socket on ":port" (every address, IPv6 and IPv4), "address:port",
    "localhost:port" (both loopback addresses), or on a free port.
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

    >>> import netkit
    >>> with netkit.udp("localhost:0") as sock:
    ...     sock.port > 0
    True
    """
    check_timeout(timeout)
    return UDP(open_udp(False, address, port, family, interface, reuse_port, icmp_errors,
                        dont_fragment, loopback, hops, multicast_hops, traffic_class, send_buffer,
                        recv_buffer), timeout)


def udp_pair(*, timeout: Optional[float] = None) -> Tuple[UDP, UDP]:
    """Two datagram sockets in memory: what one sends the other receives. For tests.

    >>> import netkit
    >>> a, b = netkit.udp_pair()
    >>> with a, b:
    ...     a.send(b"hello")
    ...     b.recv().data
    5
    b'hello'
    """
    check_timeout(timeout)
    a, b = open_udp_pair(False)
    return UDP(a, timeout), UDP(b, timeout)


for _class in (UDP, udp, udp_pair):
    _class.__module__ = "netkit"
