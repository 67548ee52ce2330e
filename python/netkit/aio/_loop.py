"""Waiting inside an event loop: descriptors, and what the C library has under way.

A Watch waits for one descriptor. It stays registered between waits and is taken out when it is
told of something nobody waits for: registering for each wait costs 2.6 times as much. Loops
whose add_reader is not implemented (asyncio's proactor) get one thread with a C poller in it.

A Hub waits for connects and look-ups, whose descriptors come and go: they are in a C poller, of
which the loop sees one descriptor, or which is that thread's.
"""

import asyncio
import collections
import contextlib
import ctypes
import socket
import threading
import weakref
from typing import Any, Callable, Deque, Dict, Generator, List, Optional, Tuple, Union

from .. import _errors
from .._lib import NO_FD, READ, WRITE, nkt_event, quick, slow

Call = Callable[[], object]

_PENDING, _DONE, _CANCELLED = range(3)


def wake(waiters: "Union[List[Waiter], List[asyncio.Future[None]]]") -> None:
    """Lets everybody try again. Who was cancelled meanwhile is passed over."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


class Waiter:
    """A future that is done when a descriptor may be ready, and has no result.

    Its task can go on inside the loop's callback that tells of the descriptor, which spares the
    loop a turn, with a system call of its own: see Watch.on_readable(). One task awaits it.
    """

    # Of the class until it is otherwise: making one is short.
    callback: Optional[Callable[[Any], object]] = None
    context: Any = None
    state = _PENDING
    message: Any = None
    _asyncio_future_blocking = False        # what asyncio knows a future by

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], object], *,
                          context: Any = None) -> None:
        self.callback, self.context = callback, context
        if self.state != _PENDING:
            self.tell()

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        if self.callback != callback:
            return 0
        self.callback = None
        return 1

    def tell(self) -> None:
        callback, self.callback = self.callback, None
        if callback is not None:
            self.loop.call_soon(callback, self, context=self.context)

    def done(self) -> bool:
        return self.state != _PENDING

    def cancelled(self) -> bool:
        return self.state == _CANCELLED

    def cancel(self, msg: Any = None) -> bool:
        if self.state != _PENDING:
            return False
        self.state = _CANCELLED
        self.message = msg
        self.tell()
        return True

    def set_result(self, result: None) -> None:
        """Lets the task go on at the loop's next turn."""
        self.state = _DONE
        self.tell()

    def result(self) -> None:
        if self.state == _CANCELLED:
            raise (asyncio.CancelledError() if self.message is None
                   else asyncio.CancelledError(self.message))
        if self.state == _PENDING:
            raise asyncio.InvalidStateError("it is not done")

    def exception(self) -> None:
        self.result()

    def __await__(self) -> "Generator[Any, None, None]":
        if self.state == _PENDING:
            self._asyncio_future_blocking = True
            yield self
        if self.state != _DONE:
            self.result()

    __iter__ = __await__


class Waiters:
    """Who waits to read and who to write; the base of everything that is waited for."""

    __slots__ = ("loop", "readers", "writers", "push")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.readers: List[Waiter] = []
        self.writers: List[Waiter] = []
        self.push: Optional[Callable[[], bool]] = None      # sends on; False when all is sent

    def readable(self) -> Waiter:
        """A future that is done when reading may succeed. Cancelling it costs nothing."""
        waiter = Waiter(self.loop)
        if self.readers:
            self.enroll(waiter)
        else:
            self.readers.append(waiter)
            self.want_read()
        return waiter

    def enroll(self, waiter: Waiter) -> None:
        if self.readers:
            self.readers[:] = [other for other in self.readers if other.state == _PENDING]
        self.readers.append(waiter)
        self.want_read()

    def writable(self) -> Waiter:
        waiter = Waiter(self.loop)
        if self.writers:
            self.writers[:] = [other for other in self.writers if not other.done()]
        self.writers.append(waiter)
        self.want_write()
        return waiter

    def want_read(self) -> None:
        raise NotImplementedError

    def want_write(self) -> None:
        raise NotImplementedError

    def progress(self) -> None:
        """Something was read or written: for what is told of it by nobody else."""

    def looked(self, handle: Optional[ctypes.c_void_p]) -> None:
        """A read has found less than it wants, but may have taken that from the other side."""

    def pause(self) -> None:
        """Takes the descriptor out of the loop, until it is waited for again."""

    def close(self) -> None:
        """Ends every wait; to be called before the descriptor is closed."""
        if not self.loop.is_closed():
            wake(self.readers)
            wake(self.writers)

    def abandon(self, close: Call) -> None:
        """For finalizers: closes a handle that nobody has closed, now or as soon as can be."""
        close()


