"""Writing inside an event loop: whole messages, one after the other, in the order of the calls.

What the system does not take at once is in the C library's queue, and what does not fit there is
owed. Once a byte of a message is on its way the rest follows, whether its writer still waits or
was cancelled: the peer never sees a torn message.
"""

import asyncio
import collections
import ctypes
from typing import Deque, Iterable, List, Optional

from .._lib import EAGAIN, ETOOLONG, OK, OPT_QUEUE_MAX, pointer_to, quick
from ._loop import Waiters

CHUNK = 262144          # how much is put into the queue at a time


class Turn:
    """A lock that is handed on in the order of asking, whoever is cancelled."""

    __slots__ = ("loop", "taken", "given", "queue")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.taken = False
        self.given: "Optional[asyncio.Future[None]]" = None     # to whom it was handed last
        self.queue: "Deque[asyncio.Future[None]]" = collections.deque()

    def ask(self) -> "asyncio.Future[None]":
        waiter = self.loop.create_future()
        self.queue.append(waiter)
        return waiter

    def give_up(self, waiter: "asyncio.Future[None]") -> None:
        """For who stopped waiting, perhaps just when the turn had come."""
        if self.given is waiter:
            self.release()
        elif waiter in self.queue:
            self.queue.remove(waiter)

    def release(self) -> None:
        self.given = None
        while self.queue:
            waiter = self.queue.popleft()
            if not waiter.done():
                self.given = waiter
                waiter.set_result(None)
                return
        self.taken = False


class Sender:
    """The writing side of a connection."""

    __slots__ = ("handle", "watch", "owed", "begun", "error", "chunk", "turn")

    def __init__(self, handle: ctypes.c_void_p, watch: Waiters) -> None:
        self.handle: Optional[ctypes.c_void_p] = handle
        self.watch = watch
        self.owed: Deque[memoryview] = collections.deque()
        self.begun = False          # something of what is owed is on its way
        self.error = 0              # what writing has failed with, until it is asked for
        self.chunk = CHUNK
        self.turn = Turn(watch.loop)
        watch.push = self.push

    def push(self) -> bool:
        """Gets on with what was begun. True while there is something left to send."""
        handle = self.handle
        if handle is None:
            return False
        before = quick.nkt_conn_queued(handle), len(self.owed)
        err = quick.nkt_conn_flush(handle)
        while err >= 0 and self.owed:
            err = self.feed(handle)
        if err < 0 and err != EAGAIN:
            self.owed.clear()
            self.error = err
        if before != (quick.nkt_conn_queued(handle), len(self.owed)):
            self.watch.progress()
        return bool(err == EAGAIN)

    def feed(self, handle: ctypes.c_void_p) -> int:
        """Gives the library some of what is owed."""
        batch: List[memoryview] = []
        size = 0
        for piece in self.owed:
            part = piece[:self.chunk - size]
            batch.append(part)
            size += len(part)
            if size == self.chunk:
                break
        pointer, _keep = pointer_to(b"".join(batch))
        err: int = quick.nkt_conn_write(handle, pointer, size)
        if err == ETOOLONG:
            limit = ctypes.c_int64()
            quick.nkt_conn_get_option(handle, OPT_QUEUE_MAX, ctypes.byref(limit))
            self.chunk = limit.value
            return OK
        if err < 0:
            return err
        self.begun = True
        for part in batch:
            piece = self.owed.popleft()
            if len(part) < len(piece):
                self.owed.appendleft(piece[len(part):])
        err = quick.nkt_conn_flush(handle)
        return err

    def take(self, pieces: "Iterable[memoryview]") -> None:
        self.begun = False
        self.owed.extend(pieces)

    def leave(self) -> None:
        """The writer goes away. What has not begun is not sent; the rest of what has begun is,
        and must not change under us."""
        if self.begun:
            self.owed = collections.deque(memoryview(piece.tobytes()) for piece in self.owed)
        else:
            self.owed.clear()

    def close(self) -> None:
        self.handle = None
        self.owed.clear()
