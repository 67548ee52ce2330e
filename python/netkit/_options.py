"""From Python's arguments to netkit.h's option structures, for both namespaces."""

from __future__ import annotations

import ctypes
import math

from . import _lib
from ._addr import IP, Address, target_text
from ._errors import (Attempt, connect_error, error, listen_error, lookup_error, os_exception,
                      text)
from ._lib import quick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple, Union

    from ._addr import AddressLike, IPLike


class Default:
    """The type of USE_DEFAULT: what a `timeout` argument is when none is given."""

    def __repr__(self) -> str:
        return "USE_DEFAULT"


# A call's time-out is the `timeout` of its object.
USE_DEFAULT = Default()

if TYPE_CHECKING:
    Timeout = Union[float, None, Default]

MS_MAX = 0x7FFFFFFF
LINE_MAX = _lib.LINE_MAX_DEFAULT
MESSAGE_MAX = _lib.MESSAGE_MAX_DEFAULT
QUEUE_MAX = _lib.QUEUE_MAX_DEFAULT


def check_timeout(timeout: Optional[float]) -> Optional[float]:
    """Gives it back, or raises for what is no time-out: None, or seconds of 0 or more."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError("a time-out is a number of seconds or None, not %s"
                        % type(timeout).__name__)
    if not timeout >= 0:
        raise ValueError("a time-out is 0 or more seconds, or None for none, not %r" % timeout)
    return timeout


def to_ms(seconds: float) -> int:
    """Milliseconds, rounded up, at least 1: 0 is "none" to netkit.h."""
    return max(1, math.ceil(seconds * 1000)) if seconds < 2000000 else MS_MAX


def whole_timeout_ms(timeout: Optional[float]) -> int:
    """For options where a negative number is "none"."""
    checked = check_timeout(timeout)
    return -1 if checked is None else to_ms(checked)


def _limit(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("%s is an integer, not %s" % (name, type(value).__name__))
    if not 1 <= value <= _lib.SIZE_LIMIT:
        raise ValueError("%s is 1 to %d, not %d" % (name, _lib.SIZE_LIMIT, value))
    return value


def _size(name: str, value: Optional[int]) -> int:
    return 0 if value is None else min(_limit(name, value), MS_MAX)


def family_of(family: Optional[int]) -> int:
    """4, 6 or None for both."""
    if family is None:
        return 0
    if family not in (_lib.IPV4, _lib.IPV6):
        raise ValueError("a family is 4, 6 or None for both, not %r" % (family,))
    return family


def keepalive_s(keepalive: Optional[float]) -> int:
    """Whole seconds, 0 for none."""
    return 0 if keepalive is None else max(1, math.ceil(keepalive))


class Stream:
    """What every connection can be given, checked, as the constructors' arguments."""

    def __init__(self, line_max: int, message_max: int, queue_max: int,
                 keepalive: Optional[float], send_buffer: Optional[int],
                 recv_buffer: Optional[int], cr_lines: bool, delay_small_writes: bool,
                 timeout: Optional[float] = None) -> None:
        self.timeout: Optional[float] = check_timeout(timeout)
        self.cr_lines: bool = bool(cr_lines)
        self.struct: _lib.nkt_stream_opts = _lib.nkt_stream_opts(
            line_max=_limit("line_max", line_max),
            message_max=_limit("message_max", message_max),
            queue_max=_limit("queue_max", queue_max),
            keepalive_s=keepalive_s(keepalive),
            send_buffer=_size("send_buffer", send_buffer),
            recv_buffer=_size("recv_buffer", recv_buffer),
            cr_lines=self.cr_lines, delay_small_writes=bool(delay_small_writes))

    def conn_opts(self, nonblocking: bool) -> _lib.nkt_conn_opts:
        """For connections that are made of something that is there."""
        return _lib.nkt_conn_opts(nonblocking=nonblocking, stream=self.struct)


# What a plain pair() or Connection() is made with.
def default_stream() -> Stream:
    """The defaults of every argument."""
    return Stream(LINE_MAX, MESSAGE_MAX, QUEUE_MAX, None, None, None, False, False)


def report_attempts(report: _lib.nkt_connect_report) -> Tuple[Attempt, ...]:
    """The attempts of a connect, as Python has them."""
    found = []
    for attempt in report.attempts[:min(report.attempt_count, _lib.ATTEMPTS_MAX)]:
        address = Address._of(attempt.addr)
        if address is None:
            continue
        failure = None if attempt.err == _lib.OK else os_exception(attempt.err, attempt.os_error)
        end = None if attempt.end_ms < 0 else attempt.end_ms / 1000
        found.append(Attempt(address, failure, attempt.start_ms / 1000, end))
    return tuple(found)