class Watch(Waiters):
    """One descriptor, in a loop that has add_reader."""

    __slots__ = ("fd", "reading", "writing", "orphan")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        super().__init__(loop)
        self.fd = fd
        self.reading = False
        self.writing = False
        self.orphan: Optional[Call] = None

    def readable(self) -> Waiter:
        if self.readers or not self.reading:
            return super().readable()
        waiter = Waiter(self.loop)
        self.readers.append(waiter)
        return waiter

    def want_read(self) -> None:
        if not self.reading:
            self.loop.add_reader(self.fd, self.on_readable)
            self.reading = True

    def want_write(self) -> None:
        if not self.writing:
            self.loop.add_writer(self.fd, self.on_writable)
            self.writing = True

    def on_readable(self) -> None:
        readers = self.readers
        if len(readers) == 1:
            waiter = readers.pop()
            callback = waiter.callback
            if waiter.state == _PENDING:
                # The task goes on now: it is the loop that calls, so none is running.
                waiter.state = _DONE
                waiter.callback = None
                if callback is not None:
                    waiter.context.run(callback, waiter)
        elif readers:
            wake(readers)
        else:
            self.loop.remove_reader(self.fd)
            self.reading = False
            if self.orphan is not None:
                self.bury()

    def on_writable(self) -> None:
        if self.orphan is not None:
            self.bury()
        elif self.push is not None and self.push():
            return
        elif self.writers:
            wake(self.writers)
        elif self.writing:
            self.loop.remove_writer(self.fd)
            self.writing = False

    def pause(self) -> None:
        if not self.loop.is_closed():
            if self.reading:
                self.loop.remove_reader(self.fd)
            if self.writing:
                self.loop.remove_writer(self.fd)
        self.reading = self.writing = False

    def close(self) -> None:
        self.pause()
        super().close()

    def abandon(self, close: Call) -> None:
        # A finalizer runs anywhere and must not touch the loop, but a descriptor must not be
        # closed while the loop watches it. Shutting it down makes the loop call us.
        if not (self.reading or self.writing) or self.loop.is_closed():
            close()
            return
        self.orphan = close
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=self.fd)
            try:
                sock.shutdown(socket.SHUT_RDWR)
            finally:
                sock.detach()

    def bury(self) -> None:
        close, self.orphan = self.orphan, None
        self.push = None
        self.close()
        if close is not None:
            close()


class ThreadWatch(Waiters):
    """One descriptor, watched by the loop's poller thread, each time until it is told of."""

    __slots__ = ("thread", "fd", "token", "armed")

    def __init__(self, thread: "PollerThread", fd: int) -> None:
        super().__init__(thread.loop)
        self.thread = thread
        self.fd = fd
        self.armed = 0
        self.token = thread.enter(self)

    def want_read(self) -> None:
        self.arm(READ)

    def want_write(self) -> None:
        self.arm(WRITE)

    def arm(self, events: int) -> None:
        if events & ~self.armed:
            self.armed |= events
            self.thread.post("fd", self.fd, self.token, self.armed)

    def on_ready(self, events: int) -> None:
        self.armed &= ~events
        if events & READ:
            wake(self.readers)
        if events & WRITE:
            if self.push is not None and self.push():
                self.arm(WRITE)
            else:
                wake(self.writers)

    def pause(self) -> None:
        self.armed = 0
        self.thread.post("forget", self.fd, self.token)

    def close(self) -> None:
        self.thread.leave(self)
        super().close()

    def abandon(self, close: Call) -> None:
        self.thread.leave(self)
        close()


# How each kind of handle gets into a C poller, out of it, and is closed.
_ADD = {"conn": quick.nkt_poller_add_conn, "task": quick.nkt_poller_add_task}
_REMOVE = {"conn": quick.nkt_poller_remove_conn, "task": quick.nkt_poller_remove_task}
_CLOSE = {"conn": quick.nkt_conn_close, "task": quick.nkt_task_close}


