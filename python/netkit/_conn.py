"""Connections, listeners and servers that block."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import warnings
from _thread import RLock, allocate_lock, get_ident       # type: ignore[attr-defined]
from ctypes import byref, c_void_p
from time import monotonic

from . import _lib
from ._addr import Address
from ._base import (ONE, ConnectionBase, ConnectionInfo, Front, address_of, buffer_of,
                    check_encoding, dup_socket, iterate, pieces_of, take_descriptor)
from ._errors import error, os_exception
from ._lib import DIRECT, Opened, Process, quick, slow, text_of
from ._options import (LINE_MAX, MESSAGE_MAX, MS_MAX, QUEUE_MAX, USE_DEFAULT, Connecting, Default,
                       Lookup, Stream, check_timeout, default_stream, open_listener)
from ._running import Running, in_loop, warn_in_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import (Any, Callable, Iterable, Iterator, List, Optional, Set, Tuple, TypeVar,
                        Union)

    from ._addr import AddressLike, IPLike
    from ._base import Buffer, Once, Operation
    from ._options import Timeout

    T = TypeVar("T")

# Python runs signal handlers in the main thread, between two instructions. A signal that comes to
# another thread, or just before a wait begins, does not end the wait: the main thread looks up so
# often. Windows never ends one.
SLICE_MS = 100 if os.name == "nt" else 250
_SLICE_S = SLICE_MS / 1000


def _main_ident() -> Optional[int]:
    # While nobody has loaded `threading`, which takes long, this is the main thread:
    # `threading` itself concludes so when it is loaded.
    threading = sys.modules.get("threading")
    return threading.main_thread().ident if threading is not None else get_ident()


class _Main:
    ident: Optional[int] = _main_ident()


def _after_fork() -> None:
    # Only the thread that has forked lives on.
    _Main.ident = get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# Held while a handle is interrupted or freed, so that no other thread frees it meanwhile. A signal
# handler may close, too.
_ending: Any = RLock()


# How long a wait inside a running event loop is before there is a warning.
LOOP_MS = 1


def _slice_of(limit: Optional[float]) -> int:
    """How long the next wait in C may be, in milliseconds; 0 is as long as it takes."""
    if limit is None:
        return SLICE_MS if get_ident() == _Main.ident else 0
    left = limit - monotonic()
    ms = 1 if left <= 0 else min(math.ceil(left * 1000), MS_MAX)
    return SLICE_MS if ms > SLICE_MS and get_ident() == _Main.ident else ms


def _first_slice_of(timeout: Optional[float], until: Optional[float]) -> int:
    """The same for the first wait of a call, mostly without asking for the time."""
    if Running.loop() is not None:
        return LOOP_MS
    if get_ident() == _Main.ident and (timeout is None or timeout > _SLICE_S):
        return SLICE_MS
    return _slice_of(until)


def _limit_of(timeout: Optional[float]) -> Optional[float]:
    return None if timeout is None else monotonic() + timeout


def free_when_idle(owner: Any, one: Any, other: Any) -> None:
    """Frees an object's handle, once nobody is inside: whoever leaves last does it. `one` and
    `other` are held by those who are."""
    while owner._handle is not None:
        if one.acquire(False):
            try:
                if other.acquire(False):
                    try:
                        owner._free()
                    finally:
                        other.release()
            finally:
                one.release()
        if one.locked() or other.locked():
            return


class Connection(ConnectionBase):
    """A connected byte stream.

    Made by connect(), Listener.accept(), pair() and from_socket(), or of an object with `recv`
    and `send` methods: then it stands on that, and everything here works over it. `recv(size)`
    gives up to `size` bytes, b"" at the end; `send(data)` says how many bytes of it were sent.
    Both may wait. `shutdown_write()`, `close()` and `abort()` are called if they are there. What
    they raise comes out of the call that needed them.

    Reading and writing are independent: one thread may read while another writes. Reads of
    several threads take turns, each a whole call; so do writes. close() may be called from
    anywhere, and ends the waiting of others.

    A call that does not end in its time raises TimeoutError; nothing is lost, the next call goes
    on. Ctrl-C ends any wait. At the end of the stream reads give b"".

    >>> import netkit
    >>> class Echo:
    ...     data = b""
    ...     def send(self, data):
    ...         self.data += data
    ...         return len(data)
    ...     def recv(self, size):
    ...         some, self.data = self.data[:size], self.data[size:]
    ...         return some
    >>> with netkit.Connection(Echo()) as conn:
    ...     conn.write(b"hello\\n")
    ...     conn.readline()
    6
    b'hello\\n'
    """

    _functions = slow
    _nonblocking = False

    def __init__(self, transport: Any, *, timeout: Optional[float] = None,
                 line_max: int = LINE_MAX, message_max: int = MESSAGE_MAX,
                 queue_max: int = QUEUE_MAX, cr_lines: bool = False) -> None:
        """Makes a connection that stands on `transport`; see the class and connect()."""
        super().__init__(transport, Stream(line_max, message_max, queue_max, None, None, None,
                                           cr_lines, False, timeout))
        self._was_opened()

    def _open(self, handle: Optional[c_void_p], stream: Stream,
              attempts: Tuple[Any, ...] = ()) -> None:
        super()._open(handle, stream, attempts)
        self._reading = allocate_lock()
        self._writing = allocate_lock()
        self._read_ms = self._write_ms = 0
        self._aborting = False

    @classmethod
    def from_socket(cls, sock: Any, *, timeout: Optional[float] = None, line_max: int = LINE_MAX,
                    message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
                    keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
                    recv_buffer: Optional[int] = None, cr_lines: bool = False,
                    delay_small_writes: bool = False) -> Connection:
        """Makes a connection of a connected stream socket: a socket object, which is detached,
        or a descriptor. It belongs to the connection from then on.

        Raises OSError (ENOTSOCK, ENOTCONN) for what is none; then it stays the caller's.

        >>> import netkit, socket
        >>> a, b = socket.socketpair()
        >>> with netkit.Connection.from_socket(a) as conn, b:
        ...     b.send(b"hello\\n")
        ...     conn.readline()
        6
        b'hello\\n'
        """
        stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                        cr_lines, delay_small_writes, timeout)
        fd = sock if isinstance(sock, int) else sock.fileno()
        handle = c_void_p()
        options = stream.conn_opts(nonblocking=False)
        err = quick.nkt_conn_adopt(fd, byref(options), byref(handle))
        if err < 0:
            raise error(err)
        take_descriptor(sock)
        return cls._of(handle, stream)._was_opened()

    # --- Waiting ------------------------------------------------------------------

    def _wait(self, once: Once, limit: Optional[float]) -> int:
        """Calls `once`, which waits in C, again after signals and slices, until the time is over.

        Python's signal handlers run in between; what they raise comes out here."""
        inside = in_loop()
        while True:
            ms = LOOP_MS if inside else _slice_of(limit)
            if ms != self._read_ms:
                quick.nkt_conn_set_option(self._handle, _lib.OPT_READ_TIMEOUT_MS, ms)
                self._read_ms = ms
            err = once()
            if err >= 0 or not self._goes_on(err, limit):
                return err
            if inside:
                inside = False
                warn_in_loop()

    def _goes_on(self, err: int, limit: Optional[float]) -> bool:
        if err == _lib.EINTR:
            custom = self._custom
            if custom is not None and custom.raised is not None:
                raise self._failure(err)
            return True
        # A connection that the system gave up says the same, but has the system's code.
        return (err == _lib.ETIMEDOUT and (limit is None or monotonic() < limit) and
                os_exception(err).errno != quick.nkt_conn_os_error(self._handle))

    def _run(self, operation: Operation[T], timeout: Timeout) -> T:
        """Runs an operation of reading to its end."""
        limit = _limit_of(self._timeout_of(timeout))
        try:
            with self._reading:
                self._check()
                try:
                    once = next(operation)
                    while True:
                        once = operation.send(self._wait(once, limit))
                except StopIteration as end:
                    return end.value            # type: ignore[no-any-return]
                finally:
                    # Puts back what it has, if it was not to end.
                    operation.close()
        finally:
            if self._closed:
                self._end()

    # --- Reading ------------------------------------------------------------------

    def readline(self, limit: int = -1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads a line with its end, as files do; at the end of the stream what is left, then
        b"".

        A line ends with LF, so also with CRLF; with `cr_lines` also with CR. Of a line that is
        longer than `limit` bytes the first `limit` are given, as in `io`.

        Raises LineTooLong past line_max (nothing is consumed), TimeoutError after `timeout`
        seconds (default: the connection's), ConnectionResetError and other OSErrors when the
        connection fails, ValueError when it is closed.

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"one\\r\\ntwo")
        ...     a.shutdown_write()
        ...     [b.readline(), b.readline(), b.readline()]
        8
        [b'one\\r\\n', b'two', b'']
        """
        return self._front.readline(limit) or self._readline(limit, timeout)

    def _readline(self, limit: int, timeout: Timeout) -> bytes:
        if limit == 0:
            return b""
        if self._dirty or self._front.decoded is not None or self._closed:
            return self._run(self._op_readline(limit), timeout)
        until = _limit_of(self._timeout_of(timeout))
        try:
            with self._reading:
                self._check()
                line = self._front.readline(limit)
                if line:
                    return line             # another thread was here
                err = self._wait(self._lines_once, until)
                if err == 0:
                    return self._front.readline(limit)
                if err == _lib.EOF:
                    return b""
                raise self._line_failure(err)
        finally:
            if self._closed:
                self._end()

    def read(self, size: Optional[int] = -1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads `size` bytes, fewer only at the end of the stream; all until the end without a
        size. For what has come, use read1().

        Raises as readline(); what had come before it raised is given by the next read.

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"hello")
        ...     a.close()
        ...     b.read(2), b.read()
        5
        (b'he', b'llo')
        """
        return self._run(self._op_read(size), timeout)

    def read1(self, size: int = -1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads what has come, `size` bytes at most, waiting only for the first; b"" at the end.

        Raises as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"hello")
        ...     b.read1(1000)
        5
        b'hello'
        """
        if timeout is not USE_DEFAULT or size == 0 or self._cr_lines:
            return self._run(self._op_read1(size), timeout)
        seconds = self._timeout
        until = None if seconds is None else monotonic() + seconds
        try:
            with self._reading:
                handle = self._handle
                if handle is None or self._closed or self._epoch is not Process.epoch:
                    handle = self._check()      # raises
                front = self._front
                if front.tell() == front.size and front.decoded is None:
                    # As _op_read1, where nothing is left in the Front.
                    ms = _first_slice_of(seconds, until)
                    if ms != self._read_ms:
                        quick.nkt_conn_set_option(handle, _lib.OPT_READ_TIMEOUT_MS, ms)
                        self._read_ms = ms
                    self._place.value = front.end
                    err = slow.nkt_conn_peek_at(handle, self._place, ONE, self._view_ref)
                    if err < 0 and not self._read1_on(err, until):
                        return b""
                    count = self._view_len.value
                    if 0 < size < count:
                        count = size
                    data: bytes = self._view_ptr[:count]
                    self._dirty = True
                    front.end += count
                    return data
        finally:
            if self._closed:
                self._end()
        return self._run(self._op_read1(size), timeout)

    def _read1_on(self, err: int, until: Optional[float]) -> bool:
        """Goes on with a read1() that did not end with its first call. False at the end."""
        if self._goes_on(err, until):
            err = self._wait(self._some_once, until)
        if err < 0 and err != _lib.EOF:
            raise self._failure(err)
        return err >= 0

    def readinto(self, buffer: Any, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Reads what has come into a buffer, waiting only for the first byte. Says how many
        bytes; 0 at the end. From 16 KiB on nothing is copied in between.

        Raises as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> buffer = bytearray(10)
        >>> with a, b:
        ...     a.write(b"hello")
        ...     b.readinto(buffer)
        5
        5
        >>> bytes(buffer[:5])
        b'hello'
        """
        return self._run(self._op_readinto(buffer), timeout)

    def readinto1(self, buffer: Any, *, timeout: Timeout = USE_DEFAULT) -> int:
        """The same as readinto(), under the other name that `io` has for it.

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> buffer = bytearray(10)
        >>> with a, b:
        ...     a.write(b"hello")
        ...     b.readinto1(buffer)
        5
        5
        """
        return self._run(self._op_readinto(buffer), timeout)

    def read_exact(self, size: int, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads exactly `size` bytes; b"" if the stream has ended before the first.

        Raises IncompleteRead, an EOFError, if it ends later: its `partial` has what came. Else
        raises as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"12345")
        ...     b.read_exact(4)
        5
        b'1234'
        """
        return self._run(self._op_read_exact(size), timeout)

    def read_until(self, delimiter: Buffer, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads up to and including a delimiter of 1 to 255 bytes; at the end of the stream what
        is left, then b"".

        Raises LineTooLong if it does not begin within line_max bytes (nothing is consumed), else
        as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"login: root")
        ...     b.read_until(b": ")
        11
        b'login: '
        """
        return self._run(self._op_read_until(delimiter), timeout)

    def peek(self, size: int = 1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Gives what has come without consuming it: `size` bytes at least, fewer only at the end
        of the stream. `size` is line_max at most.

        Raises as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"hello")
        ...     b.peek(), b.read_exact(5)
        5
        (b'hello', b'hello')
        """
        return self._run(self._op_peek(size), timeout)

    def read_lines(self, *, timeout: Timeout = USE_DEFAULT) -> List[bytes]:
        """Reads all complete lines that have come, with their ends: at least one, or what is left
        at the end of the stream, then []. The fastest way where they may be taken together.

        Raises as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"one\\ntwo\\nthr")
        ...     b.read_lines()
        11
        [b'one\\n', b'two\\n']
        """
        return self._front.readlines() or self._run(self._op_read_lines(), timeout)

    def skip_line(self, *, timeout: Timeout = USE_DEFAULT) -> bool:
        """Leaves out everything up to and including the next line end, however far that is. False
        if the stream has ended.

        Raises as readline(), but never LineTooLong.

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"x" * 1000 + b"\\nnext\\n")
        ...     b.line_max = 100
        ...     b.skip_line(), b.readline()
        1006
        (True, b'next\\n')
        """
        return self._run(self._op_skip_line(), timeout)

    def read_message(self, *, timeout: Timeout = USE_DEFAULT) -> Optional[bytes]:
        """Reads one message: four bytes of length, big-endian, and so many bytes. None at the end
        of the stream.

        Raises MessageTooLong above message_max (nothing is consumed), IncompleteRead if the
        stream ends inside, else as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write_message(b"hello")
        ...     b.read_message()
        5
        b'hello'
        """
        return self._run(self._op_read_message(), timeout)

    def __iter__(self) -> Iterator[bytes]:
        """The lines with their ends, as readline() gives them, until the end of the stream.

        The fastest way to read lines. After leaving the loop any other read goes on behind the
        last line that it gave.

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(b"one\\ntwo\\nrest")
        ...     for line in b:
        ...         break
        ...     line, b.read1(2)
        12
        (b'one\\n', b'tw')
        """
        return iterate(lambda: self._run(self._next_front(), USE_DEFAULT))

    def lines(self, encoding: str = "utf-8", errors: str = "strict", *,
              timeout: Timeout = USE_DEFAULT) -> Iterator[str]:
        """The lines as text without their ends, until the end of the stream.

        `timeout` is for each line. Raises UnicodeDecodeError for a line that is not in the
        encoding, after the lines before it; iterate anew to go on behind it. Else as readline().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write("gr\\u00fcn\\r\\nblau\\n".encode())
        ...     a.close()
        ...     list(b.lines())
        12
        ['gr\\xfcn', 'blau']
        """
        check_encoding(encoding)
        return iterate(lambda: self._run(self._op_next_text(encoding, errors), timeout))

    # --- Writing ------------------------------------------------------------------

    def _write_ms_is(self, limit: Optional[float], inside: bool = False) -> None:
        ms = LOOP_MS if inside else _slice_of(limit)
        if ms != self._write_ms:
            quick.nkt_conn_set_option(self._handle, _lib.OPT_WRITE_TIMEOUT_MS, ms)
            self._write_ms = ms

    def _write_on(self, err: int, pointer: Any, size: int, keep: Any, limit: Optional[float],
                  before: int = 0) -> int:
        """Goes on with a write that did not end with its first call. `before` bytes of the whole
        were written by others."""
        address, holder = address_of(pointer, keep)
        done = 0
        inside = in_loop()
        while err < 0:
            done += quick.nkt_conn_written(self._handle)
            if not self._goes_on(err, limit):
                failure: Any = self._failure(err)
                if isinstance(failure, OSError):
                    failure.sent = before + done        # type: ignore[attr-defined]
                raise failure
            if done == size:
                break
            if inside:
                inside = False
                warn_in_loop()
            self._write_ms_is(limit)
            err = slow.nkt_conn_write(self._handle, address + done, size - done)
        del holder
        return size

    def write(self, data: Buffer, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Writes all of `data`, any contiguous buffer, and gives its length. It returns when the
        system has taken every byte.

        Raises TimeoutError after `timeout` seconds (default: the connection's) and
        BrokenPipeError, ConnectionResetError and other OSErrors when the connection fails: their
        `sent` says how many bytes of this call went out. BufferError for a buffer with gaps,
        TypeError for str, ValueError when it is closed.

        >>> import array, netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write(memoryview(b"hello")[1:3])
        ...     b.read1()
        2
        b'el'
        """
        if type(data) is DIRECT:
            pointer: Any = data
            size = len(data)
            keep: Any = None
        else:
            pointer, size, keep = buffer_of(data)
        seconds = self._timeout if timeout is USE_DEFAULT else self._timeout_of(timeout)
        limit = None if seconds is None else monotonic() + seconds
        try:
            with self._writing:
                handle = self._handle
                if handle is None or self._closed or self._epoch is not Process.epoch:
                    handle = self._check()      # raises
                ms = _first_slice_of(seconds, limit)
                if ms != self._write_ms:
                    quick.nkt_conn_set_option(handle, _lib.OPT_WRITE_TIMEOUT_MS, ms)
                    self._write_ms = ms
                err = slow.nkt_conn_write(handle, pointer, size)
                if err == 0:
                    return size
                return self._write_on(err, pointer, size, keep, limit)
        finally:
            if self._closed:
                self._end()

    def writelines(self, buffers: Iterable[Buffer], *, timeout: Timeout = USE_DEFAULT) -> None:
        """Writes several buffers in order, as one write, without joining them. No line ends are
        added.

        Raises as write().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.writelines([b"one\\n", bytearray(b"two\\n")])
        ...     b.read_lines()
        [b'one\\n', b'two\\n']
        """
        arrays = pieces_of(buffers)
        limit = _limit_of(self._timeout_of(timeout))
        before = 0
        try:
            with self._writing:
                self._check()
                for array, count, total, _ in arrays:
                    self._write_pieces(array, count, total, limit, before)
                    before += total
        finally:
            if self._closed:
                self._end()

    def _write_pieces(self, array: Any, count: int, total: int, limit: Optional[float],
                      before: int) -> None:
        inside = in_loop()
        self._write_ms_is(limit, inside)
        err = slow.nkt_conn_writev(self._handle, byref(array), count)
        if err == 0:
            return
        # What is left of the piece that was cut, then the others.
        done = quick.nkt_conn_written(self._handle)
        if not self._goes_on(err, limit):
            failure: Any = self._failure(err)
            if isinstance(failure, OSError):
                failure.sent = before + done            # type: ignore[attr-defined]
            raise failure
        if inside:
            warn_in_loop()
        pieces = (_lib.nkt_str * count).from_buffer(array)
        for piece in pieces:
            if done >= piece.len:
                done -= piece.len
                before += piece.len
                continue
            self._write_ms_is(limit)
            err = slow.nkt_conn_write(self._handle, piece.ptr + done, piece.len - done)
            if err < 0:
                rest = (ctypes.c_char * (piece.len - done)).from_address(piece.ptr + done)
                self._write_on(err, byref(rest), piece.len - done, rest, limit, before + done)
            before += piece.len
            done = 0

    def write_message(self, data: Buffer, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Writes one message: four bytes of length, big-endian, and `data`. Gives its length.

        Raises MessageTooLong above message_max (nothing is written), else as write(); `sent`
        counts the four bytes too.

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.write_message(b"hello")
        ...     b.read_exact(9)
        5
        b'\\x00\\x00\\x00\\x05hello'
        """
        size = self._message_size(data)
        self.writelines((size.to_bytes(4, "big"), data), timeout=timeout)
        return size

    def flush(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """Waits until everything written was taken by the system: here write() has seen to that.

        Raises as write().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.flush()
        """
        self._write_call(self._flush_once, timeout)

    def shutdown_write(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """Tells the peer that nothing more will come; reading goes on.

        Raises as write().

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     a.shutdown_write()
        ...     b.read()
        b''
        """
        self._write_call(self._shutdown_once, timeout)

    def _write_call(self, once: Once, timeout: Timeout) -> None:
        limit = _limit_of(self._timeout_of(timeout))
        try:
            with self._writing:
                self._check()
                inside = in_loop()
                while True:
                    self._write_ms_is(limit, inside)
                    err = once()
                    if err >= 0:
                        return
                    if not self._goes_on(err, limit):
                        raise self._failure(err)
                    if inside:
                        inside = False
                        warn_in_loop()
        finally:
            if self._closed:
                self._end()

    # --- The end ------------------------------------------------------------------

    def interrupt(self) -> None:
        """Ends every wait of other threads in this connection, now and for good: they raise
        OSError with ECANCELED. What is buffered can still be read; then close() it.

        >>> import netkit, threading
        >>> a, b = netkit.pair()
        >>> with a, b:
        ...     threading.Timer(0.05, b.interrupt).start()
        ...     try:
        ...         b.readline()
        ...     except OSError as error:
        ...         print(error.strerror)
        interrupted or canceled, for good
        """
        with _ending:
            if self._handle is not None:
                quick.nkt_conn_interrupt(self._handle)

    def notify(self) -> None:
        """For the object that the connection stands on: its recv() or send() may succeed now,
        after it said that it could not. From any thread.

        >>> import netkit, threading
        >>> class Late:
        ...     data = None
        ...     def recv(self, size):
        ...         return self.data            # None: not now
        ...     def send(self, data):
        ...         return len(data)
        >>> late = Late()
        >>> with netkit.Connection(late) as conn:
        ...     def come():
        ...         late.data = b"at last"
        ...         conn.notify()
        ...     threading.Timer(0.05, come).start()
        ...     conn.read_exact(7, timeout=5)
        b'at last'
        """
        custom = self._custom
        if custom is not None:
            custom.notify()
        with _ending:
            if self._handle is not None:
                quick.nkt_conn_notify(self._handle)

    def close(self) -> None:
        """Closes the connection. Calls of other threads end with an OSError. With input that was
        not read the system resets the peer: to be sure that it gets everything, shutdown_write(),
        read to the end, then close. May be called again. Never waits.

        >>> import netkit
        >>> a, b = netkit.pair()
        >>> a.close()
        >>> a.closed, b.read()
        (True, b'')
        >>> b.close()
        """
        if not self._closed:
            self._stop()

    def abort(self) -> None:
        """As close(), but the peer gets a reset.

        >>> import netkit
        >>> with netkit.listen("localhost:0") as listener:
        ...     conn = netkit.connect(listener.address)
        ...     with listener.accept() as accepted:
        ...         conn.abort()
        ...         try:
        ...             accepted.read(timeout=5)
        ...         except ConnectionResetError:
        ...             print("reset")
        reset
        """
        if not self._closed:
            self._aborting = True
            self._stop()

    def _stop(self) -> None:
        self._shut()
        if self._epoch is not Process.epoch:
            quick.nkt_conn_close(self._release())
            return
        if self._reading.locked() or self._writing.locked():
            self.interrupt()
        self._end()

    def _end(self) -> None:
        free_when_idle(self, self._reading, self._writing)

    def _free(self) -> None:
        with _ending:
            handle = self._release()
            if handle is not None:
                (quick.nkt_conn_abort if self._aborting else quick.nkt_conn_close)(handle)

    def detach(self) -> int:
        """Gives the descriptor to the caller, in blocking mode, and closes the connection without
        it.

        Raises OSError: EBUSY if there is input that was not read, EOPNOTSUPP if there is no
        descriptor.

        >>> import netkit, os, socket
        >>> a, b = socket.socketpair()
        >>> conn = netkit.Connection.from_socket(a)
        >>> os.close(conn.detach())
        >>> b.close()
        """
        with self._reading, self._writing, _ending:
            return self._op_detach()

    def to_socket(self) -> Any:
        """The connection as a socket object of the standard library; as detach().

        >>> import netkit, socket
        >>> a, b = socket.socketpair()
        >>> conn = netkit.Connection.from_socket(a)
        >>> with conn.to_socket() as sock, b:
        ...     sock.send(b"hello"), b.recv(10)
        (5, b'hello')
        """
        return dup_socket(self.detach())

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self, warn: Any = warnings.warn) -> None:
        self._finalize(warn)


def connect(address: AddressLike, port: Optional[int] = None, *,
            timeout: Optional[float] = 30.0, default_port: Optional[int] = None,
            family: Optional[int] = None, source: Union[IPLike, Address, None] = None,
            interface: Optional[str] = None, attempt_delay: float = 0.25,
            resolution_delay: float = 0.05, line_max: int = LINE_MAX,
            message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
            keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
            recv_buffer: Optional[int] = None, cr_lines: bool = False,
            delay_small_writes: bool = False) -> Connection:
    """Connects to "host:port", "[v6]:port" or "unix:/path"; also (host, port), an Address, or a
    host or IP address and a port.

    A name is looked up in IPv6 and IPv4 at once; its addresses are tried in turn, each
    `attempt_delay` seconds after the one before or as soon as that one failed, and the first that
    answers wins (RFC 8305). `timeout` seconds are for all of it, None for as long as it takes;
    for what comes later set `conn.timeout`.

    default_port        where the text has none
    family              4 or 6 alone; None for both
    source              connect from this address of this host
    interface           only through this one, by name
    resolution_delay    seconds to wait for IPv6 addresses once IPv4's are there
    line_max            longest line, in bytes; longer ones are LineTooLong
    message_max         longest message, in bytes; longer ones are MessageTooLong
    queue_max           bytes that may be written and not sent (netkit.aio only)
    keepalive           seconds of silence before the system asks whether the peer is there
    send_buffer, recv_buffer    sizes of the system's buffers, in bytes
    cr_lines            a lone CR ends a line too
    delay_small_writes  Nagle's algorithm

    Raises AddressError, a ValueError, for bad text; ConnectError in the class that Python has for
    the reason: ConnectionRefusedError, TimeoutError, socket.gaierror if there is no such host,
    PermissionError, OSError. Its `attempts` tell of each address, and so does its message.

    >>> import netkit
    >>> with netkit.listen("localhost:0") as listener:
    ...     with netkit.connect("localhost", listener.port, timeout=5) as conn:
    ...         conn.peer.port == listener.port
    True
    """
    stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                    cr_lines, delay_small_writes)
    connecting = Connecting(False, address, port, timeout, default_port, family, source,
                            interface, attempt_delay, resolution_delay, stream)
    try:
        inside = in_loop()
        while True:
            ms = SLICE_MS if get_ident() == _Main.ident else -1
            err = slow.nkt_connect_wait(connecting.handle, LOOP_MS if inside else ms)
            if err != _lib.EAGAIN and err != _lib.EINTR:
                break
            if inside:
                inside = False
                warn_in_loop()
    except BaseException:
        quick.nkt_conn_close(connecting.handle)
        raise
    if err < 0:
        raise connecting.failed(err)
    return Connection._of(connecting.handle, stream, connecting.attempts())._was_opened()


def pair(*, timeout: Optional[float] = None) -> Tuple[Connection, Connection]:
    """Two ends of a connection in memory: what is written to one is read from the other. For
    tests, and for talking to one's own threads. 64 KiB can be under way in each direction.

    >>> import netkit
    >>> a, b = netkit.pair()
    >>> with a, b:
    ...     a.write(b"hello\\n")
    ...     b.readline()
    6
    b'hello\\n'
    """
    stream = default_stream()
    stream.timeout = check_timeout(timeout)
    options = stream.conn_opts(nonblocking=False)
    a, b = c_void_p(), c_void_p()
    err = quick.nkt_conn_pair(byref(options), byref(options), byref(a), byref(b))
    if err < 0:
        raise error(err)
    ends = Connection._of(a, stream), Connection._of(b, stream)
    return ends[0]._was_opened(), ends[1]._was_opened()


class Listener:
    """Accepts connections. Made by listen().

    Iterate over it, or call accept(). accept() of several threads take turns. close() may be
    called from anywhere, and ends the waiting of others.

    >>> import netkit
    >>> with netkit.listen("localhost:0") as listener:
    ...     with netkit.connect(listener.address) as conn:
    ...         for accepted in listener:
    ...             accepted.write(b"welcome\\n")
    ...             accepted.close()
    ...             break
    ...         conn.readline()
    8
    b'welcome\\n'
    """

    _handle: Optional[c_void_p] = None

    def __init__(self, handle: c_void_p, stream: Stream, timeout: Optional[float]) -> None:
        """See listen()."""
        self._handle = handle
        self._stream = stream
        self._timeout = timeout
        self._epoch = Process.epoch
        self._accepting = allocate_lock()
        self._ms = 0
        self._closed = False
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

        >>> import netkit, socket
        >>> sock = socket.create_server(("127.0.0.1", 0))
        >>> with netkit.Listener.from_socket(sock) as listener:
        ...     with netkit.connect(listener.address) as conn, listener.accept() as accepted:
        ...         accepted.peer == conn.local
        True
        """
        stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                        cr_lines, delay_small_writes)
        fd = sock if isinstance(sock, int) else sock.fileno()
        options = _lib.nkt_listen_opts(stream=stream.struct)
        handle = c_void_p()
        err = quick.nkt_listener_adopt(fd, byref(options), byref(handle))
        if err < 0:
            raise error(err)
        take_descriptor(sock)
        return cls(handle, stream, check_timeout(timeout))

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

    def accept(self, *, timeout: Timeout = USE_DEFAULT) -> Connection:
        """Waits for the next connection.

        Raises TimeoutError after `timeout` seconds (default: the listener's), OSError: EMFILE
        without descriptors (call again; the peers wait), ECANCELED if it was closed meanwhile;
        ValueError if before.

        >>> import netkit
        >>> with netkit.listen("localhost:0") as listener:
        ...     with netkit.connect(listener.address) as conn, listener.accept() as accepted:
        ...         accepted.peer == conn.local
        True
        """
        chosen = self._timeout if isinstance(timeout, Default) else check_timeout(timeout)
        limit = _limit_of(chosen)
        handle = c_void_p()
        try:
            with self._accepting:
                listener = self._check()
                inside = in_loop()
                while True:
                    ms = LOOP_MS if inside else _slice_of(limit)
                    if ms != self._ms:
                        quick.nkt_listener_set_timeout(listener, ms)
                        self._ms = ms
                    err = slow.nkt_accept(listener, byref(handle))
                    if err == 0:
                        return self._accepted(handle)
                    if err == _lib.EINTR or (err == _lib.ETIMEDOUT and
                                             (limit is None or monotonic() < limit)):
                        if inside:
                            inside = False
                            warn_in_loop()
                        continue
                    raise error(err, quick.nkt_listener_os_error(listener))
        except BaseException:
            # One that came when an exception did must not stay open unseen.
            if handle.value is not None:
                quick.nkt_conn_close(handle)
            raise
        finally:
            if self._closed:
                self._end()

    def _accepted(self, handle: c_void_p) -> Connection:
        owned = c_void_p(handle.value)
        conn = Connection._of(owned, self._stream)
        handle.value = None
        return conn._was_opened()

    def __iter__(self) -> Iterator[Connection]:
        """Accepts one connection after another, until the listener is closed."""
        return self

    def __next__(self) -> Connection:
        try:
            return self.accept()
        except (OSError, ValueError):
            if self._closed:
                raise StopIteration from None
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

        >>> import netkit
        >>> with netkit.listen("localhost:0") as listener:
        ...     listener.fileno() >= 0
        True
        """
        return int(quick.nkt_listener_descriptor(self._check()))

    def close(self) -> None:
        """Stops listening. accept() of other threads ends with an OSError, iteration just ends.
        Connections live on. May be called again. Never waits.

        >>> import netkit
        >>> listener = netkit.listen("localhost:0")
        >>> listener.close()
        >>> list(listener)
        []
        """
        if self._closed:
            return
        self._closed = True
        if self._epoch is not Process.epoch:
            handle, self._handle = self._handle, None
            quick.nkt_listener_close(handle)
            return
        with _ending:
            if self._handle is not None and self._accepting.locked():
                quick.nkt_listener_interrupt(self._handle)
        self._end()

    def _end(self) -> None:
        while self._handle is not None and self._accepting.acquire(False):
            try:
                with _ending:
                    handle, self._handle = self._handle, None
                    quick.nkt_listener_close(handle)
            finally:
                self._accepting.release()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed or self._handle is None:
            return "<netkit.Listener closed>"
        return "<netkit.Listener on %s>" % self.name

    def __del__(self, warn: Any = warnings.warn) -> None:
        if self._handle is not None:
            if self._epoch is Process.epoch and not self._closed:
                warn("unclosed %r" % self, ResourceWarning, source=self, stacklevel=2)
            self.close()


def listen(address: AddressLike = ":0", port: Optional[int] = None, *,
           timeout: Optional[float] = None, backlog: Optional[int] = None,
           reuse_port: bool = False, keep_path: bool = False, interface: Optional[str] = None,
           line_max: int = LINE_MAX, message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
           keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
           recv_buffer: Optional[int] = None, cr_lines: bool = False,
           delay_small_writes: bool = False) -> Listener:
    """Listens on ":port" (every address, IPv6 and IPv4), "address:port", "localhost:port" (both
    loopback addresses) or "unix:/path". Port 0 takes a free one; `listener.port` tells which.

    timeout             seconds of each accept(); None for as long as it takes
    backlog             how many may wait to be accepted; None for 511
    reuse_port          several processes on one port, where the system has that
    keep_path           do not remove a Unix-domain path when it is closed
    interface           only through this one, by name

    The others are for what it accepts; see connect(). Raises AddressError, a ValueError, for bad
    text, OSError (EADDRINUSE, EADDRNOTAVAIL, EOPNOTSUPP, ENAMETOOLONG: a Unix-domain path of more
    than 107 bytes), PermissionError.

    >>> import netkit
    >>> with netkit.listen("localhost:0") as listener:
    ...     listener.port > 0
    True
    """
    stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                    cr_lines, delay_small_writes)
    handle = open_listener(False, address, port, timeout, backlog, reuse_port, keep_path,
                           interface, stream)
    return Listener(handle, stream, timeout)


def resolve(host: Union[str, IPLike], port: int = 0, *, family: Optional[int] = None,
            timeout: Optional[float] = 30.0) -> List[Address]:
    """Looks a host name up: its addresses, with `port`, in the order in which they should be tried
    (RFC 6724). `family` is 4 or 6 alone, `timeout` seconds for all of it.

    Raises AddressError, a ValueError, for bad text, socket.gaierror if there is no such host or
    the resolver could not tell, TimeoutError.

    >>> import netkit
    >>> netkit.Address("127.0.0.1", 80) in netkit.resolve("localhost", 80)
    True
    """
    lookup = Lookup(host, port, timeout, family)
    try:
        inside, waits = in_loop(), 0
        while not lookup.finish():
            if inside and waits == 1:
                warn_in_loop()
            ms = SLICE_MS if get_ident() == _Main.ident else -1
            slow.nkt_task_wait(lookup.task, LOOP_MS if inside and waits == 0 else ms)
            waits += 1
        return lookup.addresses()
    finally:
        lookup.close()


class _Clients:
    """The threads of a server, and their connections."""

    def __init__(self, handler: Callable[[Connection], object],
                 max_clients: Optional[int]) -> None:
        self.handler = handler
        import threading
        self.free = None if max_clients is None else threading.Semaphore(max_clients)
        self.open: Set[Connection] = set()
        self.lock = allocate_lock()

    def start(self, conn: Connection) -> None:
        with self.lock:
            self.open.add(conn)
        import threading
        thread = threading.Thread(target=self.run, args=(conn,), daemon=True,
                                  name="netkit client %s" % conn.peer_name)
        thread.start()

    def run(self, conn: Connection) -> None:
        try:
            with conn:
                self.handler(conn)
        except ConnectionError:
            # The peer went away: that is not the server's fault.
            pass
        except OSError as problem:
            if problem.errno != os_exception(_lib.ECANCELED).errno:
                raise
        finally:
            with self.lock:
                self.open.discard(conn)
            if self.free is not None:
                self.free.release()

    def interrupt(self) -> None:
        with self.lock:
            conns = list(self.open)
        for conn in conns:
            conn.interrupt()


def serve(handler: Callable[[Connection], object], address: Union[AddressLike, Listener] = ":0",
          port: Optional[int] = None, *, max_clients: Optional[int] = None,
          timeout: Optional[float] = None, backlog: Optional[int] = None,
          reuse_port: bool = False, keep_path: bool = False, interface: Optional[str] = None,
          line_max: int = LINE_MAX, message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
          keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
          recv_buffer: Optional[int] = None, cr_lines: bool = False,
          delay_small_writes: bool = False) -> None:
    """Calls `handler` with each connection that comes, each in a thread of its own, and closes the
    connection afterwards. Goes on until the listener is closed or an exception comes, Ctrl-C.

    `address` is as for listen(), or a Listener, which then tells the port, and can be closed from
    elsewhere to end this. With `max_clients` no more are accepted while so many are served; the
    others wait in the system's queue. `timeout` is the connections'. For the rest see listen().

    When it ends, the connections that are still served are interrupted, as by interrupt(), and
    not waited for: a handler that has something to finish does it when its call ends by that,
    which is not shown. What a handler raises ends its connection and is shown as that of any
    thread, but for ConnectionError: peers go.

    >>> import netkit, threading
    >>> def talk(conn):
    ...     for line in conn.lines():
    ...         conn.write(f"you said {line}\\n".encode())
    >>> listener = netkit.listen("localhost:0")
    >>> server = threading.Thread(target=netkit.serve, args=(talk, listener))
    >>> server.start()
    >>> with netkit.connect(listener.address) as conn:
    ...     conn.write(b"hello\\n")
    ...     conn.readline()
    6
    b'you said hello\\n'
    >>> listener.close()
    >>> server.join()
    """
    if max_clients is not None and max_clients < 1:
        raise ValueError("max_clients is 1 or more, or None for no limit")
    conn_timeout = check_timeout(timeout)
    if isinstance(address, Listener):
        listener = address
    else:
        listener = listen(address, port, backlog=backlog, reuse_port=reuse_port,
                          keep_path=keep_path, interface=interface, line_max=line_max,
                          message_max=message_max, queue_max=queue_max, keepalive=keepalive,
                          send_buffer=send_buffer, recv_buffer=recv_buffer, cr_lines=cr_lines,
                          delay_small_writes=delay_small_writes)
    clients = _Clients(handler, max_clients)
    try:
        while not listener.closed:
            if clients.free is not None and not clients.free.acquire(timeout=SLICE_MS / 1000):
                continue
            conn = next(listener, None)
            if conn is None:
                break
            if conn_timeout is not None:
                conn.timeout = conn_timeout
            clients.start(conn)
    finally:
        listener.close()
        clients.interrupt()


for _class in (Connection, ConnectionInfo, Listener, connect, listen, pair, resolve, serve):
    _class.__module__ = "netkit"
