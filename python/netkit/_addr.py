"""Addresses as values: IP, Address (an IP and a port) and Network.

They are written in Python and need no library, but for `kind`, `is_global` and `embedded`.
"""

from __future__ import annotations

import os

import _socket

from . import _lib
from ._errors import AddressError
from ._lib import quick, text_of

# `ipaddress` is imported where it is needed: it takes longer to load than all of netkit.

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ipaddress
    from typing import Any, Iterator, Optional, Tuple, Union

    StdlibIP = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
    StdlibNetwork = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
    IPLike = Union["IP", str, int, bytes, StdlibIP]
    AddressLike = Union["Address", "IP", str, int, StdlibIP, Tuple[Any, int],
                        Tuple[Any, int, int, int], "os.PathLike[str]"]
    NetworkLike = Union["Network", str, StdlibNetwork]

_V4_MAPPED = 0xFFFF << 32


def _bad(code: int, shown: object, why: str) -> AddressError:
    error = AddressError("%r: %s" % (shown, why))
    error.code = code
    return error


def _bad_ip(shown: object) -> AddressError:
    return _bad(_lib.EADDR, shown, "not a valid IP address")


def _parse_v4(text: str) -> Optional[int]:
    fields = text.split(".")
    if len(fields) != 4:
        return None
    value = 0
    for field in fields:
        # "010" is 8 to some parsers and 10 to others.
        if not 1 <= len(field) <= 3 or not (field.isascii() and field.isdigit()):
            return None
        if (field[0] == "0" and len(field) > 1) or int(field) > 255:
            return None
        value = value << 8 | int(field)
    return value


def _parse_v6(text: str) -> Optional[int]:
    colon = text.rfind(":")
    if "." in text and _parse_v4(text[colon + 1:]) is None:
        return None
    if not text.isascii():
        return None
    import ipaddress
    try:
        return int(ipaddress.IPv6Address(text))
    except ValueError:
        return None


# PyPy 3.9 has neither of the two in `socket`: there they are read out of an address.

def interface_index(name: str) -> int:
    """The number of an interface. Raises OSError or ValueError if there is none."""
    found = getattr(_socket, "if_nametoindex", None)
    if found is not None:
        return int(found(name))
    struct = _lib.nkt_ip()
    if "\0" in name:
        raise ValueError("embedded null character")
    if quick.nkt_ip_parse(("fe80::1%" + name).encode(), _ref(struct)) < 0:
        raise OSError("no interface with this name")
    return struct.scope         # type: ignore[no-any-return]


def interface_name(index: int) -> str:
    """The name of an interface. Raises OSError if there is none."""
    found = getattr(_socket, "if_indextoname", None)
    if found is not None:
        return str(found(index))
    struct = _lib.nkt_ip()
    quick.nkt_ip_parse(b"fe80::1", _ref(struct))
    struct.scope = index
    _, _, name = text_of(quick.nkt_ip_format_named, _ref(struct)).partition("%")
    if not name or name == str(index):
        raise OSError("no such device or address")
    return name


def _parse_scope(text: str, shown: str) -> int:
    if text.isascii() and text.isdigit():
        if text[0] == "0" or int(text) > 0xFFFFFFFF:
            raise _bad_ip(shown)
        return int(text)
    try:
        return interface_index(text)
    except (OSError, ValueError):
        raise _bad(_lib.ENODEV, shown, "no such network interface") from None