def open_poller() -> int:
    poller = ctypes.c_void_p()
    err = quick.nkt_poller_open(None, ctypes.byref(poller))
    if err < 0 or poller.value is None:
        raise _errors.error(err)
    return poller.value


class PollerThread:
    """A C poller in a thread, for a loop that cannot watch descriptors by itself.

    The loop posts what is wanted; the thread does it, waits without the interpreter's lock, and
    tells the loop. A handle belongs to the thread from posting until it is told of.
    """

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.loop = hub.loop
        self.poller = open_poller()
        self.lock = threading.Lock()        # ends the poller's life once
        self.commands: "Deque[Tuple[str, Any, int, int]]" = collections.deque()
        self.watches: Dict[int, ThreadWatch] = {}           # by token
        self.waiting: "Dict[int, asyncio.Future[None]]" = {}
        self.tokens = 0
        self.ended = False
        threading.Thread(target=self.run, name="netkit.aio poller", daemon=True).start()

    # On the loop's thread, but for `post`.

    def post(self, what: str, number: Any, token: int = 0, events: int = 0) -> None:
        self.commands.append((what, number, token, events))
        with self.lock:
            if self.ended:
                self.obey({})
            else:
                quick.nkt_poller_wake(self.poller)

    def enter(self, watch: ThreadWatch) -> int:
        self.tokens += 1
        self.watches[self.tokens] = watch
        return self.tokens

    def leave(self, watch: ThreadWatch) -> None:
        if self.watches.pop(watch.token, None) is not None:
            self.post("forget", watch.fd, watch.token)
            self.rest()

    def rest(self) -> None:
        if not self.watches and not self.waiting:
            self.hub.thread = None
            self.post("end", 0)

    def start(self, kind: str, handle: ctypes.c_void_p) -> "asyncio.Future[None]":
        self.tokens += 1
        future = self.waiting[self.tokens] = self.loop.create_future()
        self.post(kind, handle, self.tokens)
        return future

    def finished(self, kind: str, handle: ctypes.c_void_p) -> None:
        self.rest()

    def discard(self, kind: str, handle: ctypes.c_void_p) -> None:
        """Closes a handle, which the thread has or just has told of."""
        self.post("close " + kind, handle)
        self.rest()

    def told(self, ready: List[Tuple[int, int]]) -> None:
        for token, events in ready:
            watch = self.watches.get(token)
            if watch is not None:
                watch.on_ready(events)
            future = self.waiting.pop(token, None)
            if future is not None and not future.done():
                future.set_result(None)

    # On the thread.

    def run(self) -> None:
        events = (nkt_event * 64)()
        fds: Dict[int, List[int]] = {}      # events wanted, token
        try:
            while self.obey(fds):
                if slow.nkt_poller_wait(self.poller, -1) < 0:
                    break
                count = quick.nkt_poller_next_many(self.poller, events, len(events))
                ready = [self.take(event, fds) for event in events[:count]]
                if ready:
                    self.loop.call_soon_threadsafe(self.told, ready)
        except RuntimeError:
            pass        # the loop is closed
        finally:
            with self.lock:
                self.ended = True
                quick.nkt_poller_close(self.poller)
            self.obey({})

    def obey(self, fds: Dict[int, List[int]]) -> bool:
        goes_on = True
        while True:
            try:
                what, number, token, events = self.commands.popleft()
            except IndexError:
                return goes_on
            if what.startswith("close "):
                _CLOSE[what[6:]](number)
            elif self.ended:
                continue
            elif what == "fd":
                self.watch_fd(fds, number, token, events)
            elif what == "forget":
                if fds.pop(number, None) is not None:
                    quick.nkt_poller_remove_fd(self.poller, number)
            elif what == "end":
                goes_on = False
            else:
                _ADD[what](self.poller, number, token)

    def watch_fd(self, fds: Dict[int, List[int]], fd: int, token: int, events: int) -> None:
        if fd in fds:
            fds[fd] = [events, token]
            quick.nkt_poller_want_fd(self.poller, fd, events)
        elif quick.nkt_poller_add_fd(self.poller, fd, events, token) >= 0:
            fds[fd] = [events, token]

    def take(self, event: nkt_event, fds: Dict[int, List[int]]) -> Tuple[int, int]:
        if event.conn:
            quick.nkt_poller_remove_conn(self.poller, event.conn)
        elif event.task:
            quick.nkt_poller_remove_task(self.poller, event.task)
        else:
            wanted = fds[event.fd]
            wanted[0] &= ~event.events
            quick.nkt_poller_want_fd(self.poller, event.fd, wanted[0])
        return event.user, event.events


