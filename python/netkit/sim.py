"""netkit.sim: a bad network on demand, for any connection or datagram socket, in both namespaces.

    conn = netkit.connect("chat.example.org:7777")
    netkit.sim.impair(conn, "train")                # chat over a train's network

    with netkit.sim.impaired("lte", seed=7):        # unchanged code, on a phone; seed 7 again
        run_my_game()

    @netkit.sim.impaired(loss=0.1, latency=0.08, seed=7)
    def test_that_found_a_bug():
        ...

What is sent comes late, twice, broken or not at all, and what is received too; the object stays
what it is. Chance is drawn from a seed and the number of the datagram alone: the same seed and the
same datagrams give the same fates, everywhere. Times are in seconds, rates in bytes per second,
probabilities are fractions.

A stream loses nothing: a segment that is lost comes a round trip later and holds up what is behind
it, as TCP does it. What is under way when its sender is closed still arrives, for at most 60 s;
with netkit.aio while the event loop runs.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Mapping as _Mapping
from contextvars import ContextVar, Token
from ctypes import byref, c_void_p
from functools import wraps
from threading import get_ident
from typing import (TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional,
                    Sequence, Tuple, TypeVar, Union)

from . import _lib
from ._base import ConnectionBase
from ._conn import _ending
from ._datagrams import UDPBase
from ._errors import error
from ._lib import Opened, quick

if TYPE_CHECKING:
    from typing import Literal

    from . import aio
    from ._conn import Connection, Listener
    from ._udp import UDP

    Step = Tuple[float, float, Optional["Impairment"]]
    Cut = Literal["silent", "reset", "end"]
    Shape = Literal["uniform", "normal"]
    Endpoint = TypeVar("Endpoint", Connection, UDP, Listener, aio.Connection, aio.UDP,
                       aio.Listener)
    Function = TypeVar("Function", bound=Callable[..., Any])

__all__ = ["Counters", "Impairment", "Profile", "Stats", "impair", "impaired", "profiles",
           "restore", "stats"]

SEED_MAX = (1 << 64) - 1
_SHAPES = ("uniform", "normal")
_CUTS = (None, "silent", "reset", "end")

# How C calls what Python calls otherwise, and whether it is a time there.
_MS = {"latency": "latency_ms", "jitter": "jitter_ms", "reorder_by": "reorder_ms",
       "stall_for": "stall_ms", "cut_after": "cut_ms", "accept_delay": "accept_ms",
       "repeat": "repeat_ms"}
_NAMES = {"queue": "queue_bytes"}
_PLAIN = ("overtake", "rate", "mtu", "loss", "loss_burst", "burst_loss", "duplicate", "reorder",
          "corrupt", "stall", "piece_max", "cut_bytes")
_OF_C: Dict[str, str] = {c: python for python, c in list(_MS.items()) + list(_NAMES.items())}
_OF_C.update({"steps.at_ms": "schedule", "steps.for_ms": "schedule", "steps.to": "schedule",
              "step_count": "schedule", "steps": "schedule"})
# Of whom 0 is no value but the default in C.
_NOT_ZERO = ("rate", "queue", "mtu", "loss_burst", "burst_loss", "reorder_by", "stall_for",
             "piece_max", "repeat")


def _in_python(text: str) -> str:
    """What C says of its fields, in the words of these."""
    text = re.sub(r"\b[a-z.]+_(?:ms|bytes|count)\b",
                  lambda found: _OF_C.get(found.group(), found.group()), text)
    text = re.sub(r"\b(\d+) ms\b", lambda found: "%g s" % (int(found.group(1)) / 1000), text)
    text = text.replace("expected 0, or 1 to", "expected 1 to")
    text = text.replace("NKT_CUT_NONE", "None").replace("NKT_CUT_SILENT", '"silent"')
    return text.replace("a step has no steps", "a step has no schedule")


class Impairment:
    """What a network does, in one direction. Never changes: replace() gives another one.

    Without arguments it is a perfect network. Fractions are 0 to 1, times up to an hour.

    latency         seconds, one way
    jitter          seconds: at most so much more or less, up to the latency; with "normal" the
                    standard deviation
    jitter_shape    "uniform" or "normal"
    overtake        jitter may change the order; else a datagram waits for those before it
    rate            bytes/s, with 28 (IPv6: 48) of headers for each datagram; None for no limit
    queue           bytes that wait for the rate, None for 131,072; more are lost, and a stream's
                    sender waits
    mtu             bytes: longer packets, with their headers, are lost
    loss            fraction of datagrams
    loss_burst      Gilbert-Elliott: how many datagrams the bad state lasts on average
    burst_loss      and the fraction that is lost in it
    duplicate       fraction that comes twice
    reorder         fraction that comes `reorder_by` seconds later than its turn
    corrupt         fraction that has one bit flipped
    stall           fraction of datagrams, or of a stream's reads and writes, before which nothing
                    moves for `stall_for` seconds
    piece_max       streams: a read or write moves 1 to so many bytes, by chance
    cut             how it ends before its time: "silent" (nothing arrives any more), and of
                    streams "reset" and "end"; after `cut_bytes` bytes or `cut_after` seconds,
                    without either at once
    accept_delay    listeners: so much later is each connection accepted
    schedule        [(at, for, Impairment), ...]: what holds instead from `at` seconds on for
                    `for` seconds, counted from impair(); None for it loses all
    repeat          the schedule begins anew each so many seconds

    Raises ValueError that names the field and its range.

    >>> import netkit.sim
    >>> bad = netkit.sim.Impairment(latency=0.08, jitter=0.02, loss=0.03, rate=64000)
    >>> bad
    Impairment(latency=0.08, jitter=0.02, rate=64000, loss=0.03)
    >>> bad.replace(loss=0.5).loss
    0.5
    >>> tunnel = netkit.sim.Impairment(schedule=[(5, 2, None)])     # at 5 s nothing for 2 s
    >>> netkit.sim.Impairment(loss=3)
    Traceback (most recent call last):
        ...
    ValueError: loss=3: expected a fraction, 0 to 1
    """

    __slots__ = ("latency", "jitter", "jitter_shape", "overtake", "rate", "queue", "mtu", "loss",
                 "loss_burst", "burst_loss", "duplicate", "reorder", "reorder_by", "corrupt",
                 "stall", "stall_for", "piece_max", "cut", "cut_bytes", "cut_after",
                 "accept_delay", "schedule", "repeat")

    latency: float
    jitter: float
    jitter_shape: Shape
    overtake: bool
    rate: Optional[int]
    queue: Optional[int]
    mtu: Optional[int]
    loss: float
    loss_burst: float
    burst_loss: float
    duplicate: float
    reorder: float
    reorder_by: float
    corrupt: float
    stall: float
    stall_for: float
    piece_max: Optional[int]
    cut: Optional[Cut]
    cut_bytes: Optional[int]
    cut_after: Optional[float]
    accept_delay: float
    schedule: Tuple[Step, ...]
    repeat: Optional[float]

    def __init__(self, *, latency: float = 0.0, jitter: float = 0.0,
                 jitter_shape: Shape = "uniform", overtake: bool = False,
                 rate: Optional[int] = None, queue: Optional[int] = None,
                 mtu: Optional[int] = None, loss: float = 0.0, loss_burst: float = 1.0,
                 burst_loss: float = 1.0, duplicate: float = 0.0, reorder: float = 0.0,
                 reorder_by: float = 0.02, corrupt: float = 0.0, stall: float = 0.0,
                 stall_for: float = 0.1, piece_max: Optional[int] = None,
                 cut: Optional[Cut] = None, cut_bytes: Optional[int] = None,
                 cut_after: Optional[float] = None, accept_delay: float = 0.0,
                 schedule: Sequence[Step] = (), repeat: Optional[float] = None) -> None:
        """See the class."""
        given = locals()
        for name in self.__slots__:
            object.__setattr__(self, name, given[name])
        object.__setattr__(self, "schedule", tuple(_step(step) for step in schedule))
        for name in self.__slots__:
            self._check_type(name, given[name])
        # C knows what goes together. A connection that goes nowhere is what it tries it on.
        handles = c_void_p(), c_void_p()
        err = quick.nkt_conn_pair(None, None, byref(handles[0]), byref(handles[1]))
        if err < 0:
            raise error(err)
        made = _Struct(self, 1)
        err = quick.nkt_conn_impair(handles[0], byref(made.struct))
        for handle in handles:
            quick.nkt_conn_close(handle)
        if err < 0:
            raise made.failure(err)

    def _check_type(self, name: str, value: Any) -> None:
        if name == "jitter_shape":
            if value not in _SHAPES:
                raise ValueError('jitter_shape=%r: expected "uniform" or "normal"' % (value,))
        elif name == "cut":
            if value not in _CUTS:
                raise ValueError('cut=%r: expected None, "silent", "reset" or "end"' % (value,))
        elif name == "overtake":
            if not isinstance(value, bool):
                raise TypeError("overtake is True or False, not %r" % (value,))
        elif name != "schedule" and value is not None:
            whole = name in ("rate", "queue", "mtu", "piece_max", "cut_bytes")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise TypeError("%s is %s, not %r" % (name, "a whole number" if whole
                                                      else "a number", value))
            if value == 0 and name in _NOT_ZERO:
                raise ValueError("%s=%r: expected more than 0%s"
                                 % (name, value, ", or None for none"
                                    if _DEFAULTS[name] is None else ""))
            if name in ("queue", "piece_max") and not 0 < value <= 0xFFFFFFFF:
                raise ValueError("%s=%r: expected 1 to 4294967295 bytes" % (name, value))
            if name == "mtu" and not 68 <= value <= 65535:
                raise ValueError("mtu=%r: expected 68 to 65535 bytes, or None for none" % value)
            if whole and not -(1 << 63) <= value < 1 << 63:
                raise ValueError("%s=%r: expected 0 to %d" % (name, value, (1 << 63) - 1))
        elif value is None and _DEFAULTS[name] is not None:
            raise TypeError("%s is a number, not None" % name)

    def replace(self, **fields: Any) -> Impairment:
        """The same with other values in some fields.

        >>> import netkit.sim
        >>> netkit.sim.Impairment(loss=0.1).replace(latency=0.05)
        Impairment(latency=0.05, loss=0.1)
        """
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in fields:
            if name not in values:
                raise TypeError("an impairment has no %s; it has %s"
                                % (name, ", ".join(self.__slots__)))
        values.update(fields)
        return Impairment(**values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an impairment does not change; replace() gives another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an impairment does not change; replace() gives another one")

    def _values(self) -> Tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Impairment):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return "Impairment(%s)" % ", ".join(
            "%s=%r" % (name, list(value) if name == "schedule" else value)
            for name, value in zip(self.__slots__, self._values()) if value != _DEFAULTS[name])

    def __reduce__(self) -> Tuple[Any, ...]:
        return _unpickled, ({name: value for name, value in zip(self.__slots__, self._values())
                             if value != _DEFAULTS[name]},)


_DEFAULTS: Dict[str, Any] = dict(Impairment.__init__.__kwdefaults__ or {})


def _unpickled(fields: Dict[str, Any]) -> Impairment:
    return Impairment(**fields)


def _step(step: Any) -> Step:
    try:
        at, lasts, to = step
    except (TypeError, ValueError):
        raise TypeError("a step of a schedule is (at, for, Impairment or None), not %r"
                        % (step,)) from None
    if to is not None and not isinstance(to, Impairment):
        raise TypeError("a step of a schedule goes to an Impairment or None, not %r" % (to,))
    for seconds in (at, lasts):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError("a step begins at and lasts for seconds, not %r" % (seconds,))
    return at, lasts, to


class _Struct:
    """An impairment as C has it, with what that points to."""

    def __init__(self, of: Impairment, seed: int) -> None:
        self.of = of
        self.problem = _lib.nkt_problem()
        self.keep: List[Any] = []
        self.struct = self.fill(of)
        self.struct.seed = seed

    def fill(self, of: Impairment) -> _lib.nkt_impairment:
        struct = _lib.nkt_impairment(problem=ctypes.addressof(self.problem))
        for name, in_c in _MS.items():
            setattr(struct, in_c, (getattr(of, name) or 0) * 1000.0)
        for name in _PLAIN:
            setattr(struct, name, getattr(of, name) or 0)
        struct.queue_bytes = of.queue or 0
        struct.jitter = _SHAPES.index(of.jitter_shape)
        struct.cut = _CUTS.index(of.cut)
        if of.cut_bytes == 0 or of.cut_after == 0:
            struct.cut_bytes, struct.cut_ms = 0, 0.0            # at once
        if of.schedule:
            steps = (_lib.nkt_impair_step * len(of.schedule))()
            for step, (at, lasts, to) in zip(steps, of.schedule):
                step.at_ms, step.for_ms = at * 1000.0, lasts * 1000.0
                if to is not None:
                    inner = self.fill(to)
                    self.keep.append(inner)
                    step.to = ctypes.addressof(inner)
            self.keep.append(steps)
            struct.steps, struct.step_count = ctypes.addressof(steps), len(steps)
        return struct

    def failure(self, err: int) -> Exception:
        """Why C refused it."""
        if not self.problem.err:
            return error(err)
        field = self.problem.field.decode()
        name = _OF_C.get(field, field)
        value = getattr(self.of, name, None)
        shown = list(value) if name == "schedule" and value is not None else value
        return error(err, 0, "%s=%r: %s" % (name, shown,
                                            _in_python(self.problem.text.decode())))


# --- Profiles ---------------------------------------------------------------------

class Profile(NamedTuple):
    """A network that has a name, as seen by its user: what happens to what is sent, to what is
    received, and where the figures are from.

    >>> import netkit.sim
    >>> netkit.sim.profiles["dsl"].receiving.rate
    187500
    """

    sending: Impairment
    receiving: Impairment
    source: str


class _Profiles(_Mapping):      # type: ignore[type-arg]
    """The profiles of netkit.h, by name."""

    def __init__(self) -> None:
        self._found: Optional[Dict[str, Profile]] = None

    def _all(self) -> Dict[str, Profile]:
        if self._found is None:
            found: Dict[str, Profile] = {}
            while True:
                name = quick.nkt_impair_profile_name(len(found))
                if name is None:
                    break
                ways = _lib.nkt_impairment(), _lib.nkt_impairment()
                quick.nkt_impair_profile(name, byref(ways[0]), byref(ways[1]), None)
                source = quick.nkt_impair_profile_source(len(found))
                found[name.decode()] = Profile(_from_c(ways[0]), _from_c(ways[1]),
                                               source.decode())
            self._found = found
        return self._found

    def __getitem__(self, name: str) -> Profile:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return "<netkit.sim.profiles %s>" % ", ".join(self)


def _from_c(struct: _lib.nkt_impairment) -> Impairment:
    fields: Dict[str, Any] = {}
    for name, in_c in _MS.items():
        value = getattr(struct, in_c)
        if value:
            fields[name] = value / 1000
    for name in _PLAIN:
        value = getattr(struct, name)
        if value:
            fields[name] = value
    if struct.queue_bytes:
        fields["queue"] = struct.queue_bytes
    fields["jitter_shape"] = _SHAPES[struct.jitter]
    fields["cut"] = _CUTS[struct.cut]
    if struct.step_count:
        steps = (_lib.nkt_impair_step * struct.step_count).from_address(struct.steps)
        fields["schedule"] = [
            (step.at_ms / 1000, step.for_ms / 1000,
             None if not step.to else _from_c(_lib.nkt_impairment.from_address(step.to)))
            for step in steps]
    return Impairment(**fields)


profiles: _Mapping[str, Profile] = _Profiles()


# --- One endpoint -----------------------------------------------------------------

class Counters(NamedTuple):
    """What one direction has done: datagrams, or segments of a stream, and bytes.

    `seed` repeats it; `lost` is by chance, by a step or by a cut, `overflowed` because the queue
    was full, `oversized` because of the MTU; `reordered` were delivered after one that was sent
    later (RFC 4737); `under_way` are so now; `queue_high` is the most bytes that waited for the
    rate.

    >>> import netkit
    >>> a, b = netkit.udp_pair()
    >>> with netkit.sim.impair(a, loss=0.25, seed=7), b:
    ...     for number in range(1000):
    ...         a.send(b"x") and None
    ...     sent = netkit.sim.stats(a).sent
    ...     sent.sent, sent.lost + sent.delivered, sent.seed
    (1000, 1000, 7)
    """

    seed: int
    sent: int
    sent_bytes: int
    delivered: int
    delivered_bytes: int
    lost: int
    overflowed: int
    oversized: int
    duplicated: int
    reordered: int
    corrupted: int
    stalls: int
    under_way: int
    queue_high: int


class Stats(NamedTuple):
    """What both directions of an endpoint have done.

    >>> import netkit
    >>> a, b = netkit.pair()
    >>> with netkit.sim.impair(a, piece_max=2, seed=7), b:
    ...     a.write(b"12345")
    ...     netkit.sim.stats(a).sent.sent_bytes
    5
    5
    """

    sent: Counters
    received: Counters


class _Wish:
    """What somebody asks for, checked: one impairment for each direction, or none."""

    def __init__(self, profile: Union[str, Impairment, None], sending: Optional[Impairment],
                 receiving: Optional[Impairment], fields: Dict[str, Any]) -> None:
        if profile is None and sending is None and receiving is None and not fields:
            raise TypeError("what shall the network do? Name a profile, an Impairment or fields; "
                            "restore() ends it")
        ways: List[Optional[Impairment]] = [None, None]
        if isinstance(profile, str):
            if profile not in profiles:
                raise ValueError("profile=%r: expected one of %s" % (profile, ", ".join(profiles)))
            ways[:] = profiles[profile][:2]
        elif isinstance(profile, Impairment):
            ways[:] = [profile, profile]
        elif profile is not None:
            raise TypeError("a profile is a name or an Impairment, not %r" % (profile,))
        elif sending is None and receiving is None:
            ways[:] = [Impairment(), Impairment()]
        for index, given in enumerate((sending, receiving)):
            if given is not None:
                if not isinstance(given, Impairment):
                    raise TypeError("each direction is an Impairment, not %r" % (given,))
                ways[index] = given
        if fields:
            ways = [None if way is None else way.replace(**fields) for way in ways]
        self.sending, self.receiving = ways
        self.text = ", ".join(
            ([] if profile is None else [repr(profile)]) +
            ["%s=%r" % (name, value) for name, value in
             [("sending", sending), ("receiving", receiving)] if value is not None] +
            ["%s=%r" % item for item in fields.items()])

    def apply(self, endpoint: Any, seed: int) -> None:
        """Impairs one endpoint."""
        ways = [None if way is None else _Struct(way, seed)
                for way in (self.sending, self.receiving)]
        pointers = [None if way is None else byref(way.struct) for way in ways]
        with _ending:
            handle = endpoint._check()
            err = _function(endpoint, "impair_ways")(handle, pointers[0], pointers[1])
        if err == _lib.EBUSY:
            raise error(err, 0, "it holds datagrams of recv_many() that were not taken: impair it "
                                "before, or take them first")
        if err < 0:
            for way in ways:
                if way is not None and way.problem.err:
                    raise way.failure(err)
            raise error(err)
        endpoint._impaired()


def _function(endpoint: Any, what: str) -> Any:
    if isinstance(endpoint, ConnectionBase):
        kind = "conn"
    elif isinstance(endpoint, UDPBase):
        kind = "udp"
    elif hasattr(endpoint, "_try_accept") or hasattr(endpoint, "_accepted"):
        kind = "listener"
    else:
        raise TypeError("a Connection, UDP or Listener of netkit or netkit.aio is impaired, not "
                        "%r" % (endpoint,))
    return getattr(quick, "nkt_%s_%s" % (kind, what), None)


def _seed(seed: Optional[int]) -> int:
    """A seed that was given, or one by chance, which is short to type."""
    if seed is None:
        return int.from_bytes(os.urandom(4), "little") or 1
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError("a seed is a whole number, not %r" % (seed,))
    if not 0 < seed <= SEED_MAX:
        raise ValueError("seed=%r: expected 1 to 2**64 - 1, or None for one by chance" % seed)
    return seed


def impair(endpoint: Endpoint, profile: Union[str, Impairment, None] = None, *,
           sending: Optional[Impairment] = None, receiving: Optional[Impairment] = None,
           seed: Optional[int] = None, **fields: Any) -> Endpoint:
    """Puts a Connection, UDP or Listener of either namespace on a bad network, or on another one
    if it is on one already, and gives it back.

    profile             the name of one of `profiles`, or an Impairment for both directions
    sending, receiving  an Impairment for one direction alone
    seed                repeats what happened; None for one by chance, which stats() tells
    fields              of an Impairment, for both directions: they count before the profile's

    A listener impairs what it accepts from then on, each connection with a seed of its own that
    follows from this one, and accepts it `accept_delay` seconds late. Of a blocking object call
    it from a thread that uses it. Never waits.

    Raises ValueError that names the field and its range, or the profiles there are; OSError
    (EBUSY) for a datagram socket that holds datagrams of recv_many().

    >>> import netkit
    >>> from time import monotonic
    >>> a, b = netkit.pair()
    >>> with netkit.sim.impair(a, "lte", latency=0.05, jitter=0, seed=7), b:
    ...     began = monotonic()
    ...     a.write(b"hello\\n")
    ...     b.readline()
    ...     monotonic() - began >= 0.05
    6
    b'hello\\n'
    True
    >>> netkit.sim.impair(a, "5g")
    Traceback (most recent call last):
        ...
    ValueError: profile='5g': expected one of dsl, cable, lte, 3g, edge, wifi-busy, \
