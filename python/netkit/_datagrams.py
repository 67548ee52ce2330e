"""What a datagram socket is in both namespaces: options, what comes in, what goes out.

Receiving many. One call of the C library fills an array of structures whose data lie in one
buffer.

    array       | data, len, cap | addr, local, hops, ... | data, len, cap | addr, ...
                    |              what is told of it         |
    C's buffer      one datagram ......                       the next ......

What is told is the same for most of a sender's datagrams. So its bytes are looked up, and give an
Address that carries them: nothing is made for each datagram but its data and the pair of both,
and the rest is decoded when somebody asks.

Sending many is the same the other way round: the data are joined, and the structures are written
by `struct`, from a template for each receiver.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import warnings
from ctypes import byref, c_char, c_void_p

from . import _lib
from ._addr import IP, Address, interface_index, interface_name, target_text
from ._base import address_of, buffer_of
from ._errors import AddressError, error, text
from ._lib import CPYTHON, Memory, Opened, Process, pointer_to, quick
from ._options import Default, _size, check_timeout, encode_text, family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, Type, TypeVar, Union

    from ._addr import AddressLike, IPLike

    T = TypeVar("T")
    InterfaceLike = Union[str, int, IPLike]
    SendersByTold = Dict[bytes, Optional[Address]]
    DataAndSender = Tuple[bytes, Optional[Address]]
else:
    SendersByTold, DataAndSender = dict, tuple

DATAGRAM_MAX = 65535            # no datagram has more bytes
MANY = 64                       # how many recv_many() takes if not told

_SIZE = ctypes.sizeof(_lib.nkt_datagram)
_HEAD = struct.calcsize("@PI")
_ADDR: int = _lib.nkt_datagram.addr.offset
_ROW = struct.Struct("@PI%dx%ds" % (_ADDR - _HEAD, _SIZE - _ADDR))
_POINTER_LEN = struct.Struct("@PI")
# All of memory, to cut datagrams out of.
_reach: Any = (c_char * sys.maxsize).from_address(0) if CPYTHON else Memory(0)
_SEND_AT_ONCE = 1024
_KNOWN_MAX = 1024               # receivers whose structure is remembered, and senders


class _Senders(SendersByTold):
    """Senders by what was told of their datagrams, made when they are first asked for."""

    def __missing__(self, told: bytes) -> Optional[Address]:
        if len(self) >= _KNOWN_MAX:
            self.clear()
        made = Address._of(_lib.nkt_addr.from_buffer_copy(told))
        if made is not None:
            object.__setattr__(made, "_told", told)
        self[told] = made
        return made


_senders = _Senders()
_NOTHING = bytes(_lib.nkt_datagram(hops=-1, traffic_class=-1))[_ADDR:]


class Datagram(DataAndSender):
    """A datagram that came: unpacks into its data and its sender.

    `data` are its bytes. The rest is looked up when it is asked for.

    >>> import netkit
    >>> with netkit.udp("127.0.0.1:0") as a, netkit.udp("127.0.0.1:0") as b:
    ...     a.send(b"hello", b.local)
    ...     got = b.recv(timeout=5)
    ...     data, sender = got
    ...     data, sender == a.local, got.to, got.truncated
    5
    (b'hello', True, IP('127.0.0.1'), False)
    """

    __slots__ = ()

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return self[0]

    @property
    def sender(self) -> Optional[Address]:
        """From whom; None in memory."""
        return self[1]

    def _struct(self) -> _lib.nkt_datagram:
        told = _NOTHING if self[1] is None else self[1]._told
        return _lib.nkt_datagram.from_buffer_copy(bytes(_ADDR) + told)

    @property
    def to(self) -> Optional[IP]:
        """Which of our addresses, or which group, it came to; None where the system does not
        say."""
        return IP._of(self._struct().local)

    @property
    def interface_index(self) -> int:
        """The interface through which it came, by number; 0 if that is not known."""
        return int(self._struct().interface_index)

    @property
    def interface(self) -> Optional[str]:
        """The interface through which it came, by name; None if that is not known."""
        try:
            return interface_name(self._struct().interface_index)
        except OSError:
            return None

    @property
    def hops(self) -> Optional[int]:
        """The hop limit (TTL) with which it came; None if that is not known."""
        hops = int(self._struct().hops)
        return None if hops < 0 else hops

    @property
    def traffic_class(self) -> Optional[int]:
        """DSCP and ECN with which it came; None if that is not known."""
        traffic_class = int(self._struct().traffic_class)
        return None if traffic_class < 0 else traffic_class

    @property
    def truncated(self) -> bool:
        """Whether it was longer than recv() was to take, and the rest is lost."""
        return bool(self._struct().truncated)

    def __reduce__(self) -> Tuple[Any, ...]:
        return _again, (type(self), self[0], None if self[1] is None else self[1]._told)

    def __repr__(self) -> str:
        return "<Datagram %r from %s>" % (self[0], self[1])


def _again(kind: Any, data: bytes, told: Optional[bytes]) -> Datagram:
    """Out of a pickle."""
    return kind((data, None if told is None else _senders[told]))   # type: ignore[no-any-return]


class _Cut(Datagram):
    """One that was cut in memory, where there is no sender to tell it by."""

    __slots__ = ()

    @property
    def truncated(self) -> bool:
        return True


class SendResult:
    """What became of a datagram on one interface: `address` is the group or the network's
    broadcast address, `interface` the interface's name, `error` None or an OSError.

    >>> import netkit
    >>> with netkit.udp(port=0) as sock:
    ...     sock.multicast_interface = "lo"
    ...     [result] = sock.send_each(b"hello", "239.255.77.77:5577")
    ...     result.interface, str(result.address), result.error
    ('lo', '239.255.77.77:5577', None)
    """

    __slots__ = ("address", "interface", "interface_index", "error")

    def __init__(self, result: _lib.nkt_udp_result) -> None:
        """Made by UDP.send_each()."""
        self.address: Optional[Address] = Address._of(result.to)
        self.interface_index: int = result.interface_index
        self.error: Optional[Exception] = (None if result.err >= 0
                                           else error(result.err, result.os_error))
        self.interface: Optional[str] = None
        try:
            self.interface = interface_name(result.interface_index)
        except OSError:
            pass

    def __repr__(self) -> str:
        return "<SendResult to %s through %s: %s>" % (self.address, self.interface,
                                                      self.error or "sent")


class UDPInfo:
    """Counts of a datagram socket since it was opened: `received` and `sent` datagrams and their
    `received_bytes` and `sent_bytes`, how many of those received were `truncated`, `joined` pairs
    of group and interface, `sockets` of the system's that it has.

    >>> import netkit
    >>> a, b = netkit.udp_pair()
    >>> with a, b:
    ...     a.send(b"hello")
    ...     b.recv(2).data
    ...     info = b.info()
    ...     info.received, info.received_bytes, info.truncated
    5
    b'he'
    (1, 2, 1)
    """

    __slots__ = ("received", "received_bytes", "sent", "sent_bytes", "truncated", "joined",
                 "sockets")

    def __init__(self, info: _lib.nkt_udp_info) -> None:
        """Made by UDP.info()."""
        self.received: int = info.received
        self.received_bytes: int = info.received_bytes
        self.sent: int = info.sent
        self.sent_bytes: int = info.sent_bytes
        self.truncated: int = info.truncated
        self.joined: int = info.joined
        self.sockets: int = info.sockets

    def __repr__(self) -> str:
        return "<UDPInfo %s>" % " ".join(
            "%s=%s" % (name, getattr(self, name)) for name in self.__slots__)


def _number(name: str, value: Optional[int], least: int, most: int) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("%s is an integer, not %s" % (name, type(value).__name__))
    if not least <= value <= most:
        raise ValueError("%s is %d to %d, not %d" % (name, least, most, value))
    return value


def open_udp(nonblocking: bool, address: Optional[AddressLike], port: Optional[int],
             family: Optional[int], interface: Optional[str], reuse_port: bool,
             icmp_errors: bool, dont_fragment: bool, loopback: bool, hops: Optional[int],
             multicast_hops: Optional[int], traffic_class: int, send_buffer: Optional[int],
             recv_buffer: Optional[int]) -> c_void_p:
    """The handle of a datagram socket. Raises what udp() says."""
    local: Optional[str] = None
    if address is not None:
        local = target_text(address, port)
    elif port is not None:
        local = ":%d" % Address(IP(0), port).port
    problem = _lib.nkt_problem()
    options = _lib.nkt_udp_opts(
        nonblocking=nonblocking, reuse_port=bool(reuse_port), icmp_errors=bool(icmp_errors),
        dont_fragment=bool(dont_fragment), no_loopback=not loopback, family=family_of(family),
        hops=_number("hops", hops, 1, 255),
        multicast_hops=_number("multicast_hops", multicast_hops, 1, 255),
        traffic_class=_number("traffic_class", traffic_class, 0, 255),
        send_buffer=_size("send_buffer", send_buffer),
        recv_buffer=_size("recv_buffer", recv_buffer), problem=ctypes.addressof(problem))
    if interface is not None:
        options.interface_name = encode_text(interface)
    handle = c_void_p()
    err = quick.nkt_udp_open(None if local is None else encode_text(local), byref(options),
                             byref(handle))
    if err < 0:
        said = problem.text.decode("utf-8", "replace") if problem.err else text(err)
        raise error(err, problem.os_error, "%r: %s" % (local, said) if local else said)
    return handle


def open_udp_pair(nonblocking: bool) -> Tuple[c_void_p, c_void_p]:
    a, b = c_void_p(), c_void_p()
    options = _lib.nkt_udp_opts(nonblocking=nonblocking)
    err = quick.nkt_udp_pair(byref(options), byref(options), 0, byref(a), byref(b))
    if err < 0:
        raise error(err)
    return a, b


def peer_of(peer: AddressLike, port: Optional[int]) -> Union[Address, Tuple[str, int]]:
    """An address, or a host name and a port to be looked up."""
    shown = target_text(peer, port)
    try:
        return Address(shown)
    except AddressError:
        host, colon, number = shown.rpartition(":")
        if not colon or not number.isdigit() or not host or host[-1] == "]" or ":" in host:
            raise
        return host, Address(IP(0), int(number)).port


class UDPBase:
    """The part of UDP that is the same in netkit and netkit.aio."""

    _functions: Any = quick         # by which calls are made that may wait
    _handle: Optional[c_void_p] = None

    def __init__(self, handle: c_void_p, timeout: Optional[float]) -> None:
        self._timeout = check_timeout(timeout)
        self._epoch = Process.epoch
        self._closed = False
        self._known: Dict[Any, _lib.nkt_addr] = {}
        self._one = _lib.nkt_datagram()
        self._buffer: Any = None
        self._data: Any = None          # the same, to cut bytes out of
        self._list: Any = None
        self._is_impaired = False
        self._handle = handle

    def _was_opened(self) -> None:
        if Opened.hook is not None:
            Opened.hook(self)

    def _impaired(self) -> None:
        """It has just been."""
        self._is_impaired = True

    # --- Failures -----------------------------------------------------------------

    def _check(self) -> c_void_p:
        handle = self._handle
        if handle is None or self._closed:
            raise ValueError("I/O operation on closed datagram socket")
        if self._epoch is not Process.epoch:
            raise RuntimeError("the datagram socket belongs to the parent process; open one here")
        return handle

    def _failure(self, err: int, about: Optional[_lib.nkt_addr] = None) -> Exception:
        os_error = 0 if self._handle is None else quick.nkt_udp_os_error(self._handle)
        made: Any = error(err, os_error)
        if about is not None:
            made.address = Address._of(about)
        return made         # type: ignore[no-any-return]

    # --- Receiving ----------------------------------------------------------------

    def _room(self, size: int) -> None:
        """Makes ready for one datagram of up to so many bytes."""
        _number("size", size, 1, DATAGRAM_MAX)
        if self._buffer is None:
            self._buffer = ctypes.create_string_buffer(DATAGRAM_MAX)
            self._one.data = ctypes.addressof(self._buffer)
            self._data = self._buffer if CPYTHON else Memory(self._one.data)
        self._one.cap = size

    def _recv_once(self) -> int:
        self._one.addr.ip.family = 0
        return self._functions.nkt_udp_recv_datagram(   # type: ignore[no-any-return]
            self._handle, byref(self._one))

    def _received(self) -> Datagram:
        one = self._one
        sender = _senders[bytes(one)[_ADDR:]]
        kind: Any = _Cut if sender is None and one.truncated else Datagram
        return kind((self._data[0:one.len], sender))        # type: ignore[no-any-return]

    def _many_room(self, limit: int) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError("the limit is 1 or more datagrams, not %r" % (limit,))
        if self._list is None or len(self._list) < limit:
            self._list = (_lib.nkt_datagram * max(limit, MANY))()
        self._limit = limit

    def _many_once(self) -> int:
        return self._functions.nkt_udp_recv_many(       # type: ignore[no-any-return]
            self._handle, byref(self._list), self._limit)

    def _received_many(self, count: int) -> List[Datagram]:
        rows = list(_ROW.iter_unpack(ctypes.string_at(self._list, count * _SIZE)))
        kind: Any = Datagram
        reach, known = _reach, _senders
        # Mostly all of them are from one sender, and comparing is less than looking up.
        first = rows[0][2]
        one = known[first]
        return list(map(kind, [
            (reach[place:place + size], one if told == first else known[told])
            for place, size, told in rows]))

    # --- Sending ------------------------------------------------------------------

    def _address(self, to: Optional[AddressLike]) -> Optional[_lib.nkt_addr]:
        """The structure of a receiver; the last ones are remembered."""
        if to is None:
            return None
        try:
            return self._known[to]
        except (KeyError, TypeError):
            pass
        made = Address(to)._struct()
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        try:
            self._known[to] = made
        except TypeError:
            pass            # a list, say: converted each time
        return made

    def _send_call(self, data: Any, to: Optional[AddressLike]) -> Tuple[Any, ...]:
        """The arguments of nkt_udp_send behind the handle, and what must be kept."""
        pointer, size, keep = buffer_of(data)
        address = self._address(to)
        return pointer, size, None if address is None else byref(address), keep, address

    def _rows(self, datagrams: Iterable[Any], to: Optional[AddressLike]) -> Tuple[Any, int, Any]:
        """An array for nkt_udp_send_many, its length, and what must be kept."""
        tails: Dict[int, bytes] = {}
        shared = self._address(to)
        parts: List[Any] = []
        ends: List[bytes] = []
        for item in datagrams:
            where = shared
            if isinstance(item, tuple):
                item, given = item
                where = self._address(given)
            if isinstance(item, str):
                raise TypeError("bytes are sent, not str: encode it")
            key = id(where)
            tail = tails.get(key)
            if tail is None:
                made = _lib.nkt_datagram()
                if where is not None:
                    made.addr = where
                tail = tails[key] = bytes(made)[_HEAD:]
            parts.append(item)
            ends.append(tail)
        blob = b"".join(parts)
        pointer, keep = pointer_to(blob)
        place, holder = address_of(pointer, keep)
        rows = []
        for part, tail in zip(parts, ends):
            size = len(part) if type(part) is bytes else memoryview(part).nbytes
            rows.append(_POINTER_LEN.pack(place, size) + tail)
            place += size
        array = (_lib.nkt_datagram * len(rows)).from_buffer_copy(b"".join(rows))
        return array, len(rows), (blob, holder)

    def send_each(self, data: Any, to: AddressLike) -> List[SendResult]:
        """Sends one datagram to a group or to 255.255.255.255 out of every suitable interface,
        and tells what became of it on each. Never waits.

        Raises OSError if there is no interface at all (ENETUNREACH), `to` is neither a group nor
        255.255.255.255 (EINVAL), or the datagram is too long (EMSGSIZE).

        >>> import netkit
        >>> with netkit.udp(port=0) as sock:
        ...     sock.multicast_interface = "lo"
        ...     sock.send_each(b"hello", "239.255.77.77:5577")
        [<SendResult to 239.255.77.77:5577 through lo: sent>]
        """
        results = (_lib.nkt_udp_result * 256)()
        pointer, size, address, _keep, _struct = self._send_call(data, to)
        count = quick.nkt_udp_send_each(self._check(), pointer, size, address, byref(results),
                                        len(results))
        if count < 0:
            raise self._failure(count)
        return [SendResult(result) for result in results[:count]]

    # --- Groups -------------------------------------------------------------------

    def _join_opts(self, interface: Optional[InterfaceLike],
                   source: Optional[IPLike]) -> _lib.nkt_join_opts:
        options = _lib.nkt_join_opts()
        if isinstance(interface, int) and not isinstance(interface, bool):
            options.interface_index = interface
        elif interface is not None:
            options.interface_name = encode_text(str(interface))
        if source is not None:
            options.source = encode_text(str(IP(source)))
        return options

    def join(self, group: IPLike, interface: Optional[InterfaceLike] = None, *,
             source: Optional[IPLike] = None) -> int:
        """Joins a multicast group, "239.255.77.77" or "ff15::77": on every suitable interface,
        also those that come later, or on one, by name, number or one of its addresses. With
        `source` only that sender is heard (RFC 4607). Never waits. Gives on how many interfaces it
        is joined now.

        Raises AddressError for bad text, OSError: EINVAL (not a group), ENODEV (no such
        interface), EAFNOSUPPORT (the socket or the source is of the other family).

        >>> import netkit
        >>> with netkit.udp(port=0) as sock:
        ...     sock.join("239.255.77.77", "127.0.0.1")
        1
        """
        options = self._join_opts(interface, source)
        count = quick.nkt_udp_join(self._check(), encode_text(str(IP(group))), byref(options))
        if count < 0:
            raise self._failure(count)
        return int(count)

    def leave(self, group: IPLike, interface: Optional[InterfaceLike] = None, *,
              source: Optional[IPLike] = None) -> None:
        """Takes back a join() with the same arguments. Never waits.

        Raises OSError with ENOENT if there was none, else as join().

        >>> import netkit
        >>> with netkit.udp(port=0) as sock:
        ...     sock.join("239.255.77.77", "127.0.0.1")
        ...     sock.leave("239.255.77.77", "127.0.0.1")
        ...     sock.info().joined
        1
        0
        """
        options = self._join_opts(interface, source)
        err = quick.nkt_udp_leave(self._check(), encode_text(str(IP(group))), byref(options))
        if err < 0:
            raise self._failure(err)

    # --- Asking and setting -------------------------------------------------------

    def _connect_to(self, address: Address) -> None:
        err = quick.nkt_udp_connect_addr(self._check(), byref(address._struct()))
        if err < 0:
            raise self._failure(err)

    def _connect_any(self, addresses: List[Address]) -> None:
        """To the first of a host's addresses that this socket can send to."""
        failure: Optional[Exception] = None
        for address in addresses:
            try:
                self._connect_to(address)
                return
            except OSError as problem:
                failure = failure or problem
        assert failure is not None
        raise failure

    def _get(self, option: int) -> int:
        value = ctypes.c_int64()
        err = quick.nkt_udp_get_option(self._check(), option, byref(value))
        if err < 0:
            raise self._failure(err)
        return value.value

    def _set(self, option: int, value: int) -> None:
        err = quick.nkt_udp_set_option(self._check(), option, value)
        if err < 0:
            raise self._failure(err)

    @property
    def timeout(self) -> Optional[float]:
        """Seconds that a call may take that is given no time-out of its own; None, which is how
        it begins, for as long as it takes."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: Optional[float]) -> None:
        self._timeout = check_timeout(seconds)

    def _timeout_of(self, timeout: Union[float, None, Default]) -> Optional[float]:
        return self._timeout if isinstance(timeout, Default) else check_timeout(timeout)

    @property
    def hops(self) -> int:
        """The hop limit (TTL) of what is sent to one receiver, 1 to 255."""
        return self._get(_lib.UDP_HOPS)

    @hops.setter
    def hops(self, hops: int) -> None:
        self._set(_lib.UDP_HOPS, _number("hops", hops, 1, 255))

    @property
    def multicast_hops(self) -> int:
        """The hop limit (TTL) of what is sent to groups, 1 to 255; 1 is this network only."""
        return self._get(_lib.UDP_MULTICAST_HOPS)

    @multicast_hops.setter
    def multicast_hops(self, hops: int) -> None:
        self._set(_lib.UDP_MULTICAST_HOPS, _number("multicast_hops", hops, 1, 255))

    @property
    def traffic_class(self) -> int:
        """DSCP and ECN of what is sent, 0 to 255 (RFC 2474, RFC 3168)."""
        return self._get(_lib.UDP_TRAFFIC_CLASS)

    @traffic_class.setter
    def traffic_class(self, traffic_class: int) -> None:
        self._set(_lib.UDP_TRAFFIC_CLASS, _number("traffic_class", traffic_class, 0, 255))

    @property
    def dont_fragment(self) -> bool:
        """Whether a datagram that is larger than the path takes is refused with EMSGSIZE."""
        return self._get(_lib.UDP_DONT_FRAGMENT) != 0

    @dont_fragment.setter
    def dont_fragment(self, on: bool) -> None:
        self._set(_lib.UDP_DONT_FRAGMENT, 1 if on else 0)

    @property
    def loopback(self) -> bool:
        """Whether this host hears its own multicast, where it has joined."""
        return self._get(_lib.UDP_LOOPBACK) != 0

    @loopback.setter
    def loopback(self, on: bool) -> None:
        self._set(_lib.UDP_LOOPBACK, 1 if on else 0)

    @property
    def send_buffer(self) -> int:
        """The system's buffer for what is sent, bytes."""
        return self._get(_lib.UDP_SEND_BUFFER)

    @send_buffer.setter
    def send_buffer(self, size: int) -> None:
        self._set(_lib.UDP_SEND_BUFFER, _size("send_buffer", size))

    @property
    def recv_buffer(self) -> int:
        """The system's buffer for what has come, bytes."""
        return self._get(_lib.UDP_RECV_BUFFER)

    @recv_buffer.setter
    def recv_buffer(self, size: int) -> None:
        self._set(_lib.UDP_RECV_BUFFER, _size("recv_buffer", size))

    @property
    def multicast_interface(self) -> Optional[str]:
        """The only interface that groups are sent through, by name; None, which is how it
        begins, for every suitable one. Set it by name or number."""
        index = self._get(_lib.UDP_MULTICAST_INTERFACE)
        return interface_name(index) if index else None

    @multicast_interface.setter
    def multicast_interface(self, interface: Union[str, int, None]) -> None:
        index = interface or 0
        if isinstance(index, str):
            index = interface_index(index)
        self._set(_lib.UDP_MULTICAST_INTERFACE, index)

    @property
    def path_mtu(self) -> Optional[int]:
        """The largest packet to the connected peer, IP header included; None where the system
        does not say."""
        try:
            return self._get(_lib.UDP_PATH_MTU)
        except OSError:
            return None

    @property
    def local(self) -> Optional[Address]:
        """The address it is bound to, [::] and the port for both families; None in memory."""
        made = _lib.nkt_addr()
        err = quick.nkt_udp_local(self._check(), byref(made))
        return Address._of(made) if err >= 0 else None

    @property
    def port(self) -> int:
        """The port it is bound to; 0 in memory."""
        bound = self.local
        return 0 if bound is None else bound.port

    @property
    def peer(self) -> Optional[Address]:
        """Whom it is connected to; None if it is not."""
        made = _lib.nkt_addr()
        err = quick.nkt_udp_peer(self._check(), byref(made))
        return Address._of(made) if err >= 0 else None

    def info(self) -> UDPInfo:
        """Counts since it was opened.

        >>> import netkit
        >>> a, b = netkit.udp_pair()
        >>> with a, b:
        ...     a.send(b"hello")
        ...     a.info().sent, a.info().sent_bytes
        5
        (1, 5)
        """
        made = _lib.nkt_udp_info()
        quick.nkt_udp_get_info(self._check(), byref(made))
        return UDPInfo(made)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def fileno(self) -> int:
        """The first descriptor, which stays netkit's; -1 in memory.

        >>> import netkit
        >>> with netkit.udp() as sock:
        ...     sock.fileno() >= 0
        True
        """
        return int(quick.nkt_udp_descriptor(self._check()))

    def __repr__(self) -> str:
        if self._closed or self._handle is None:
            return "<%s.UDP closed>" % type(self).__module__
        peer = self.peer
        return "<%s.UDP on %s%s>" % (type(self).__module__, self.local or "memory",
                                     "" if peer is None else " to %s" % peer)

    def _warn_unclosed(self, warn: Any = warnings.warn) -> None:
        if self._epoch is Process.epoch and not self._closed:
            warn("unclosed %r" % self, ResourceWarning, source=self, stacklevel=3)


for _class in (Datagram, SendResult, UDPInfo):
    _class.__module__ = "netkit"