class IP:
    """An IP address, IPv4 or IPv6, with the IPv6 scope (zone) if it has one.

    Takes text, an integer (below 2**32 it is IPv4), 4 or 16 bytes, or what `ipaddress` has.
    Parsing is strict: "127.1", "0x7f.1" and "010.0.0.1" are refused, because programs do not
    agree on what they mean. Raises AddressError, a ValueError.

    Immutable, hashable and ordered: IPv4 comes before IPv6, then by value, then by scope. Equal
    to what `ipaddress` has for the same address, with the same hash.

    >>> import netkit
    >>> netkit.IP("2001:DB8:0::1")
    IP('2001:db8::1')
    >>> netkit.IP(0x7f000001) == netkit.IP("127.0.0.1")
    True
    >>> netkit.IP("10.0.0.9") < netkit.IP("10.0.0.10") < netkit.IP("::1")
    True
    """

    __slots__ = ("_version", "_value", "_scope")

    _version: int
    _value: int
    _scope: int

    def __new__(cls, address: IPLike) -> IP:
        if type(address) is IP:
            return address
        scope = 0
        if isinstance(address, str):
            version, value, scope = cls._read(address)
        elif isinstance(address, bool):
            raise TypeError("an IP address is not a bool")
        elif isinstance(address, int):
            if not 0 <= address < 1 << 128:
                raise _bad(_lib.EADDR, address, "an IP address has at most 128 bits")
            version, value = (4 if address < 1 << 32 else 6), address
        elif isinstance(address, (bytes, bytearray)):
            if len(address) not in (4, 16):
                raise _bad(_lib.EADDR, bytes(address), "an IP address has 4 or 16 bytes")
            version, value = (4 if len(address) == 4 else 6), int.from_bytes(address, "big")
        else:
            version, value, scope = cls._of_stdlib(address)
        return cls._make(version, value, scope)

    @staticmethod
    def _of_stdlib(address: object) -> Tuple[int, int, int]:
        import ipaddress
        if isinstance(address, ipaddress.IPv4Address):
            return 4, int(address), 0
        if not isinstance(address, ipaddress.IPv6Address):
            raise TypeError("an IP address is text, an integer, bytes or of ipaddress, not %s"
                            % type(address).__name__)
        zone = getattr(address, "scope_id", None)
        return 6, int(address), _parse_scope(zone, str(address)) if zone else 0

    @classmethod
    def _make(cls, version: int, value: int, scope: int = 0) -> IP:
        self = object.__new__(cls)
        object.__setattr__(self, "_version", version)
        object.__setattr__(self, "_value", value)
        object.__setattr__(self, "_scope", scope)
        return self

    @staticmethod
    def _read(text: str) -> Tuple[int, int, int]:
        address, percent, zone = text.partition("%")
        if ":" not in address:
            value = None if percent else _parse_v4(address)
            if value is None:
                raise _bad_ip(text)
            return 4, value, 0
        value = _parse_v6(address)
        if value is None or (percent and not zone) or (percent and value >> 32 == 0xFFFF):
            raise _bad_ip(text)
        return 6, value, _parse_scope(zone, text) if percent else 0

    @classmethod
    def _of(cls, struct: _lib.nkt_ip) -> Optional[IP]:
        if struct.family == 0:
            return None
        length = 4 if struct.family == _lib.IPV4 else 16
        return cls._make(struct.family, int.from_bytes(bytes(struct.bytes[:length]), "big"),
                         struct.scope)

    def _struct(self) -> _lib.nkt_ip:
        packed = self.packed
        made = _lib.nkt_ip(scope=self._scope, family=self._version)
        made.bytes[:len(packed)] = packed
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an IP does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an IP does not change")

    def __reduce__(self) -> Tuple[Any, ...]:
        return IP._make, (self._version, self._value, self._scope)

    @property
    def version(self) -> int:
        """4 or 6."""
        return self._version

    @property
    def scope(self) -> int:
        """The index of the network interface that an IPv6 address is on; 0 for none."""
        return self._scope

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes in network order."""
        return self._value.to_bytes(4 if self._version == 4 else 16, "big")

    @property
    def ipaddress(self) -> StdlibIP:
        """The same as ipaddress.IPv4Address or IPv6Address."""
        import ipaddress
        if self._version == 4:
            return ipaddress.IPv4Address(self._value)
        if self._scope:
            return ipaddress.IPv6Address(str(self))
        return ipaddress.IPv6Address(self._value)

    @property
    def unmapped(self) -> IP:
        """The IPv4 address inside an IPv4-mapped one (::ffff:a.b.c.d); any other as it is.

        >>> import netkit
        >>> netkit.IP("::ffff:192.0.2.1").unmapped
        IP('192.0.2.1')
        """
        if self._version == 6 and self._value >> 32 == 0xFFFF:
            return IP._make(4, self._value & 0xFFFFFFFF)
        return self

    @property
    def mapped(self) -> IP:
        """The IPv4-mapped IPv6 address of an IPv4 one; any other as it is."""
        return IP._make(6, _V4_MAPPED | self._value) if self._version == 4 else self

    @property
    def embedded(self) -> Optional[IP]:
        """The IPv4 address inside an IPv4-mapped, 6to4, Teredo or NAT64 address; else None."""
        return IP._of(quick.nkt_ip_embedded(_ref(self._struct())))

    @property
    def kind(self) -> str:
        """What the address is for, by IANA's registries: "global", "private", "loopback",
        "link-local", "multicast", "documentation" and so on.

        >>> import netkit
        >>> netkit.IP("192.168.1.1").kind
        'private'
        """
        found: bytes = quick.nkt_ip_kind_name(quick.nkt_ip_classify(_ref(self._struct())))
        return found.decode()

    @property
    def is_global(self) -> bool:
        """Whether IANA's registries say that it is reachable from anywhere."""
        return bool(quick.nkt_ip_is_global(_ref(self._struct())))

    @property
    def is_loopback(self) -> bool:
        """127.0.0.0/8 or ::1."""
        return self._value >> 24 == 127 if self._version == 4 else self._value == 1

    @property
    def is_multicast(self) -> bool:
        """224.0.0.0/4 or ff00::/8."""
        return self._value >> 28 == 14 if self._version == 4 else self._value >> 120 == 0xFF

    @property
    def is_unspecified(self) -> bool:
        """0.0.0.0 or ::."""
        return self._value == 0

    @property
    def is_link_local(self) -> bool:
        """169.254.0.0/16 or fe80::/10."""
        if self._version == 4:
            return self._value >> 16 == 0xA9FE
        return self._value >> 118 == 0xFE80 >> 6

    def __int__(self) -> int:
        return self._value

    def __str__(self) -> str:
        if self._version == 4:
            return "%d.%d.%d.%d" % tuple(self.packed)
        if self._value >> 32 == 0xFFFF:
            # RFC 5952 section 5; ipaddress does so from 3.13 on.
            return "::ffff:%d.%d.%d.%d" % tuple(self.packed[12:])
        import ipaddress
        text = str(ipaddress.IPv6Address(self._value))
        return "%s%%%d" % (text, self._scope) if self._scope else text

    def __repr__(self) -> str:
        return "IP(%r)" % str(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def _key(self) -> Tuple[int, int, int]:
        return self._version, self._value, self._scope

    def __eq__(self, other: object) -> bool:
        if isinstance(other, IP):
            return self._key() == other._key()
        import ipaddress
        if isinstance(other, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
            return self.ipaddress == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.ipaddress)

    def __lt__(self, other: Union[IP, StdlibIP]) -> bool:
        theirs = _ip_key(other)
        if theirs is None:
            return NotImplemented
        return self._key() < theirs

    def __le__(self, other: Union[IP, StdlibIP]) -> bool:
        theirs = _ip_key(other)
        if theirs is None:
            return NotImplemented
        return self._key() <= theirs

    def __gt__(self, other: Union[IP, StdlibIP]) -> bool:
        theirs = _ip_key(other)
        if theirs is None:
            return NotImplemented
        return self._key() > theirs

    def __ge__(self, other: Union[IP, StdlibIP]) -> bool:
        theirs = _ip_key(other)
        if theirs is None:
            return NotImplemented
        return self._key() >= theirs


def _ref(struct: Any) -> Any:
    import ctypes
    return ctypes.byref(struct)


def _ip_key(other: object) -> Optional[Tuple[int, int, int]]:
    if isinstance(other, IP):
        return other._key()
    import ipaddress
    if isinstance(other, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return IP(other)._key()
    return None


def _parse_port(text: str, shown: object) -> int:
    if (text.isascii() and text.isdigit() and len(text) <= 5 and
            (text[0] != "0" or text == "0") and int(text) <= 65535):
        return int(text)
    raise _bad(_lib.EPORT, shown, "not a valid port: 0 to 65535")


def _check_port(port: object) -> int:
    if isinstance(port, str):
        return _parse_port(port, port) if port else _check_port(-1)
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError("a port is an integer, not %s" % type(port).__name__)
    if not 0 <= port <= 65535:
        raise _bad(_lib.EPORT, port, "not a valid port: 0 to 65535")
    return port


class Address:
    """An IP address and a port.

    Takes text ("192.0.2.1:80", "[2001:db8::1]:80"), an IP address in any form and a port, or
    what `socket` has: (host, port) and (host, port, flow label, scope). Host names are not
    addresses: see resolve(). Raises AddressError, a ValueError.

    Immutable, hashable and ordered: by IP, then by port. Unpacks into text and number.

    >>> import netkit
    >>> address = netkit.Address("[2001:db8::1]:80")
    >>> address.ip, address.port
    (IP('2001:db8::1'), 80)
    >>> host, port = netkit.Address("192.0.2.1", 80)
    >>> host, port
    ('192.0.2.1', 80)
    """

    __slots__ = ("_ip", "_port", "_flow_label", "_told")

    _ip: IP
    _port: int
    _flow_label: int
    _told: bytes        # of the sender of a datagram: what else was told of that

    def __new__(cls, address: Union[AddressLike, bytes], port: Optional[int] = None) -> Address:
        flow = 0
        if type(address) is Address and port is None:
            return address
        if isinstance(address, Address):
            if port is not None:
                raise TypeError("the address has a port already")
            ip, number = address.ip, address.port
            flow = address.flow_label
        elif isinstance(address, tuple):
            if port is not None or len(address) not in (2, 4):
                raise TypeError("an address as a tuple is (host, port) or (host, port, flow "
                                "label, scope)")
            ip, number = IP(address[0]), _check_port(address[1])
            rest: Tuple[int, ...] = tuple(address[2:])
            if rest:
                flow = rest[0]
                if rest[1] and not ip.scope and ip.version == 6:
                    ip = IP._make(6, int(ip), rest[1])
        elif isinstance(address, str) and port is None:
            ip, number = cls._read(address)
        elif port is None:
            raise TypeError("an address needs a port")
        else:
            ip, number = IP(address), _check_port(port)     # type: ignore[arg-type]
        return cls._make(ip, number, flow)

    @classmethod
    def _make(cls, ip: IP, port: int, flow_label: int = 0) -> Address:
        self = object.__new__(cls)
        object.__setattr__(self, "_ip", ip)
        object.__setattr__(self, "_port", port)
        object.__setattr__(self, "_flow_label", flow_label)
        return self

    @staticmethod
    def _read(text: str) -> Tuple[IP, int]:
        host, colon, port = text.rpartition(":")
        if not colon or (host[:1] == "[") != (host[-1:] == "]"):
            raise _bad(_lib.EADDR, text, "not an IP address and a port")
        if host[:1] == "[":
            ip = IP(host[1:-1])
            if ip.version == 4:
                raise _bad_ip(text)
        elif ":" in host:
            raise _bad(_lib.EAMBIGUOUS, text,
                       "an IPv6 address with a port is written [address]:port")
        else:
            ip = IP(host)
        return ip, _parse_port(port, text) if port else _check_port(-1)

    @classmethod
    def _of(cls, struct: _lib.nkt_addr) -> Optional[Address]:
        ip = IP._of(struct.ip)
        return None if ip is None else cls._make(ip, struct.port, struct.flow_label)

    def _struct(self) -> _lib.nkt_addr:
        return _lib.nkt_addr(ip=self._ip._struct(), port=self._port,
                             flow_label=self._flow_label)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Address does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an Address does not change")

    def __reduce__(self) -> Tuple[Any, ...]:
        return Address._make, (self._ip, self._port, self._flow_label)

    @property
    def ip(self) -> IP:
        """The IP address."""
        return self._ip

    @property
    def host(self) -> str:
        """The IP address as text."""
        return str(self._ip)

    @property
    def port(self) -> int:
        """The port, 0 to 65535."""
        return self._port

    @property
    def flow_label(self) -> int:
        """The IPv6 flow label, RFC 6437; 0 for none."""
        return self._flow_label

    @property
    def as_socket(self) -> Union[Tuple[str, int], Tuple[str, int, int, int]]:
        """What `socket` wants: (host, port) for IPv4, (host, port, flow label, scope) for IPv6.

        >>> import netkit
        >>> netkit.Address("[fe80::1%2]:80").as_socket
        ('fe80::1', 80, 0, 2)
        """
        if self._ip.version == 4:
            return str(self._ip), self._port
        plain = IP._make(6, int(self._ip))
        return str(plain), self._port, self._flow_label, self._ip.scope

    def __iter__(self) -> Iterator[Any]:
        yield str(self._ip)
        yield self._port

    def __str__(self) -> str:
        return ("[%s]:%d" if self._ip.version == 6 else "%s:%d") % (self._ip, self._port)

    def __repr__(self) -> str:
        return "Address(%r)" % str(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def _key(self) -> Tuple[IP, int, int]:
        return self._ip, self._port, self._flow_label

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __lt__(self, other: Address) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._key() < other._key()

    def __le__(self, other: Address) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._key() <= other._key()

    def __gt__(self, other: Address) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._key() > other._key()

    def __ge__(self, other: Address) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._key() >= other._key()


class Network:
    """A network: an IP address and a prefix length, with the host bits zero.

    Takes text ("10.0.0.0/8"), what `ipaddress` has, or an address and a prefix length. Host bits
    are cleared. A netmask instead of a length, and a missing length, are refused. Raises
    AddressError, a ValueError.

    Immutable, hashable and ordered: by address, then by prefix length. Equal to what `ipaddress`
    has for the same network, with the same hash.

    >>> import netkit
    >>> network = netkit.Network("10.1.2.3/8")
    >>> network, netkit.IP("10.200.0.1") in network
    (Network('10.0.0.0/8'), True)
    >>> network.first, network.last
    (IP('10.0.0.0'), IP('10.255.255.255'))
    """

    __slots__ = ("_first", "_length")

    _first: IP
    _length: int

    def __new__(cls, network: Union[NetworkLike, IPLike],
                prefix_length: Optional[int] = None) -> Network:
        if prefix_length is None:
            if isinstance(network, Network):
                return network
            if not isinstance(network, str):
                import ipaddress
                if isinstance(network, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
                    return cls._make(IP(network.network_address), network.prefixlen, network)
                raise TypeError("a network is text, of ipaddress, or an address and a prefix "
                                "length")
            text, slash, bits = network.partition("/")
            if not (slash and bits and bits.isascii() and bits.isdigit() and len(bits) <= 3 and
                    (bits[0] != "0" or bits == "0")) or "%" in text:
                raise _bad(_lib.EADDR, network, "not a network; it is address/prefix length")
            return cls._make(IP(text), int(bits), network)
        return cls._make(IP(network), prefix_length, network)      # type: ignore[arg-type]

    @classmethod
    def _make(cls, ip: IP, length: int, shown: object = None) -> Network:
        width = 32 if ip.version == 4 else 128
        if not 0 <= length <= width:
            raise _bad(_lib.EADDR, shown, "a prefix length is 0 to %d" % width)
        mask = (1 << width) - (1 << (width - length))
        self = object.__new__(cls)
        object.__setattr__(self, "_first", IP._make(ip.version, int(ip) & mask))
        object.__setattr__(self, "_length", length)
        return self

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Network does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Network does not change")

    def __reduce__(self) -> Tuple[Any, ...]:
        return Network._make, (self._first, self._length)

    @property
    def version(self) -> int:
        """4 or 6."""
        return self._first.version

    @property
    def prefix_length(self) -> int:
        """How many bits the network has in common: 8 of 10.0.0.0/8."""
        return self._length

    @property
    def netmask(self) -> IP:
        """The prefix length as a mask: 255.0.0.0 of 10.0.0.0/8."""
        width = 32 if self.version == 4 else 128
        return IP._make(self.version, (1 << width) - (1 << (width - self._length)))

    @property
    def first(self) -> IP:
        """The lowest address."""
        return self._first

    @property
    def last(self) -> IP:
        """The highest address."""
        width = 32 if self.version == 4 else 128
        return IP._make(self.version, int(self._first) | ((1 << (width - self._length)) - 1))

    @property
    def broadcast(self) -> Optional[IP]:
        """The directed broadcast address of an IPv4 network of up to 30 bits; else None."""
        return self.last if self.version == 4 and self._length <= 30 else None

    @property
    def ipaddress(self) -> StdlibNetwork:
        """The same as ipaddress.IPv4Network or IPv6Network."""
        import ipaddress
        if self.version == 4:
            return ipaddress.IPv4Network((int(self._first), self._length))
        return ipaddress.IPv6Network((int(self._first), self._length))

    def overlaps(self, other: NetworkLike) -> bool:
        """Whether the two have an address in common.

        >>> import netkit
        >>> netkit.Network("10.0.0.0/8").overlaps("10.1.0.0/16")
        True
        """
        theirs = Network(other)
        return (theirs.version == self.version and self._first <= theirs.last and
                theirs._first <= self.last)

    def __contains__(self, address: IPLike) -> bool:
        ip = IP(address)
        return (ip.version == self.version and
                int(self._first) <= int(ip) <= int(self.last))

    def __str__(self) -> str:
        return "%s/%d" % (self._first, self._length)

    def __repr__(self) -> str:
        return "Network(%r)" % str(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def _key(self) -> Tuple[IP, int]:
        return self._first, self._length

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Network):
            return self._key() == other._key()
        import ipaddress
        if isinstance(other, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
            return self.ipaddress == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.ipaddress)

    def __lt__(self, other: Network) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return self._key() < other._key()

    def __le__(self, other: Network) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return self._key() <= other._key()

    def __gt__(self, other: Network) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return self._key() > other._key()

    def __ge__(self, other: Network) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return self._key() >= other._key()


for _class in (IP, Address, Network):
    _class.__module__ = "netkit"


def target_text(address: AddressLike, port: Optional[int] = None) -> str:
    """The text for nkt_connect and nkt_listen of whatever a program has for an address."""
    if isinstance(address, str):
        if port is None:
            return address
        host = address
        if ":" in host and not host.startswith("["):
            host = "[%s]" % host
        return "%s:%d" % (host, _check_port(port))
    if isinstance(address, os.PathLike):
        if port is not None:
            raise TypeError("a path has no port")
        return "unix:" + os.fsdecode(address)
    if isinstance(address, tuple):
        if port is not None or len(address) not in (2, 4):
            raise TypeError("an address as a tuple is (host, port) or (host, port, flow label, "
                            "scope)")
        if isinstance(address[0], str) and (len(address) == 2 or not any(address[2:])):
            return target_text(address[0], address[1])
        address = Address(address)
    if isinstance(address, Address):
        if port is not None:
            raise TypeError("the address has a port already")
        if address.flow_label:
            raise ValueError("a flow label cannot be chosen here")
        return str(address)
    if port is None:
        raise TypeError("an IP address needs a port")
    return str(Address(address, port))