class Connecting:
    """A connect that is under way: its handle, and what becomes of its end."""

    def __init__(self, nonblocking: bool, address: AddressLike, port: Optional[int],
                 connect_timeout: Optional[float], default_port: Optional[int],
                 family: Optional[int], source: Union[IPLike, Address, None],
                 interface: Optional[str], attempt_delay: float, resolution_delay: float,
                 stream: Stream) -> None:
        self.target = target_text(address, port)
        self.stream = stream
        report = _lib.nkt_connect_report()
        options = _lib.nkt_connect_opts(
            nonblocking=nonblocking, timeout_ms=whole_timeout_ms(connect_timeout),
            default_port=default_port or 0, family=family_of(family),
            attempt_delay_ms=to_ms(attempt_delay), resolution_delay_ms=to_ms(resolution_delay),
            stream=stream.struct, report=ctypes.addressof(report))
        if interface is not None:
            options.interface_name = interface.encode()
        if source is not None:
            local = source if isinstance(source, Address) else Address(IP(source), 0)
            options.local = local._struct()
        self.handle = ctypes.c_void_p()
        err = quick.nkt_connect_start(encode_text(self.target), ctypes.byref(options),
                                      ctypes.byref(self.handle))
        if err < 0:
            problem = report.problem
            said = problem.text.decode("utf-8", "replace") if problem.err else text(err)
            raise self._failure(err, report.os_error, "%r: %s" % (self.target, said), ())

    def _failure(self, err: int, os_error: int, said: str,
                 attempts: Tuple[Attempt, ...]) -> Exception:
        return connect_error(err, os_error, said, attempts, self.target.startswith("unix:"))

    def report(self) -> _lib.nkt_connect_report:
        """What was tried so far."""
        report = _lib.nkt_connect_report()
        quick.nkt_conn_report(self.handle, ctypes.byref(report))
        return report

    def attempts(self) -> Tuple[Attempt, ...]:
        """The addresses that were tried."""
        return report_attempts(self.report())

    def failed(self, err: int) -> Exception:
        """The exception for a connect that ended with `err`; closes the handle."""
        report = self.report()
        quick.nkt_conn_close(self.handle)
        return self._failure(err, report.os_error,
                             report.text.decode("utf-8", "replace") or text(err),
                             report_attempts(report))


def encode_text(text: str) -> bytes:
    """Text for C. NUL would end it early."""
    if "\0" in text:
        raise ValueError("%r: there is a NUL in it" % text)
    return text.encode("utf-8", "surrogateescape")


def open_listener(nonblocking: bool, address: AddressLike, port: Optional[int],
                  timeout: Optional[float], backlog: Optional[int], reuse_port: bool,
                  keep_path: bool, interface: Optional[str], stream: Stream) -> Any:
    """The handle of a listener. Raises what listen() says."""
    target = target_text(address, port)
    problem = _lib.nkt_problem()
    check_timeout(timeout)
    options = _lib.nkt_listen_opts(
        nonblocking=nonblocking, reuse_port=bool(reuse_port), keep_path=bool(keep_path),
        backlog=_size("backlog", backlog), stream=stream.struct,
        problem=ctypes.addressof(problem))
    if interface is not None:
        options.interface_name = interface.encode()
    handle = ctypes.c_void_p()
    err = quick.nkt_listen(encode_text(target), ctypes.byref(options), ctypes.byref(handle))
    if err < 0:
        said = problem.text.decode("utf-8", "replace") if problem.err else text(err)
        raise listen_error(err, problem.os_error, "%r: %s" % (target, said))
    return handle


class Lookup:
    """A look-up that is under way."""

    def __init__(self, host: Union[str, IPLike], port: int, timeout: Optional[float],
                 family: Optional[int]) -> None:
        self.host = str(IP(host)) if not isinstance(host, str) else host
        self.port = Address(IP(0), port).port
        self.found: List[IP] = []
        self.task = ctypes.c_void_p()
        options = _lib.nkt_lookup_opts(timeout_ms=whole_timeout_ms(timeout),
                                       family=family_of(family))
        err = quick.nkt_lookup_start(encode_text(self.host), ctypes.byref(options),
                                     ctypes.byref(self.task))
        if err < 0:
            raise error(err, 0, "%r: %s" % (self.host, text(err)))

    def close(self) -> None:
        """Gives the look-up up, or frees what is left of it."""
        task, self.task = self.task, ctypes.c_void_p()
        quick.nkt_task_close(task)

    def finish(self) -> bool:
        """Fetches what has come. Whether that is all."""
        ips = (_lib.nkt_ip * _lib.LOOKUP_MAX)()
        while True:
            count = quick.nkt_lookup_finish(self.task, ctypes.byref(ips), _lib.LOOKUP_MAX)
            if count == _lib.EAGAIN:
                return False
            if count == _lib.EOF or (count < 0 and self.found):
                return True
            if count < 0:
                said = "%r: %s" % (self.host, text(count))
                if count in (_lib.ENOTFOUND, _lib.ELOOKUP):
                    raise lookup_error(count, said)
                raise error(count, 0, said)
            for struct in ips[:count]:
                ip = IP._of(struct)
                if ip is not None and ip not in self.found:
                    self.found.append(ip)

    def addresses(self) -> List[Address]:
        """What was found, in the order in which it should be tried."""
        count = min(len(self.found), 128)
        ips = (_lib.nkt_ip * 128)()
        for i in range(count):
            ips[i] = self.found[i]._struct()
        quick.nkt_ip_sort(None, ctypes.byref(ips), count)
        sorted_ips = [IP._of(struct) for struct in ips[:count]]
        return [Address._make(ip, self.port) for ip in sorted_ips if ip is not None]
