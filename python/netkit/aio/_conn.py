"""The connection: netkit.Connection with every wait awaited."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from ctypes import byref, c_void_p
from functools import partial
from typing import (TYPE_CHECKING, Any, AsyncIterator, Awaitable, Generator, Iterable, List,
                    Optional, Sequence, Tuple, TypeVar, Union)

from .. import _errors, _lib
from .._base import ConnectionBase, Front, check_encoding, dup_socket, take_descriptor
from .._lib import CPYTHON, EAGAIN, ETOOLONG, OK, Process, pointer_to, quick
from .._options import LINE_MAX, MESSAGE_MAX, QUEUE_MAX, USE_DEFAULT, Stream
from ._impaired import ImpairedWatch
from ._loop import Waiter, Waiters, Watch, hub_of, wake
from ._other import CustomWatch, ObjectWatch, PairWatch
from ._send import CHUNK, Sender

if TYPE_CHECKING:
    from .._base import Buffer, Once, Operation
    from .._errors import Attempt
    from .._options import Timeout

T = TypeVar("T")

LITTLE = 4096
ATTEMPTS_PER_TURN = 16      # then others get their turn, as in the C library's poller
WRITES_PER_TURN = 64


class Timer:
    """The time-out of one call: begins with its first wait and covers all of them."""

    __slots__ = ("loop", "seconds", "deadline", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self.deadline: Optional[float] = None
        self.over = False

    async def wait(self, waiter: Union[Waiter, asyncio.Future[None]]) -> None:
        if self.deadline is None:
            self.deadline = self.loop.time() + self.seconds
        handle = self.loop.call_at(self.deadline, self.expire, waiter)
        try:
            await waiter
        finally:
            handle.cancel()
        # Not as the future's exception: that would hold on to everything on its way.
        if self.over:
            raise _errors.os_exception(_lib.ETIMEDOUT)

    def expire(self, waiter: Union[Waiter, asyncio.Future[None]]) -> None:
        if not waiter.done():
            self.over = True
            waiter.set_result(None)


class Done:
    """What close() gives: there is nothing left to wait for, but it may be awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


DONE = Done()


def view_of(data: Any) -> memoryview:
    """The bytes of any contiguous buffer."""
    if isinstance(data, str):
        raise TypeError("bytes are written, not str: encode it")
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the buffer is not contiguous: write bytes(view)")
    if view.nbytes == 0:
        return memoryview(b"")
    # Slices of a view that was cast are slow in PyPy.
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


