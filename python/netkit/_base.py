"""What a connection is in both namespaces: its handle, its reading position, its settings.

Reading. The C library owns the buffer. One call shows all complete lines that are in it; they are
copied once, into a Front, which is a BytesIO: that cuts them into lines in C, faster than anything
written in Python can.

    C's buffer       |  consumed  | lines | beginning of one  |
                                  |       |
    Front            | handed out | rest  |                        .end is where it ends in the
                                                                   whole stream

Storing a Front is the one moment at which its bytes count as taken. An exception can come between
any two instructions (Ctrl-C): C has then consumed what Python has not stored, or has not consumed
what it has. `_dirty` says that this can be so, and the next call first makes C go to where the
Front ends. So nothing is lost and nothing comes twice.

Each operation exists once, as a method that makes one attempt and returns a code of netkit.h
(_lines_once), or as a generator that yields such methods (_op_read). netkit calls them where they
may wait, netkit.aio where they must not, and both go on in their own way after "not now".
"""

from __future__ import annotations

import ctypes
import warnings
from ctypes import byref, c_char, c_char_p, c_size_t, c_uint64, c_void_p
from io import BytesIO, UnsupportedOperation
from itertools import chain

from . import _lib
from ._addr import Address
from ._custom import Custom
from ._errors import (IncompleteRead, LineTooLong, MessageTooLong, error, os_exception)
from ._lib import CPYTHON, DIRECT, Opened, Process, Shown, pointer_to, quick, text_of
from ._options import Default, Stream, check_timeout, keepalive_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import (Any, Callable, Generator, Iterable, Iterator, List, Optional, Tuple, Type,
                        TypeVar, Union)

    from ._errors import Attempt

    T = TypeVar("T")
    Buffer = Union[bytes, bytearray, memoryview, "ctypes.Array[Any]", Any]
    Once = Callable[[], int]
    Operation = Generator[Once, int, T]

ONE = c_size_t(1)
_CHARS = ctypes.POINTER(c_char)
# What cuts bytes out of where an nkt_str points to.
_shown: Any = _CHARS.from_buffer if CPYTHON else Shown
_PIECES = 512               # buffers given to one nkt_conn_writev
# nkt_str[_PIECES]: pointers and lengths in turn. CPython takes bytes for a pointer, and keeps them.
_PIECE_ARRAY: Any = (c_char_p if CPYTHON else c_void_p) * (2 * _PIECES)


class Front(BytesIO):
    """Lines that were taken from C's buffer, cut as they are asked for."""

    end: int = 0            # where they end in the stream
    size: int = 0
    # Of lines(): the bytes, the iterator over their text, how many lines it had.
    decoded: Optional[Tuple[bytes, Any, int]] = None


def front_of(data: bytes, end: int) -> Front:
    """A Front of bytes that end at a position in the stream."""
    front = Front(data)
    front.end = end
    front.size = len(data)
    return front


class PeekTooFar(ValueError, NotImplementedError):
    """`pickle` tries whether peek() gives much at once, and takes this as no."""


class ConnectionInfo:
    """What is known of a connection at a moment.

    `received` and `sent` count bytes since it began, `buffered` those that came and were not read,
    `queued` those that were written and not sent. `rtt` and `rtt_variation` are the round-trip
    time in seconds, `retransmits` the segments that were sent again, `unacked` the bytes that
    were sent and not acknowledged, `path_mtu` the largest packet on the path; each is None where
    the system does not say.

    >>> import netkit
    >>> a, b = netkit.pair()
    >>> with a, b:
    ...     a.write(b"one\\ntwo\\n")
    ...     b.readline()
    ...     a.info.sent, b.info.received, b.info.buffered
    8
    b'one\\n'
    (8, 8, 4)
    """

    __slots__ = ("received", "sent", "buffered", "queued", "rtt", "rtt_variation", "retransmits",
                 "unacked", "path_mtu")

    def __init__(self, info: _lib.nkt_conn_info, held: int) -> None:
        def known(value: int) -> Optional[int]:
            return None if value < 0 else value
        tcp = info.tcp
        self.received: int = info.received
        self.sent: int = info.sent
        self.buffered: int = info.buffered + held
        self.queued: int = info.queued
        self.rtt: Optional[float] = None if tcp.rtt_us < 0 else tcp.rtt_us / 1e6
        self.rtt_variation: Optional[float] = None if tcp.rtt_var_us < 0 else tcp.rtt_var_us / 1e6
        self.retransmits: Optional[int] = known(tcp.retransmits)
        self.unacked: Optional[int] = known(tcp.unacked_bytes)
        self.path_mtu: Optional[int] = known(tcp.path_mtu)

    def __repr__(self) -> str:
        return "<ConnectionInfo %s>" % " ".join(
            "%s=%s" % (name, getattr(self, name)) for name in self.__slots__)


