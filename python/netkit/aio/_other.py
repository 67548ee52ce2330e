"""What stands under a connection besides a descriptor: the other end in memory, a user's object."""

import asyncio
import ctypes
import inspect
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from .. import _lib
from .._lib import pointer_to, quick
from ._loop import Call, Waiter, Waiters, hub_of, wake

if TYPE_CHECKING:
    from ._conn import Connection


class PairWatch(Waiters):
    """One end of a pair: whatever one does may be what the other waits for."""

    __slots__ = ("other", "scheduled", "received", "owner")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.other: Optional[PairWatch] = None
        self.scheduled = False
        self.received = 0
        self.owner: "Callable[[], Optional[Connection]]" = lambda: None

    def other_end(self) -> "Optional[Connection]":
        """The connection at the other end, if it is open."""
        return None if self.other is None else self.other.owner()

    def want_read(self) -> None:
        pass            # the other end's progress is what is waited for

    def want_write(self) -> None:
        pass

    def progress(self) -> None:
        other = self.other
        if other is not None and not other.scheduled and not self.loop.is_closed():
            other.scheduled = True
            self.loop.call_soon(other.told)

    def looked(self, handle: Optional[ctypes.c_void_p]) -> None:
        # Half a message may have been taken, which makes room for the rest.
        info = _lib.nkt_conn_info()
        quick.nkt_conn_get_info(handle, ctypes.byref(info))
        if info.received != self.received:
            self.received = info.received
            self.progress()

    def told(self) -> None:
        self.scheduled = False
        wake(self.readers)
        if self.push is None or not self.push():
            wake(self.writers)

    def close(self) -> None:
        super().close()
        # What is closed is told of when it is, a moment from now.
        self.progress()
        if self.other is not None:
            self.other.other = None
            self.other = None

    def abandon(self, close: Call) -> None:
        other, self.other = self.other, None
        close()
        if other is not None and not self.loop.is_closed():
            other.other = None
            self.loop.call_soon_threadsafe(other.told)


class ObjectWatch(Waiters):
    """A user's object with `recv` and `send`, as a transport of the C library.

    A reader that waits starts a task with one `recv`; it goes on if the reader is cancelled, and
    what it brings is for the next one. What is written goes to one `send` at a time.
    """

    __slots__ = ("object", "inbox", "ended", "errors", "receiving", "sending", "closed",
                 "table", "changed", "_functions")

    SIZE = 65536
    CHUNK = 262144

    def __init__(self, loop: asyncio.AbstractEventLoop, user: Any) -> None:
        super().__init__(loop)
        self.object = user
        self.inbox = memoryview(b"")
        self.ended = False
        self.errors: List[Optional[BaseException]] = [None, None]       # reading, writing
        self.receiving: "Optional[asyncio.Task[None]]" = None
        self.sending: "Optional[asyncio.Task[None]]" = None
        self.closed = False
        self.changed: Optional[Call] = None     # told when what was asked for is there
        functions = (_lib.RECV_FUNC(self.c_recv), _lib.SEND_FUNC(self.c_send),
                     _lib.SHUTDOWN_FUNC(self.c_shutdown), _lib.CLOSE_FUNC(self.c_close),
                     _lib.SHUTDOWN_FUNC(self.c_flush), _lib.WATCH_FUNC(self.c_watch))
        self._functions = functions
        table = _lib.nkt_transport()
        table.size = ctypes.sizeof(table)
        table.name = type(user).__name__.encode()
        table.recv, table.send, table.shutdown_write, table.close = functions[:4]
        table.flush = ctypes.cast(functions[4], ctypes.c_void_p).value
        table.watch = functions[5]
        self.table = table

    # What the C library calls. None of it may raise.

    def c_recv(self, link: int, buf: int, cap: int) -> int:
        if len(self.inbox) > 0:
            data = self.inbox[:cap]
            pointer, _keep = pointer_to(data.tobytes())
            ctypes.memmove(buf, pointer, len(data))
            self.inbox = self.inbox[len(data):]
            return len(data)
        if self.errors[0] is not None:
            return _lib.EOS
        return 0 if self.ended else _lib.EAGAIN

    def c_send(self, link: int, pieces: int, count: int) -> int:
        if self.errors[1] is not None:
            return _lib.EOS
        if self.sending is not None:
            return _lib.EAGAIN
        data = b""
        for piece in (_lib.nkt_str * count).from_address(pieces):
            if piece.len > 0:
                data += ctypes.string_at(piece.ptr, min(piece.len, self.CHUNK - len(data)))
            if len(data) == self.CHUNK:
                break
        self.sending = self.loop.create_task(self.send(data))
        return len(data)

    def c_flush(self, link: int) -> int:
        if self.errors[1] is not None:
            return _lib.EOS
        return _lib.EAGAIN if self.sending is not None else _lib.OK

    def c_watch(self, link: int, want: int, out: int) -> None:
        interest = _lib.nkt_interest.from_address(out)
        if want & _lib.READ:
            if self.has_input():
                interest.ready = True
            elif self.receiving is None:
                self.receiving = self.loop.create_task(self.receive())
        if want & _lib.WRITE and self.sending is None:
            interest.ready = True

    def c_shutdown(self, link: int) -> int:
        if self.errors[1] is not None:
            return _lib.EOS
        if self.sending is not None:
            return _lib.EAGAIN
        if not hasattr(self.object, "shutdown_write"):
            return _lib.EUNSUPPORTED
        self.sending = self.loop.create_task(self.finish())
        return _lib.OK

    def c_close(self, link: int, abort: bool) -> None:
        pass            # close() below does it, in the loop

    # In the loop.

    async def receive(self) -> None:
        try:
            data = self.object.recv(self.SIZE)
            if inspect.isawaitable(data):
                data = await data
            self.inbox = memoryview(data).cast("B")
            self.ended = len(self.inbox) == 0
        except asyncio.CancelledError:
            if not self.closed:
                self.errors[0] = ConnectionAbortedError("recv() was cancelled from within")
        except BaseException as error:
            self.errors[0] = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.receiving = None
            wake(self.readers)
            if self.changed is not None:
                self.changed()

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while len(rest) > 0:
                count = self.object.send(rest.tobytes())
                if inspect.isawaitable(count):
                    count = await count
                if count is None:
                    break
                if not 0 < count <= len(rest):
                    raise ValueError("send() returned %r for %d bytes" % (count, len(rest)))
                rest = rest[count:]
        except asyncio.CancelledError:
            if not self.closed:
                self.errors[1] = ConnectionAbortedError("send() was cancelled from within")
        except BaseException as error:
            self.errors[1] = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.sent()

    async def finish(self) -> None:
        try:
            done = self.object.shutdown_write()
            if inspect.isawaitable(done):
                await done
        except Exception as error:
            self.errors[1] = error
        finally:
            self.sent()

    def sent(self) -> None:
        self.sending = None
        if self.push is None or not self.push():
            wake(self.writers)
        if self.changed is not None:
            self.changed()

    def has_input(self) -> bool:
        """Whether recv() of the object has brought something that was not taken."""
        return len(self.inbox) > 0 or self.ended or self.errors[0] is not None

    def want_read(self) -> None:
        if self.has_input():
            wake(self.readers)
        elif self.receiving is None:
            self.receiving = self.loop.create_task(self.receive())

    def want_write(self) -> None:
        if self.sending is None:
            wake(self.writers)

    def close(self) -> None:
        self.closed = True
        super().close()
        if self.loop.is_closed():
            return
        for task in (self.receiving, self.sending):
            if task is not None:
                task.cancel()
        if hasattr(self.object, "close"):
            done = self.object.close()
            if inspect.isawaitable(done):
                asyncio.ensure_future(done)

    def abandon(self, close: Call) -> None:
        for task in (self.receiving, self.sending):
            if task is not None and not self.loop.is_closed():
                self.loop.call_soon_threadsafe(task.cancel)
        close()