class Connection(ConnectionBase):
    """A connected byte stream.

    Made by connect(), Listener.accept(), pair() and from_socket(), or of an object with `recv`
    and `send` methods: then it stands on that, and everything here works over it. `recv(size)`
    gives up to `size` bytes, b"" at the end; `send(data)` says how many bytes of it were sent.
    Both may be `async def`, and wait as they like; where they are not they must not wait, but
    return None when they cannot now, and the connection waits for the object's fileno(), if it
    has one, or for notify(). `shutdown_write()`, `close()` and `abort()` are called if they are
    there. What they raise comes out of the call that needed them.

    Reading and writing are independent: one task may read while another writes. Writes of
    several tasks take turns, each a whole call, in the order of the calls. It belongs to the
    event loop that it was made in.

    A call that does not end in its time raises TimeoutError; asyncio.timeout() works as well.
    Nothing is lost by either, nor by being cancelled: the next call goes on. At the end of the
    stream reads give b"".

    >>> import asyncio
    >>> from netkit import aio
    >>> class Echo:
    ...     data = b""
    ...     async def send(self, data):
    ...         self.data += data
    ...         return len(data)
    ...     async def recv(self, size):
    ...         some, self.data = self.data[:size], self.data[size:]
    ...         return some
    >>> async def main():
    ...     async with aio.Connection(Echo()) as conn:
    ...         await conn.write(b"hello\\n")
    ...         print(await conn.readline())
    >>> asyncio.run(main())
    b'hello\\n'
    """

    _nonblocking = True

    def __init__(self, transport: Any, *, timeout: Optional[float] = None,
                 line_max: int = LINE_MAX, message_max: int = MESSAGE_MAX,
                 queue_max: int = QUEUE_MAX, cr_lines: bool = False) -> None:
        """Makes a connection that stands on `transport`; see the class and connect()."""
        loop = asyncio.get_running_loop()
        stream = Stream(line_max, message_max, queue_max, None, None, None, cr_lines, False,
                        timeout)
        if not inspect.iscoroutinefunction(getattr(transport, "recv", None)):
            super().__init__(transport, stream)
            self._begin(CustomWatch(loop, self._check()))
            self._was_opened()
            return
        watch = ObjectWatch(loop, transport)
        handle = c_void_p()
        err = quick.nkt_conn_open_custom(byref(watch.table), None, byref(stream.conn_opts(True)),
                                         byref(handle))
        if err < 0:
            raise _errors.error(err)
        self._custom = None
        self._open(handle, stream)
        self._begin(watch)
        self._was_opened()

    @classmethod
    def from_socket(cls, sock: Any, *, timeout: Optional[float] = None, line_max: int = LINE_MAX,
                    message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
                    keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
                    recv_buffer: Optional[int] = None, cr_lines: bool = False,
                    delay_small_writes: bool = False) -> Connection:
        """Makes a connection of a connected stream socket: a socket object, which is detached,
        or a descriptor. It belongs to the connection from then on.

        Raises OSError (ENOTSOCK, ENOTCONN) for what is none; then it stays the caller's.

        >>> import asyncio, socket
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = socket.socketpair()
        ...     async with aio.Connection.from_socket(a) as conn:
        ...         with b:
        ...             b.send(b"hello\\n")
        ...             print(await conn.readline())
        >>> asyncio.run(main())
        b'hello\\n'
        """
        stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                        cr_lines, delay_small_writes, timeout)
        loop = asyncio.get_running_loop()
        fd = sock if isinstance(sock, int) else sock.fileno()
        handle = c_void_p()
        options = stream.conn_opts(nonblocking=True)
        err = quick.nkt_conn_adopt(fd, byref(options), byref(handle))
        if err < 0:
            raise _errors.error(err)
        take_descriptor(sock)
        return cls._on_socket(loop, handle, stream)._was_opened()

    def _begin(self, watch: Waiters) -> None:
        self._loop = watch.loop
        self._watch = watch
        self._alone = type(watch) is Watch      # nobody else has to know what happens here
        self._sender = Sender(self._check(), watch)
        self._attempted = self._writes = 0
        self._interrupted = False

    @classmethod
    def _on_socket(cls, loop: asyncio.AbstractEventLoop, handle: c_void_p, stream: Stream,
                   attempts: Tuple[Attempt, ...] = ()) -> Connection:
        self = cls._of(handle, stream, attempts)
        hub = hub_of(loop)
        self._begin(hub.watch(quick.nkt_conn_descriptor(handle)))
        return self

    def _impaired(self) -> None:
        """Waits for what is due from here on, and so does the other end of a pair."""
        ends: List[Optional[Connection]] = [self]
        if isinstance(self._watch, PairWatch):
            ends.append(self._watch.other_end())
        for end in ends:
            if end is not None and not isinstance(end._watch, ImpairedWatch):
                end._wait_with(ImpairedWatch(self._loop, end._check()))

    def _wait_with(self, watch: ImpairedWatch) -> None:
        before, self._watch = self._watch, watch
        self._alone = False
        self._sender.watch = watch
        watch.push, before.push = before.push, None
        if isinstance(before, ObjectWatch):
            watch.stands_on(before)
            wake(before.readers)
            wake(before.writers)
        else:
            before.close()          # who waits looks again

    def _timer(self, timeout: Timeout) -> Optional[Timer]:
        seconds = self._timeout_of(timeout)
        return None if seconds is None else Timer(self._loop, seconds)

    def _failure(self, err: int) -> BaseException:
        below = self._watch.below if isinstance(self._watch, ImpairedWatch) else self._watch
        if err == _lib.EOS and isinstance(below, ObjectWatch):
            for raised in below.errors:
                if raised is not None:
                    return raised
        return super()._failure(err)

    # --- Reading -------------------------------------------------------------------
    #
    # Each attempt is one call without an await in it: who is cancelled has consumed nothing, or
    # is an operation that is told of it and puts back what it has.

    def _ready(self, timer: Optional[Timer]) -> Awaitable[None]:
        self._attempted = self._writes = 0
        waiter = self._watch.readable()
        if timer is None:
            return waiter
        return timer.wait(waiter)

    async def _pause(self) -> None:
        """Lets others have their turn."""
        self._attempted = self._writes = 0
        waiter = self._loop.create_future()
        self._loop.call_soon(wake, [waiter])
        await waiter

    def _still_open(self) -> None:
        if self._closed:
            raise _errors.os_exception(_lib.ECANCELED)

    async def _attempt(self, once: Once, timeout: Timeout) -> int:
        """Attempts and waits in turns until it is something else than "not now"."""
        timer: Optional[Timer] = None
        while True:
            handle = self._check()
            self._attempted += 1
            if self._attempted > ATTEMPTS_PER_TURN:
                await self._pause()
                continue
            err = once()
            if err != EAGAIN:
                self._watch.progress()
                return err
            self._watch.looked(handle)
            if timer is None:
                timer = self._timer(timeout)
            await self._ready(timer)
            self._still_open()

    async def _do(self, operation: Operation[T], timeout: Timeout) -> T:
        self._check()
        try:
            once = next(operation)
            while True:
                try:
                    err = await self._attempt(once, timeout)
                except BaseException as raised:
                    once = operation.throw(raised)
                else:
                    once = operation.send(err)
        except StopIteration as done:
            return done.value       # type: ignore[no-any-return]

    async def read(self, size: Optional[int] = -1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads `size` bytes, fewer only at the end of the stream; all until the end without a
        size. For what has come, use read1().

        Raises as readline(); what had come before it raised is given by the next read.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"hello")
        ...         await a.shutdown_write()
        ...         print(await b.read(2), await b.read())
        >>> asyncio.run(main())
        b'he' b'llo'
        """
        return await self._do(self._op_read(size), timeout)

    async def read1(self, size: int = -1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads what has come, `size` bytes at most, waiting only for the first; b"" at the end.

        Raises as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"hello")
        ...         print(await b.read1(1000))
        >>> asyncio.run(main())
        b'hello'
        """
        return await self._do(self._op_read1(size), timeout)

    async def readinto(self, buffer: Any, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Reads what has come into a buffer, waiting only for the first byte. Says how many
        bytes; 0 at the end. From 16 KiB on nothing is copied in between.

        Raises as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     buffer = bytearray(10)
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"hello")
        ...         print(await b.readinto(buffer), buffer[:5])
        >>> asyncio.run(main())
        5 bytearray(b'hello')
        """
        return await self._do(self._op_readinto(buffer), timeout)

    async def readinto1(self, buffer: Any, *, timeout: Timeout = USE_DEFAULT) -> int:
        """The same as readinto(), under the other name that `io` has for it.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     buffer = bytearray(10)
        ...     async with a, b:
        ...         await a.write(b"hello")
        ...         print(await b.readinto1(buffer))
        >>> asyncio.run(main())
        5
        """
        return await self._do(self._op_readinto(buffer), timeout)

    async def read_exact(self, size: int, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads exactly `size` bytes; b"" if the stream has ended before the first.

        Raises IncompleteRead, an EOFError, if it ends later: its `partial` has what came. Else
        raises as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"12345")
        ...         print(await b.read_exact(4))
        >>> asyncio.run(main())
        b'1234'
        """
        return await self._do(self._op_read_exact(size), timeout)

    async def read_until(self, delimiter: Buffer, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads up to and including a delimiter of 1 to 255 bytes; at the end of the stream what
        is left, then b"".

        Raises LineTooLong if it does not begin within line_max bytes (nothing is consumed), else
        as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"login: root")
        ...         print(await b.read_until(b": "))
        >>> asyncio.run(main())
        b'login: '
        """
        return await self._do(self._op_read_until(delimiter), timeout)

    async def peek(self, size: int = 1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Gives what has come without consuming it: `size` bytes at least, fewer only at the end
        of the stream. `size` is line_max at most.

        Raises as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"hello")
        ...         print(await b.peek(), await b.read_exact(5))
        >>> asyncio.run(main())
        b'hello' b'hello'
        """
        return await self._do(self._op_peek(size), timeout)

    async def skip_line(self, *, timeout: Timeout = USE_DEFAULT) -> bool:
        """Leaves out everything up to and including the next line end, however far that is. False
        if the stream has ended.

        Raises as readline(), but never LineTooLong.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"x" * 1000 + b"\\nnext\\n")
        ...         b.line_max = 100
        ...         print(await b.skip_line(), await b.readline())
        >>> asyncio.run(main())
        True b'next\\n'
        """
        return await self._do(self._op_skip_line(), timeout)

    async def read_message(self, *, timeout: Timeout = USE_DEFAULT) -> Optional[bytes]:
        """Reads one message: four bytes of length, big-endian, and so many bytes. None at the end
        of the stream.

        Raises MessageTooLong above message_max (nothing is consumed), IncompleteRead if the
        stream ends inside, else as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write_message(b"hello")
        ...         print(await b.read_message())
        >>> asyncio.run(main())
        b'hello'
        """
        return await self._do(self._op_read_message(), timeout)

    async def read_lines(self, *, timeout: Timeout = USE_DEFAULT) -> List[bytes]:
        """Reads all complete lines that have come, with their ends: at least one, or what is left
        at the end of the stream, then []. The fastest way where they may be taken together.

        Raises as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"one\\ntwo\\nthr")
        ...         print(await b.read_lines())
        >>> asyncio.run(main())
        [b'one\\n', b'two\\n']
        """
        return await self._do(self._op_read_lines(), timeout)

    async def readline(self, limit: int = -1, *, timeout: Timeout = USE_DEFAULT) -> bytes:
        """Reads a line with its end, as files do; at the end of the stream what is left, then
        b"".

        A line ends with LF, so also with CRLF; with `cr_lines` also with CR. Of a line that is
        longer than `limit` bytes the first `limit` are given, as in `io`.

        Raises LineTooLong past line_max (nothing is consumed), TimeoutError after `timeout`
        seconds (default: the connection's), ConnectionResetError and other OSErrors when the
        connection fails, ValueError when it is closed. Who is cancelled has consumed nothing.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"one\\r\\ntwo")
        ...         await a.shutdown_write()
        ...         print(await b.readline(), await b.readline(), await b.readline())
        >>> asyncio.run(main())
        b'one\\r\\n' b'two' b''
        """
        front = self._front
        if self._dirty or front.decoded is not None or limit == 0:
            return await self._do(self._op_readline(limit), timeout)
        line = front.readline(limit)            # ValueError if it is closed
        if line:
            return line
        if self._attempted >= ATTEMPTS_PER_TURN:
            await self._pause()
        err = EAGAIN if self._is_quiet(front) else self._lines_again()
        if err == EAGAIN:
            if timeout is USE_DEFAULT:
                timeout = self._timeout
            timer = None if timeout is None else self._timer(timeout)
            while err == EAGAIN:
                if timer is None:
                    self._attempted = self._writes = 0
                    await self._watch.readable()
                else:
                    await self._ready(timer)
                if self._closed:
                    self._still_open()
                err = self._lines_again()
        if err == OK:
            return self._front.readline(limit)
        if err == _lib.EOF:
            return b""
        raise self._line_failure(err)

    def _lines_again(self) -> int:
        handle = self._handle
        if handle is None or self._closed or self._epoch is not Process.epoch:
            handle = self._check()          # raises
        self._attempted += 1
        err = self._lines_once()
        if self._alone:
            return err
        if err == EAGAIN:
            self._watch.looked(handle)
        else:
            self._watch.progress()
        return err

    def _is_quiet(self, front: Front) -> bool:
        """Whether it is better to wait than to try: after a little was read, nothing of it is
        left, and what comes next the loop will tell."""
        if front.size >= LITTLE or self._interrupted or not self._alone:
            return False
        return quick.nkt_conn_buffered(self._handle) == 0   # type: ignore[no-any-return]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The lines with their ends, as readline() gives them, until the end of the stream.

        After leaving the loop any other read goes on behind the last line that it gave.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(b"one\\ntwo\\nrest")
        ...         async for line in b:
        ...             break
        ...         print(line, await b.read1(2))
        >>> asyncio.run(main())
        b'one\\n' b'tw'
        """
        front: Optional[Front] = self._front
        while front is not None:
            if self._dirty or front.decoded is not None:
                front = self._settle()
            for line in front:
                yield line
            front = await self._do(self._next_front(), USE_DEFAULT)

    async def lines(self, encoding: str = "utf-8", errors: str = "strict", *,
                    timeout: Timeout = USE_DEFAULT) -> AsyncIterator[str]:
        """The lines as text without their ends, until the end of the stream.

        `timeout` is for each line. Raises UnicodeDecodeError for a line that is not in the
        encoding, after the lines before it; iterate anew to go on behind it. Else as readline().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write("gr\\u00fcn\\r\\nblau\\n".encode())
        ...         await a.shutdown_write()
        ...         print([line async for line in b.lines()])
        >>> asyncio.run(main())
        ['gr\\xfcn', 'blau']
        """
        check_encoding(encoding)
        while True:
            texts = await self._do(self._op_next_text(encoding, errors), timeout)
            if texts is None:
                return
            for text in texts:
                yield text

    # --- Writing -------------------------------------------------------------------

    async def write(self, data: Buffer, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Writes all of `data`, any contiguous buffer, and gives its length. It returns when the
        system has taken every byte; so a slow peer slows its writer down. Writers take turns in
        the order of their calls, each a whole call.

        Who is cancelled, or whose time is over, has written nothing, or all of it is sent in the
        background: the peer never sees a part.

        Raises TimeoutError after `timeout` seconds (default: the connection's) and
        BrokenPipeError, ConnectionResetError and other OSErrors when the connection fails: their
        `sent` says how many bytes of this call went out or will. BufferError for a buffer with
        gaps, TypeError for str, ValueError when it is closed.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write(memoryview(b"hello")[1:3])
        ...         print(await b.read1())
        >>> asyncio.run(main())
        b'el'
        """
        handle = self._handle
        if handle is None or self._closed or self._epoch is not Process.epoch:
            handle = self._check()          # raises
        sender = self._sender
        if type(data) is not bytes:
            view = view_of(data)
            if len(view) > CHUNK:
                await self._write_pieces((view,), timeout)
                return len(view)
            data = view.tobytes()
        self._writes += 1
        if sender.turn.taken or sender.owed or self._writes > WRITES_PER_TURN:
            await self._write_pieces((memoryview(data),), timeout)
            return len(data)
        pointer: Any = data
        if not CPYTHON:
            pointer, _keep = pointer_to(data)
        size = len(data)
        err = quick.nkt_conn_write(handle, pointer, size)
        if err == OK:
            if self._alone and quick.nkt_conn_queued(handle) == 0:
                return size
            self._watch.progress()
            err = quick.nkt_conn_flush(handle)
            if err == EAGAIN:
                await self._write_pieces((), timeout, len(data))
            elif err < 0:
                raise self._failure(err)
        elif err == EAGAIN or err == ETOOLONG:
            await self._write_pieces((memoryview(data),), timeout)
        else:
            raise self._sent(self._failure(err), 0)
        return len(data)

    @staticmethod
    def _sent(failure: BaseException, count: int) -> BaseException:
        if isinstance(failure, OSError):
            failure.sent = count            # type: ignore[attr-defined]
        return failure

    async def _write_pieces(self, pieces: Sequence[memoryview], timeout: Timeout,
                            sent: int = 0) -> None:
        """Takes its turn, and goes on until the system has taken all of it. `sent` bytes of the
        call are in the queue already."""
        sender = self._sender
        timer = self._timer(timeout)
        total = sent + sum(map(len, pieces))
        try:
            await self._take_turn(timer)
        except BaseException as raised:
            self._sent(raised, sent)
            raise
        sender.take(pieces)
        try:
            await self._push_all(timer)
        except BaseException as raised:
            self._sent(raised, total if sender.begun else sent)
            sender.leave()
            raise
        finally:
            sender.turn.release()

    async def _push_all(self, timer: Optional[Timer]) -> None:
        while self._sender.push():
            self._writes = 0
            waiter = self._watch.writable()
            if timer is None:
                await waiter
            else:
                await timer.wait(waiter)
        self._still_open()
        err, self._sender.error = self._sender.error, 0
        if err < 0:
            raise self._failure(err)

    async def _take_turn(self, timer: Optional[Timer]) -> None:
        """Returns when everything that others have begun is sent. Release it in the end."""
        turn = self._sender.turn
        if turn.taken:
            waiter = turn.ask()
            try:
                await (waiter if timer is None else timer.wait(waiter))
            except BaseException:
                turn.give_up(waiter)
                raise
        turn.taken = True
        try:
            if self._writes > WRITES_PER_TURN:
                await self._pause()
            await self._push_all(timer)
        except BaseException:
            turn.release()
            raise

    async def writelines(self, buffers: Iterable[Buffer], *,
                         timeout: Timeout = USE_DEFAULT) -> None:
        """Writes several buffers in order, as one write. No line ends are added.

        Raises as write().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.writelines([b"one\\n", bytearray(b"two\\n")])
        ...         print(await b.read_lines())
        >>> asyncio.run(main())
        [b'one\\n', b'two\\n']
        """
        self._check()
        pieces = [view_of(data) for data in buffers]
        await self._write_pieces([piece for piece in pieces if len(piece) > 0], timeout)

    async def write_message(self, data: Buffer, *, timeout: Timeout = USE_DEFAULT) -> int:
        """Writes one message: four bytes of length, big-endian, and `data`. Gives its length.

        Raises MessageTooLong above message_max (nothing is written), else as write(); `sent`
        counts the four bytes too.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.write_message(b"hello")
        ...         print(await b.read_exact(9))
        >>> asyncio.run(main())
        b'\\x00\\x00\\x00\\x05hello'
        """
        self._check()
        size = self._message_size(data)
        head = size.to_bytes(4, "big")
        if size < CHUNK:
            await self.write(head + view_of(data).tobytes(), timeout=timeout)
        else:
            await self._write_pieces((memoryview(head), view_of(data)), timeout)
        return size

    async def flush(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """Waits until everything written was taken by the system, also what cancelled writers have
        left.

        Raises as write().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.flush()
        >>> asyncio.run(main())
        """
        self._check()
        await self._write_pieces((), timeout)

    async def shutdown_write(self, *, timeout: Timeout = USE_DEFAULT) -> None:
        """Tells the peer that nothing more will come; reading goes on.

        Raises as write().

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         await a.shutdown_write()
        ...         print(await b.read())
        >>> asyncio.run(main())
        b''
        """
        self._check()
        timer = self._timer(timeout)
        await self._take_turn(timer)
        try:
            err = quick.nkt_conn_shutdown_write(self._check())
            self._watch.progress()
            await self._push_all(timer)
            if err < 0 and err != EAGAIN:
                raise self._failure(err)
        finally:
            self._sender.turn.release()

    # --- The end -------------------------------------------------------------------

    def _close(self, how: Any) -> None:
        handle = self._release()
        if handle is None:
            return
        self._shut()
        self._sender.close()
        if self._epoch is Process.epoch:
            self._watch.close()
        if self._custom is not None and self._custom.inside > 0:
            # One of the object's own methods closes it: C is still in the call that has led there.
            quick.nkt_conn_interrupt(handle)
            self._loop.call_soon(how, handle)
        else:
            how(handle)

    def interrupt(self) -> None:
        """Ends every wait of other tasks in this connection, now and for good: they raise OSError
        with ECANCELED. What is buffered can still be read; then close() it.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     async with a, b:
        ...         asyncio.get_running_loop().call_later(0.05, b.interrupt)
        ...         try:
        ...             await b.readline()
        ...         except OSError as error:
        ...             print(error.strerror)
        >>> asyncio.run(main())
        interrupted or canceled, for good
        """
        if self._handle is not None:
            self._interrupted = True
            quick.nkt_conn_interrupt(self._handle)
            wake(self._watch.readers)
            wake(self._watch.writers)

    def notify(self) -> None:
        """For the object that the connection stands on: its recv() or send() may succeed now,
        after it said that it could not. From any thread.

        >>> import asyncio
        >>> from netkit import aio
        >>> class Late:
        ...     data = None
        ...     def recv(self, size):
        ...         return self.data            # None: not now
        ...     def send(self, data):
        ...         return len(data)
        >>> async def main():
        ...     late = Late()
        ...     async with aio.Connection(late) as conn:
        ...         def come():
        ...             late.data = b"at last"
        ...             conn.notify()
        ...         asyncio.get_running_loop().call_later(0.05, come)
        ...         print(await conn.read_exact(7, timeout=5))
        >>> asyncio.run(main())
        b'at last'
        """
        if self._custom is not None:
            self._custom.notify()
        if self._handle is not None:
            quick.nkt_conn_notify(self._handle)
            if isinstance(self._watch, CustomWatch) and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._watch.told)

    def close(self) -> Awaitable[None]:
        """Closes the connection, at once; it need not be awaited. Calls of other tasks end with an
        OSError. With input that was not read the system resets the peer: to be sure that it gets
        everything, shutdown_write(), read to the end, then close. May be called again.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = aio.pair()
        ...     a.close()
        ...     print(a.closed, await b.read())
        ...     b.close()
        >>> asyncio.run(main())
        True b''
        """
        self._close(quick.nkt_conn_close)
        return DONE

    def abort(self) -> Awaitable[None]:
        """As close(), but the peer gets a reset.

        >>> import asyncio
        >>> from netkit import aio
        >>> async def main():
        ...     async with aio.listen("localhost:0") as listener:
        ...         conn = await aio.connect(listener.address)
        ...         async with await listener.accept() as accepted:
        ...             conn.abort()
        ...             try:
        ...                 await accepted.read(timeout=5)
        ...             except ConnectionResetError:
        ...                 print("reset")
        >>> asyncio.run(main())
        reset
        """
        self._close(quick.nkt_conn_abort)
        return DONE

    def detach(self) -> int:
        """Gives the descriptor to the caller, in blocking mode, and closes the connection without
        it.

        Raises OSError: EBUSY if there is input that was not read, or output that was not sent;
        EOPNOTSUPP if there is no descriptor.

        >>> import asyncio, os, socket
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = socket.socketpair()
        ...     conn = aio.Connection.from_socket(a)
        ...     os.close(conn.detach())
        ...     b.close()
        >>> asyncio.run(main())
        """
        self._check()
        if self._sender.turn.taken or self._sender.owed:
            raise _errors.error(_lib.EBUSY, 0, "there is output that was not sent")
        self._watch.pause()
        fd = self._op_detach()
        self._sender.close()
        self._watch.close()
        return fd

    def to_socket(self) -> Any:
        """The connection as a socket object of the standard library; as detach().

        >>> import asyncio, socket
        >>> from netkit import aio
        >>> async def main():
        ...     a, b = socket.socketpair()
        ...     conn = aio.Connection.from_socket(a)
        ...     with conn.to_socket() as sock, b:
        ...         print(sock.send(b"hello"), b.recv(10))
        >>> asyncio.run(main())
        5 b'hello'
        """
        return dup_socket(self.detach())

    async def __aenter__(self) -> Connection:
        self._check()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self, _warn: Any = warnings.warn, _partial: Any = partial,
                _close: Any = quick.nkt_conn_close) -> None:
        if getattr(self, "_handle", None) is None or not hasattr(self, "_watch"):
            return
        if self._epoch is not Process.epoch:
            _close(self._release())
            return
        _warn("unclosed %r" % self, ResourceWarning, source=self, stacklevel=2)
        handle = self._release()
        self._shut()
        self._sender.close()
        self._watch.abandon(_partial(_close, handle))