def buffer_of(data: Any) -> Tuple[Any, int, Any]:
    """Pointer, length and what must be kept meanwhile, of any contiguous buffer.

    Raises TypeError for what is no buffer, BufferError for one with gaps."""
    if type(data) is bytes:
        pointer, keep = pointer_to(data)
        return pointer, len(data), keep
    if isinstance(data, str):
        raise TypeError("bytes are written, not str: encode it")
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the buffer is not contiguous: write bytes(view)")
    if view.nbytes == 0:
        return b"", 0, view
    if view.readonly:
        # ctypes gives no pointer to these.
        pointer, keep = pointer_to(bytes(view))
        return pointer, view.nbytes, keep
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    place = c_char.from_buffer(view)
    return byref(place), view.nbytes, place


def address_of(pointer: Any, keep: Any) -> Tuple[int, Any]:
    """A pointer of buffer_of as a number, to which can be added, and what must be kept."""
    if isinstance(pointer, int):
        return pointer, keep
    if isinstance(pointer, bytes):
        holder = c_char_p(pointer)
        return ctypes.cast(holder, c_void_p).value or 0, holder
    return ctypes.addressof(keep), keep


class ConnectionBase:
    """The part of Connection that is the same in netkit and netkit.aio."""

    _functions: Any = quick         # by which calls are made that may wait
    _nonblocking = True
    _handle: Optional[c_void_p]

    def __init__(self, transport: Any, stream: Stream) -> None:
        self._custom: Optional[Custom] = None
        self._open(None, stream)
        custom = Custom(transport, self)
        handle = c_void_p()
        options = stream.conn_opts(self._nonblocking)
        err = quick.nkt_conn_open_custom(byref(custom.table), custom.key, byref(options),
                                         byref(handle))
        if err < 0:
            custom.forget()
            raise error(err)
        self._custom = custom
        self._handle = handle

    def _was_opened(self: T) -> T:
        if Opened.hook is not None:
            Opened.hook(self)
        return self

    def _impaired(self) -> None:
        """It has just been."""

    def _open(self, handle: Optional[c_void_p], stream: Stream,
              attempts: Tuple[Attempt, ...] = ()) -> None:
        self._handle = handle
        self._epoch = Process.epoch
        self._timeout = stream.timeout
        self._cr_lines = stream.cr_lines
        self._cr_last = False       # what the Front has was ended by a CR, as far as was seen
        self._attempts = attempts
        self._front = Front()
        self._dirty = False
        self._closed = False
        self._view = view = _lib.nkt_str()
        self._view_ref = byref(view)
        self._view_ptr: Any = _shown(view)
        self._view_len = c_size_t.from_buffer(view, _lib.nkt_str.len.offset)
        self._place = c_uint64()

    @classmethod
    def _of(cls: Type[T], handle: c_void_p, stream: Stream,
            attempts: Tuple[Attempt, ...] = ()) -> T:
        self: Any = cls.__new__(cls)
        self._custom = None
        self._open(handle, stream, attempts)
        return self                         # type: ignore[no-any-return]

    # --- Failures -----------------------------------------------------------------

    def _check(self) -> c_void_p:
        """The handle, or why there is none that can be used."""
        handle = self._handle
        if handle is None or self._closed:
            raise ValueError("I/O operation on closed connection")
        if self._epoch is not Process.epoch:
            raise RuntimeError("the connection belongs to the parent process; detach() it there, "
                               "or open it here")
        return handle

    def _failure(self, err: int) -> BaseException:
        """The exception for a code that a call returned."""
        custom = self._custom
        if custom is not None:
            raised = custom.take()
            if raised is not None:
                return raised
        if err == _lib.EFORKED or self._handle is None:
            return error(err)
        return error(err, quick.nkt_conn_os_error(self._handle))

    # --- One attempt each ---------------------------------------------------------

    def _lines_once(self) -> int:
        """Takes all complete lines that are there into a new Front. NKT_OK or why not."""
        self._dirty = True
        err: int = self._functions.nkt_conn_read_lines(self._handle, self._view_ref)
        if err == 0:
            data = self._view_ptr[:self._view_len.value]
            if self._cr_lines:
                self._store_cr(data)
            else:
                front = Front(data)
                front.size = size = len(data)
                front.end = self._front.end + size
                self._front = front
            self._dirty = False
        return err

    def _store_cr(self, data: bytes) -> None:
        # Every line end becomes the one that BytesIO knows. An LF that belongs to the last CR
        # may be consumed later: C tells where it is.
        self._cr_last = data.endswith(b"\r")
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._front = front_of(data, quick.nkt_conn_position(self._handle))

    def _some_once(self) -> int:
        """Looks at what is there, one byte at least, and consumes nothing."""
        return self._functions.nkt_conn_peek(       # type: ignore[no-any-return]
            self._handle, ONE, self._view_ref)

    def _message_once(self) -> int:
        self._dirty = True
        return self._functions.nkt_conn_read_message(   # type: ignore[no-any-return]
            self._handle, self._view_ref)

    def _skip_line_once(self) -> int:
        return self._functions.nkt_conn_skip_line(self._handle)     # type: ignore[no-any-return]

    def _flush_once(self) -> int:
        return self._functions.nkt_conn_flush(self._handle)         # type: ignore[no-any-return]

    def _shutdown_once(self) -> int:
        return self._functions.nkt_conn_shutdown_write(     # type: ignore[no-any-return]
            self._handle)

    # --- The reading position -----------------------------------------------------

    def _settle(self) -> Front:
        """Makes C stand where the Front ends, and gives the Front, which may have lines left."""
        front = self._front
        if front.decoded is not None:
            front = self._undecode(front)
        if self._dirty:
            quick.nkt_conn_seek(self._handle, front.end)
            self._dirty = False
        return front

    def _undecode(self, front: Front) -> Front:
        """Back from text to bytes, as many as lines() has not handed out."""
        assert front.decoded is not None
        data, lines, count = front.decoded
        left = lines.__length_hint__()
        if left == 0:
            self._front = front = front_of(b"", front.end)
            return front
        rest = BytesIO(data)
        for _ in range(count - left):
            rest.readline()
        self._front = front = front_of(rest.read(), front.end)
        # The iterator of lines() must not go on with what is given back.
        for _ in lines:
            pass
        return front

    def _give_back(self) -> None:
        """Leaves to C again what the Front has left, for reads that are not of lines."""
        front = self._settle()
        left = front.size - front.tell()
        if left == 0:
            return
        if self._cr_lines:
            data = front.read()
            if self._cr_last:       # its LF may come yet, and is then part of it
                data = data[:-1] + b"\r"
            pointer, _keep = pointer_to(data)
            quick.nkt_conn_unread(self._handle, pointer, left)
            self._moved()
        else:
            self._dirty = True
            self._front = front_of(b"", front.end - left)
            self._settle()

    def _moved(self) -> None:
        """After something that consumes bit by bit: what C says counts."""
        self._front = front_of(b"", quick.nkt_conn_position(self._handle))
        self._dirty = False

    def _consume(self, count: int) -> None:
        """Takes bytes of what _some_once has shown."""
        # With cr_lines C may have left out an LF before them.
        start = quick.nkt_conn_position(self._handle) if self._cr_lines else self._front.end
        self._dirty = True
        self._front = front_of(b"", start + count)

    # --- Operations ---------------------------------------------------------------

    def _next_front(self) -> Operation[Optional[Front]]:
        """A Front that has lines, or None at the end of the stream."""
        front = self._settle()
        if front.tell() < front.size:
            return front
        err = yield self._lines_once
        if err == _lib.EOF:
            return None
        if err < 0:
            raise self._line_failure(err)
        return self._front

    def _line_failure(self, err: int) -> BaseException:
        if err == _lib.ETOOLONG:
            return LineTooLong("a line is longer than line_max, %d bytes; read it in pieces with "
                               "read1(), or leave it out with skip_line()" % self.line_max)
        return self._failure(err)

    def _op_readline(self, limit: int) -> Operation[bytes]:
        front = yield from self._next_front()
        return b"" if front is None else front.readline(limit)

    def _op_read_lines(self) -> Operation[List[bytes]]:
        front = yield from self._next_front()
        return [] if front is None else front.readlines()

    def _op_next_text(self, encoding: str, errors: str) -> Operation[Optional[Iterator[str]]]:
        """An iterator over the text of the lines that are there, or None at the end."""
        front = yield from self._next_front()
        if front is None:
            return None
        data = front.read()
        try:
            made = data.decode(encoding, errors)
        except UnicodeDecodeError:
            # Lines before a bad one are handed out before it is told.
            data = self._good_lines(data, encoding, errors, front)
            made = data.decode(encoding, errors)
        # Looking for one character is ten times as fast as looking for two.
        lines = (made.replace("\r\n", "\n") if "\r" in made else made).split("\n")
        if not lines[-1]:
            lines.pop()
        iterator = iter(lines)
        following = front_of(b"", self._front.end)
        following.decoded = (data, iterator, len(lines))
        self._front = following
        return iterator

    def _good_lines(self, data: bytes, encoding: str, errors: str, front: Front) -> bytes:
        good = 0
        for line in BytesIO(data):
            try:
                line.decode(encoding, errors)
            except UnicodeDecodeError:
                if good == 0:
                    front.seek(front.size - len(data) + len(line))
                    raise
                break
            good += len(line)
        # What is bad, and what comes after it, stays for the next time.
        self._dirty = True
        self._front = front_of(b"", front.end - (len(data) - good))
        self._settle()
        return data[:good]

    def _op_fill(self, size: int) -> Operation[bytes]:
        """`size` bytes, or all until the end of the stream if it is below 0, or fewer at it."""
        self._give_back()
        start = self._front.end
        chunks: List[bytes] = []
        got = 0
        try:
            while got != size:
                err = yield self._some_once
                if err == _lib.EOF:
                    break
                if err < 0:
                    raise self._failure(err)
                count = self._view_len.value
                if 0 <= size < got + count:
                    count = size - got
                chunks.append(self._view_ptr[:count])
                self._consume(count)
                got += count
                self._settle()
        except BaseException:
            self._put_back(chunks, start)
            raise
        return b"".join(chunks)

    def _put_back(self, chunks: List[bytes], start: int) -> None:
        """Gives C again what an operation had taken that did not end."""
        if self._handle is None or self._closed:
            return
        self._settle()
        taken = b"".join(chunks)[:self._front.end - start]
        pointer, _keep = pointer_to(taken)
        if taken and quick.nkt_conn_unread(self._handle, pointer, len(taken)) == _lib.OK:
            self._moved()

    def _op_read(self, size: Optional[int]) -> Operation[bytes]:
        return (yield from self._op_fill(-1 if size is None or size < 0 else size))

    def _op_read1(self, size: int) -> Operation[bytes]:
        front = self._settle()
        if size == 0:
            return b""
        if front.tell() < front.size:
            return front.read1(size)
        err = yield self._some_once
        if err == _lib.EOF:
            return b""
        if err < 0:
            raise self._failure(err)
        count = self._view_len.value
        if 0 <= size < count:
            count = size
        data: bytes = self._view_ptr[:count]
        self._consume(count)
        return data

    def _op_readinto(self, buffer: Any) -> Operation[int]:
        view = memoryview(buffer)
        if view.readonly:
            raise TypeError("a buffer that can be written to is needed")
        view = view.cast("B")
        if view.nbytes < 16384:
            data = yield from self._op_read1(view.nbytes)
            view[:len(data)] = data
            return len(data)
        self._give_back()
        place = (c_char * view.nbytes).from_buffer(view)

        def once() -> int:
            count: int = self._functions.nkt_conn_read(self._handle, byref(place), view.nbytes)
            if count > 0:
                self._moved()
            return count

        count = yield once
        if count == _lib.EOF:
            return 0
        if count < 0:
            raise self._failure(count)
        return count

    def _op_read_exact(self, size: int) -> Operation[bytes]:
        if size < 0:
            raise ValueError("a size is 0 or more, not %d" % size)
        data = yield from self._op_fill(size)
        if 0 < len(data) < size:
            raise self._incomplete(data, "%d bytes" % size)
        return data

    def _incomplete(self, partial: bytes, wanted: str) -> IncompleteRead:
        made = IncompleteRead(os_exception(_lib.ERESET).errno,
                              "the stream ended after %d of %s" % (len(partial), wanted))
        made.partial = partial
        return made

    def _op_read_until(self, delimiter: Any) -> Operation[bytes]:
        wanted = bytes(memoryview(delimiter))
        if not 1 <= len(wanted) <= _lib.UNTIL_MAX:
            raise ValueError("a delimiter has 1 to %d bytes, not %d"
                             % (_lib.UNTIL_MAX, len(wanted)))
        self._give_back()

        def once() -> int:
            self._dirty = True
            return self._functions.nkt_conn_read_until(     # type: ignore[no-any-return]
                self._handle, wanted, len(wanted), self._view_ref)

        err = yield once
        if err == _lib.EOF:
            self._dirty = False
            return b""
        if err == _lib.ETOOLONG:
            raise LineTooLong("no %r in line_max, %d bytes" % (wanted, self.line_max))
        if err < 0:
            raise self._failure(err)
        return self._taken(self._view_len.value)

    def _taken(self, count: int, before: int = 0) -> bytes:
        """What C has shown and consumed, with `before` bytes that are not shown."""
        data: bytes = self._view_ptr[:count]
        end = self._front.end + before + count
        if self._cr_lines:
            end = quick.nkt_conn_position(self._handle)
        self._front = front_of(b"", end)
        self._dirty = False
        return data

    def _op_peek(self, size: int) -> Operation[bytes]:
        if size > self.line_max:
            raise PeekTooFar("peek looks at line_max bytes at most, %d, not %d"
                             % (self.line_max, size))
        self._give_back()

        def once() -> int:
            return self._functions.nkt_conn_peek(           # type: ignore[no-any-return]
                self._handle, c_size_t(max(size, 1)), self._view_ref)

        err = yield once
        if err == _lib.EOF:
            return b""
        if err < 0:
            raise self._failure(err)
        return self._view_ptr[:self._view_len.value]        # type: ignore[no-any-return]

    def _op_skip_line(self) -> Operation[bool]:
        self._give_back()
        try:
            err = yield self._skip_line_once
        finally:
            if self._handle is not None:
                self._moved()
        if err == _lib.EOF:
            return False
        if err < 0:
            raise self._failure(err)
        return True

    def _op_read_message(self) -> Operation[Optional[bytes]]:
        self._give_back()
        err = yield self._message_once
        if err == _lib.EOF:
            return None
        if err == _lib.ETOOLONG:
            raise MessageTooLong("a message is announced that is longer than message_max, %d bytes"
                                 % self.message_max)
        if err == _lib.ETRUNCATED:
            # What came of it: its length and its beginning.
            some = yield from self._op_fill(-1)
            raise self._incomplete(some[4:], "a message")
        if err < 0:
            raise self._failure(err)
        return self._taken(self._view_len.value, before=4)

    def _message_size(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size > self.message_max:
            raise MessageTooLong("a message of %d bytes is longer than message_max, %d bytes"
                                 % (size, self.message_max))
        return size

    # --- Settings -----------------------------------------------------------------

    def _get(self, option: int) -> int:
        value = ctypes.c_int64()
        err = quick.nkt_conn_get_option(self._check(), option, byref(value))
        if err < 0:
            raise error(err)
        return value.value

    def _set(self, option: int, value: int) -> None:
        err = quick.nkt_conn_set_option(self._check(), option, value)
        if err < 0:
            raise error(err)

    @property
    def timeout(self) -> Optional[float]:
        """Seconds that each call may take that is given no time-out of its own; None, which is
        how it begins, for as long as it takes."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: Optional[float]) -> None:
        self._timeout = check_timeout(seconds)

    def _timeout_of(self, timeout: Union[float, None, Default]) -> Optional[float]:
        if isinstance(timeout, Default):
            return self._timeout
        return check_timeout(timeout)

    @property
    def line_max(self) -> int:
        """The longest line in bytes, its end not counted; longer ones are LineTooLong."""
        return self._get(_lib.OPT_LINE_MAX)

    @line_max.setter
    def line_max(self, value: int) -> None:
        self._set(_lib.OPT_LINE_MAX, value)

    @property
    def message_max(self) -> int:
        """The longest message in bytes; longer ones are MessageTooLong."""
        return self._get(_lib.OPT_MESSAGE_MAX)

    @message_max.setter
    def message_max(self, value: int) -> None:
        self._set(_lib.OPT_MESSAGE_MAX, value)

    @property
    def queue_max(self) -> int:
        """How many bytes may be written and not sent, in netkit.aio; netkit has no queue."""
        return self._get(_lib.OPT_QUEUE_MAX)

    @queue_max.setter
    def queue_max(self, value: int) -> None:
        self._set(_lib.OPT_QUEUE_MAX, value)

    @property
    def keepalive(self) -> Optional[float]:
        """Seconds of silence before the system asks whether the peer is there; None for never."""
        return self._get(_lib.OPT_KEEPALIVE_S) or None

    @keepalive.setter
    def keepalive(self, seconds: Optional[float]) -> None:
        self._set(_lib.OPT_KEEPALIVE_S, keepalive_s(seconds))

    @property
    def send_buffer(self) -> int:
        """The size of the system's buffer for sending, in bytes; some systems double it."""
        return self._get(_lib.OPT_SEND_BUFFER)

    @send_buffer.setter
    def send_buffer(self, size: int) -> None:
        self._set(_lib.OPT_SEND_BUFFER, size)

    @property
    def recv_buffer(self) -> int:
        """The size of the system's buffer for receiving, in bytes; some systems double it."""
        return self._get(_lib.OPT_RECV_BUFFER)

    @recv_buffer.setter
    def recv_buffer(self, size: int) -> None:
        self._set(_lib.OPT_RECV_BUFFER, size)

    @property
    def cr_lines(self) -> bool:
        """Whether a lone CR ends a line too. Then every line is given with LF as its end."""
        return bool(self._get(_lib.OPT_CR_LINES))

    @property
    def delay_small_writes(self) -> bool:
        """Nagle's algorithm, off unless asked for: it waits for more before it sends a little."""
        return bool(self._get(_lib.OPT_DELAY_SMALL_WRITES))

    @delay_small_writes.setter
    def delay_small_writes(self, on: bool) -> None:
        self._set(_lib.OPT_DELAY_SMALL_WRITES, int(bool(on)))

    # --- Asking -------------------------------------------------------------------

    def _address(self, function: Any) -> Optional[Address]:
        struct = _lib.nkt_addr()
        if function(self._check(), byref(struct)) < 0:
            return None
        return Address._of(struct)

    @property
    def local(self) -> Optional[Address]:
        """This end's address; None for a Unix-domain socket, a pair and the like."""
        return self._address(quick.nkt_conn_local)

    @property
    def peer(self) -> Optional[Address]:
        """The other end's address; None for a Unix-domain socket, a pair and the like."""
        return self._address(quick.nkt_conn_peer)

    @property
    def peer_name(self) -> str:
        """The other end for people: "192.0.2.1:80", "unix", "pair"."""
        return text_of(quick.nkt_conn_peer_name, self._check())     # type: ignore[arg-type]

    @property
    def info(self) -> ConnectionInfo:
        """Counts of bytes, and what the system knows of the connection."""
        struct = _lib.nkt_conn_info()
        quick.nkt_conn_get_info(self._check(), byref(struct))
        front = self._front
        return ConnectionInfo(struct, front.size - front.tell())

    @property
    def attempts(self) -> Tuple[Attempt, ...]:
        """The addresses that connect() tried, the last of them with success."""
        return self._attempts

    @property
    def closed(self) -> bool:
        """Whether close(), abort() or detach() was called."""
        return self._closed

    def fileno(self) -> int:
        """The descriptor, which stays netkit's: for select() and the like. Bytes that are
        buffered here do not show there. Raises io.UnsupportedOperation, an OSError, where there
        is none, as for a pair.

        >>> import netkit
        >>> with netkit.listen("localhost:0") as listener:
        ...     with netkit.connect(listener.address) as conn:
        ...         conn.fileno() >= 0
        True
        """
        fd: int = quick.nkt_conn_descriptor(self._check())
        if fd == _lib.NO_FD:
            failure: Any = UnsupportedOperation(os_exception(_lib.EUNSUPPORTED).errno,
                                                "the connection has no descriptor")
            failure.code = _lib.EUNSUPPORTED
            raise failure
        return fd

    def readable(self) -> bool:
        """True, as `io` asks it."""
        self._check()
        return True

    def writable(self) -> bool:
        """True, as `io` asks it."""
        self._check()
        return True

    def seekable(self) -> bool:
        """False, as `io` asks it."""
        self._check()
        return False

    def isatty(self) -> bool:
        """False, as `io` asks it."""
        self._check()
        return False

    def __repr__(self) -> str:
        name = type(self).__module__.split("._")[0] + "." + type(self).__name__
        if self._closed or self._handle is None:
            return "<%s closed>" % name
        if self._epoch is not Process.epoch:
            return "<%s of the parent process>" % name
        local, peer = self.local, self.peer_name
        return "<%s %sto %s>" % (name, "" if local is None else "from %s " % local, peer)

    # --- The end ------------------------------------------------------------------

    def _release(self) -> Optional[c_void_p]:
        """Takes the handle away, once."""
        handle, self._handle = self._handle, None
        return handle

    def _shut(self) -> None:
        """From here on there is nothing to read."""
        self._closed = True
        front = self._front
        if front.decoded is not None:
            self._undecode(front)
        self._front.close()

    def _op_detach(self) -> int:
        """The descriptor, which is then the caller's."""
        self._check()
        self._give_back()
        fd = ctypes.c_ssize_t()
        err = quick.nkt_conn_detach(self._handle, byref(fd))
        if err < 0:
            if err == _lib.EBUSY:
                raise error(err, 0, "there is input that was not read, or output that was not "
                                    "sent")
            raise error(err)
        self._handle = None
        self._shut()
        return fd.value

    def _finalize(self, warn: Any = warnings.warn) -> None:
        if getattr(self, "_handle", None) is None:
            return
        if self._epoch is Process.epoch and not self._closed:
            warn("unclosed %r" % self, ResourceWarning, source=self, stacklevel=2)
        handle = self._release()
        self._shut()
        quick.nkt_conn_close(handle)


class Fronts:
    """The source of an iteration over lines: the Fronts of a connection, one after another."""

    __slots__ = ("_next",)

    def __init__(self, following: Callable[[], Optional[Any]]) -> None:
        self._next = following

    def __iter__(self) -> Fronts:
        return self

    def __next__(self) -> Any:
        front = self._next()
        if front is None:
            raise StopIteration
        return front


def iterate(following: Callable[[], Optional[Any]]) -> Iterator[Any]:
    """All that the iterators give which `following` gives, until it gives None; in C."""
    return chain.from_iterable(Fronts(following))


def check_encoding(encoding: str) -> None:
    """Raises for encodings in which a line end is not the byte 10."""
    if "\n".encode(encoding) != b"\n":
        raise ValueError("%s does not write a line end as one byte" % encoding)


def pieces_of(buffers: Iterable[Any]) -> Iterator[Tuple[Any, int, int, List[Any]]]:
    """Arrays of nkt_str for nkt_conn_writev: array, pieces, bytes, what must be kept.

    All buffers are looked at before the first array is given: one that is bad writes nothing."""
    flat: List[Any] = []
    keep: List[Any] = []
    total = 0
    ready: List[Tuple[Any, int, int, List[Any]]] = []
    for data in buffers:
        if type(data) is DIRECT:
            flat.append(data)
            size = len(data)
        else:
            pointer, size, kept = buffer_of(data)
            address, kept = address_of(pointer, kept)
            flat.append(address)
            keep.append(kept)
        flat.append(size)
        total += size
        if len(flat) == 2 * _PIECES:
            ready.append((_PIECE_ARRAY(*flat), _PIECES, total, keep))
            flat, keep, total = [], [], 0
    if flat:
        ready.append((_PIECE_ARRAY(*flat), len(flat) // 2, total, keep))
    return iter(ready)


def dup_socket(fd: int) -> Any:
    """A socket object of the standard library that owns a descriptor."""
    import socket
    return socket.socket(fileno=fd)


def take_descriptor(given: Any) -> int:
    """The descriptor of a socket object, which gives it up, or a descriptor."""
    if isinstance(given, int):
        return given
    return int(given.detach())