class CustomWatch(Waiters):
    """A user's object whose methods never wait: it says "not now", and what to wait for."""

    __slots__ = ("handle", "watches")

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: ctypes.c_void_p) -> None:
        super().__init__(loop)
        self.handle: Optional[ctypes.c_void_p] = handle
        self.watches: Dict[int, Waiters] = {}       # by descriptor

    def want_read(self) -> None:
        self.ask(_lib.READ, self.readers)

    def want_write(self) -> None:
        self.ask(_lib.WRITE, self.writers)

    def ask(self, want: int, waiters: List[Waiter]) -> None:
        interest = _lib.nkt_interest()
        if self.handle is not None:
            quick.nkt_conn_watch(self.handle, want, ctypes.byref(interest))
        if self.handle is None or not waiters:
            wake(waiters)           # it was closed or interrupted, perhaps just now by fileno()
            return
        if interest.ready:
            self.loop.call_soon(self.told)
        if interest.deadline_ns != _lib.NEVER:
            delay = (interest.deadline_ns - quick.nkt_now_ns(None)) / 1e9
            self.loop.call_later(max(delay, 0), self.told)
        for found in interest.watches[:interest.count]:
            watch = self.watches.get(found.fd)
            if watch is None:
                watch = self.watches[found.fd] = hub_of(self.loop).watch(found.fd)
            if found.events & _lib.READ:
                watch.enroll(waiters[-1])
            if found.events & _lib.WRITE:
                watch.push = self.push
                watch.writers.append(waiters[-1])
                watch.want_write()

    def told(self) -> None:
        """Everybody tries again; after notify() too."""
        wake(self.readers)
        if self.push is None or not self.push():
            wake(self.writers)

    def close(self) -> None:
        self.handle = None
        for watch in self.watches.values():
            watch.close()
        super().close()

    def abandon(self, close: Call) -> None:
        watches = list(self.watches.values())
        for watch in watches[1:]:
            watch.abandon(int)
        if watches:
            watches[0].abandon(close)
        else:
            close()