class LoopPoller:
    """A C poller whose one descriptor the loop watches while there is anything in it."""

    def __init__(self, hub: "Hub", poller: int, fd: int) -> None:
        self.hub = hub
        self.loop = hub.loop
        self.poller = poller
        self.fd = fd
        self.waiting: "Dict[int, asyncio.Future[None]]" = {}
        self.inside = 0
        self.tokens = 0
        self.timer: Optional[asyncio.TimerHandle] = None
        self.loop.add_reader(fd, self.pump)

    def start(self, kind: str, handle: ctypes.c_void_p) -> "asyncio.Future[None]":
        self.tokens += 1
        err = _ADD[kind](self.poller, handle, self.tokens)
        if err < 0:
            self.left(0)
            raise _errors.error(err)
        self.inside += 1
        future = self.waiting[self.tokens] = self.loop.create_future()
        self.schedule()
        return future

    def finished(self, kind: str, handle: ctypes.c_void_p) -> None:
        if _REMOVE[kind](self.poller, handle) >= 0:
            self.left()

    def discard(self, kind: str, handle: ctypes.c_void_p) -> None:
        removed = _REMOVE[kind](self.poller, handle)
        _CLOSE[kind](handle)
        if removed >= 0:
            self.left()

    def left(self, count: int = 1) -> None:
        self.inside -= count
        if self.inside > 0 or self.hub.poller is not self:
            return
        self.hub.poller = None
        if self.timer is not None:
            self.timer.cancel()
        if not self.loop.is_closed():
            self.loop.remove_reader(self.fd)
        quick.nkt_poller_close(self.poller)

    def pump(self) -> None:
        if self.hub.poller is not self:
            return
        event = nkt_event()
        quick.nkt_poller_wait(self.poller, 0)
        while quick.nkt_poller_next(self.poller, ctypes.byref(event)) >= 0:
            future = self.waiting.pop(event.user, None)
            if future is not None and not future.done():
                future.set_result(None)
        self.schedule()

    def schedule(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        delay_ms = quick.nkt_poller_timeout_ms(self.poller)
        if delay_ms >= 0:
            self.timer = self.loop.call_later(delay_ms / 1000, self.pump)


class Hub:
    """What one event loop has of us."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)              # or no loop would ever be freed
        self.threaded: Optional[bool] = None        # not known yet
        self.thread: Optional[PollerThread] = None
        self.poller: Optional[LoopPoller] = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop()
        assert loop is not None
        return loop

    def watch(self, fd: int) -> "Union[Watch, ThreadWatch]":
        if self.threaded is None:
            self.probe(fd)
        return ThreadWatch(self.get_thread(), fd) if self.threaded else Watch(self.loop, fd)

    def probe(self, fd: int) -> None:
        try:
            self.loop.add_reader(fd, int)
            self.loop.remove_reader(fd)
            self.threaded = False
        except NotImplementedError:
            self.threaded = True

    def get_thread(self) -> PollerThread:
        if self.thread is None:
            self.thread = PollerThread(self)
        return self.thread

    def handles(self) -> Union[PollerThread, LoopPoller]:
        """Where connects and look-ups are waited for."""
        if self.poller is not None:
            return self.poller
        if self.threaded:
            return self.get_thread()
        poller = open_poller()
        fd = quick.nkt_poller_fd(poller)
        if fd != NO_FD and self.threaded is None:
            self.probe(fd)
        if fd == NO_FD or self.threaded:
            quick.nkt_poller_close(poller)
            return self.get_thread()
        self.poller = LoopPoller(self, poller, fd)
        return self.poller


_hubs: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]" = weakref.WeakKeyDictionary()


def hub_of(loop: asyncio.AbstractEventLoop) -> Hub:
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub(loop)
    return hub