satellite-geo, satellite-leo, transatlantic, train
    """
    _function(endpoint, "impair_ways")
    _Wish(profile, sending, receiving, fields).apply(endpoint, _seed(seed))
    return endpoint


def restore(endpoint: Endpoint) -> Endpoint:
    """Ends what impair() began, and gives the endpoint back; what is under way arrives in its
    time. Never waits.

    >>> import netkit
    >>> a, b = netkit.udp_pair()
    >>> with netkit.sim.impair(a, loss=1), b:
    ...     a.send(b"lost"), netkit.sim.restore(a).send(b"found"), b.recv().data
    (4, 5, b'found')
    """
    function = _function(endpoint, "impair_ways")
    with _ending:
        err = function(endpoint._check(), None, None)
    if err < 0:
        raise error(err)
    endpoint._impaired()
    return endpoint


def stats(endpoint: Any) -> Stats:
    """What the directions of an impaired Connection or UDP have done since it was first impaired:
    `sent` and `received`, each with the seed that repeats it. Never waits.

    Raises ValueError for one that never was, TypeError for a listener: what it accepts counts.

    >>> import netkit
    >>> a, b = netkit.udp_pair()
    >>> with netkit.sim.impair(a, duplicate=1, seed=7), b:
    ...     a.send(b"twice")
    ...     netkit.sim.stats(a).sent.delivered, netkit.sim.stats(a).received.sent
    5
    (2, 0)
    """
    function = _function(endpoint, "impair_stats")
    if function is None:
        raise TypeError("a listener has nothing to count: ask what it has accepted")
    found = []
    for direction in (_lib.WRITE, _lib.READ):
        struct = _lib.nkt_impair_stats()
        with _ending:
            err = function(endpoint._check(), direction, byref(struct))
        if err == _lib.ENOTFOUND:
            raise ValueError("it was never impaired")
        if err < 0:
            raise error(err)
        found.append(Counters(*(getattr(struct, name) for name in Counters._fields)))
    return Stats(found[0], found[1])


# --- Everything that is opened ----------------------------------------------------

def _mix(x: int) -> int:
    # The output function of SplitMix64, as in netkit.h.
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & SEED_MAX
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & SEED_MAX
    return x ^ (x >> 31)


# The scope of a task or thread, and those that are entered, the last one at the end.
_scope: ContextVar[Optional[impaired]] = ContextVar("netkit.sim", default=None)
_entered: List[impaired] = []


class impaired:
    """A context in which every endpoint of netkit and netkit.aio that is opened is impaired:
    connections made and accepted, pairs, datagram sockets, connections on objects of one's own.
    Also a decorator, of functions and coroutines. The arguments are those of impair().

    Each endpoint has a seed of its own that follows from `seed` in the order of opening; entering
    again begins anew. So a run that opens the same in the same order can be repeated. What a
    listener accepts follows from the listener, in the order of accepting. A `seed` of None is
    chosen by chance: the object shows it, and a note of every exception that leaves the context
    tells how to repeat it.

    Both ends of a connection that are opened inside are on such a network each: what one sends to
    the other passes two. Open one of them outside for a client on a train and a server that is
    not.

    It holds for the thread or task that enters it and for tasks created inside; and for threads
    that have entered none themselves, until it is left: of several the one entered last. Of
    nested ones the inner one counts. What was opened inside stays impaired; restore() ends that.

    >>> import netkit
    >>> with netkit.sim.impaired(loss=0.5, seed=7) as network:
    ...     a, b = netkit.udp_pair()
    >>> with a, b:
    ...     a.send_many([b"x"] * 100)
    ...     netkit.sim.stats(a).sent.lost
    100
    56
    >>> network
    <netkit.sim.impaired loss=0.5, seed=7: 2 opened>
    """

    def __init__(self, profile: Union[str, Impairment, None] = None, *,
                 sending: Optional[Impairment] = None, receiving: Optional[Impairment] = None,
                 seed: Optional[int] = None, **fields: Any) -> None:
        """See the class and impair()."""
        self._wish = _Wish(profile, sending, receiving, fields)
        self.seed: int = _seed(seed)
        self.opened: int = 0            # how many endpoints since it was entered
        self._depth = 0
        self._threads: List[int] = []
        self._tokens: List[Token[Optional[impaired]]] = []
        self._outer: Optional[impaired] = None

    def __repr__(self) -> str:
        return "<netkit.sim.impaired %s: %d opened>" % (self._arguments(), self.opened)

    def _arguments(self) -> str:
        return "%s, seed=%d" % (self._wish.text, self.seed)

    def __enter__(self) -> impaired:
        if self._depth == 0:
            self.opened = 0
            self._outer = _current()
        self._depth += 1
        self._threads.append(get_ident())
        self._tokens.append(_scope.set(self))
        _entered.append(self)
        Opened.hook = _opened
        return self

    def __exit__(self, kind: object, raised: Optional[BaseException], trace: object) -> None:
        self._depth -= 1
        self._threads.pop()
        for index in reversed(range(len(_entered))):
            if _entered[index] is self:
                del _entered[index]
                break
        if not _entered:
            Opened.hook = None
        try:
            _scope.reset(self._tokens.pop())
        except ValueError:
            pass                # left in another context than it was entered in, as fixtures do
        if raised is not None:
            _note(raised, "netkit.sim.impaired(%s) repeats this network" % self._arguments())

    def __call__(self, function: Function) -> Function:
        import inspect
        wrapper: Any
        if inspect.iscoroutinefunction(function):
            @wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)
        else:
            @wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return function(*args, **kwargs)
        return wrapper          # type: ignore[no-any-return]

    def _next_seed(self) -> int:
        self.opened += 1
        return _mix(self.seed + self.opened * 0x9E3779B97F4A7C15 & SEED_MAX) | 1


def _note(raised: BaseException, text: str) -> None:
    if hasattr(raised, "add_note"):
        raised.add_note(text)
    elif sys.version_info < (3, 11):
        # What newer Pythons show, for tools that look.
        notes: Any = getattr(raised, "__notes__", [])
        setattr(raised, "__notes__", list(notes) + [text])


def _current() -> Optional[impaired]:
    """The scope that what is opened here and now belongs to."""
    scope = _scope.get()
    while scope is not None and scope._depth == 0:
        scope = scope._outer
    if scope is None:
        here = get_ident()
        for other in reversed(_entered):
            if here not in other._threads:
                return other
    return scope


def _opened(endpoint: Any) -> None:
    """What Opened.hook is while there is a scope."""
    scope = _current()
    if scope is None:
        return
    if isinstance(endpoint, ConnectionBase):
        found = _lib.nkt_impair_stats()
        if quick.nkt_conn_impair_stats(endpoint._handle, _lib.WRITE, byref(found)) >= 0:
            return              # by the listener that has accepted it
    try:
        scope._wish.apply(endpoint, scope._next_seed())
    except BaseException:
        endpoint.close()
        raise
