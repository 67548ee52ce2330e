"""Waiting for what is impaired: not only for a descriptor, but for what is due at a time.

The handle is in a C poller of its own, which delivers what is under way in both directions. The
loop watches the poller's one descriptor, and calls it when its next deadline has come.
"""

import asyncio
import contextlib
import contextvars
import ctypes
from typing import Any, Optional, Union

from .. import _errors
from .._lib import (NEVER, NO_FD, READ, WRITE, nkt_event, nkt_impair_stats, nkt_interest,
                    quick)
from ._loop import Call, ThreadWatch, Waiters, Watch, hub_of, open_poller, wake
from ._other import ObjectWatch

TICK_S = 0.005          # between looks where pollers have no descriptor
LEAST_S = 0.0005
EVENTS = 4


def delivered_in(handle: Optional[ctypes.c_void_p], watch: Any, stats: Any) -> float:
    """Lets leave what is due. Seconds until more is, or infinity."""
    interest = nkt_interest()
    watch(handle, WRITE, ctypes.byref(interest))
    if interest.count > 0:
        counted = nkt_impair_stats()
        if stats(handle, WRITE, ctypes.byref(counted)) >= 0 and counted.under_way > 0:
            return TICK_S               # the system has no room at the moment
    if interest.deadline_ns == NEVER:
        return float("inf")
    left_ns: int = interest.deadline_ns - quick.nkt_now_ns(None)
    return max(left_ns / 1e9, LEAST_S)


class ImpairedWatch(Waiters):
    """One connection, whatever it stands on."""

    __slots__ = ("handle", "poller", "events", "inner", "armed", "timer", "wanted", "looking",
                 "inside", "below")

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: ctypes.c_void_p) -> None:
        super().__init__(loop)
        self.handle = handle
        self.poller: Optional[ctypes.c_void_p] = ctypes.c_void_p(open_poller())
        self.events = (nkt_event * EVENTS)()
        self.timer: Optional[asyncio.Handle] = None
        self.wanted = 0
        self.looking = False
        self.armed = False
        self.inner: Optional[Union[Watch, ThreadWatch]] = None
        self.below: Optional[ObjectWatch] = None
        self.inside = False
        try:
            self.enter()
        except BaseException:
            quick.nkt_poller_close(self.poller)
            raise
        fd = quick.nkt_poller_fd(self.poller)
        if fd != NO_FD:
            self.inner = hub_of(loop).watch(fd)
        self.arm()

    def enter(self) -> None:
        err = quick.nkt_poller_add_conn(self.poller, self.handle, None)
        if err < 0:
            raise _errors.error(err)
        self.inside = True
        quick.nkt_poller_want(self.poller, self.handle, self.wanted)

    def stands_on(self, below: ObjectWatch) -> None:
        """For an object whose methods are coroutines: its tasks tell of what they have done."""
        self.below = below
        below.changed = self.changed

    def changed(self) -> None:
        if self.poller is not None:
            quick.nkt_conn_notify(self.handle)
            self.arm()

    def want_read(self) -> None:
        self.want(self.wanted | READ)

    def want_write(self) -> None:
        self.want(self.wanted | WRITE)

    def want(self, events: int) -> None:
        if self.poller is not None and (events != self.wanted or not self.inside):
            self.wanted = events
            if not self.inside:
                self.enter()
            quick.nkt_poller_want(self.poller, self.handle, events)
        self.arm()

    def progress(self) -> None:
        # What was written may be due before anything else.
        self.arm()

    def arm(self) -> None:
        """Has `look` called when there is something to do."""
        if self.poller is None or self.looking or self.loop.is_closed():
            return
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        delay = self.deliver()
        delay_ms = quick.nkt_poller_timeout_ms(self.poller)
        if delay_ms == 0:
            self.timer = self.loop.call_soon(self.look)
            return
        if delay_ms > 0:
            delay = min(delay, delay_ms / 1000)
        if self.inner is None and self.wanted:
            delay = min(delay, TICK_S)
        if delay < float("inf"):
            self.timer = self.loop.call_later(delay, self.look)
        if self.inner is not None and not self.armed:
            self.armed = True
            self.inner.readable().add_done_callback(self.on_inner,
                                                    context=contextvars.copy_context())

    def deliver(self) -> float:
        """Lets leave what is due, whether anybody waits or not. Seconds until more is."""
        if not self.inside:
            return float("inf")
        return delivered_in(self.handle, quick.nkt_conn_watch, quick.nkt_conn_impair_stats)

    def on_inner(self, _: Any) -> None:
        self.armed = False
        self.look()

    def look(self) -> None:
        """Lets the poller do what is due, and wakes who waits for it."""
        self.looking = True
        try:
            told = 0
            while self.poller is not None:
                quick.nkt_poller_wait(self.poller, 0)
                count = quick.nkt_poller_next_many(self.poller, self.events, EVENTS)
                for event in self.events[:count]:
                    told |= event.events
                if count < EVENTS:
                    break
            if told & WRITE and not (self.push is not None and self.push()):
                if self.writers:
                    wake(self.writers)
                else:
                    self.wanted &= ~WRITE
            if told & READ:
                if self.readers:
                    wake(self.readers)
                else:
                    self.wanted &= ~READ
            if told and self.inside:
                quick.nkt_poller_want(self.poller, self.handle, self.wanted)
        finally:
            self.looking = False
        self.arm()

    def pause(self) -> None:
        if self.inside:
            self.inside = False
            quick.nkt_poller_remove_conn(self.poller, self.handle)

    def end(self) -> None:
        """Gives the handle back."""
        if self.poller is None:
            return
        self.pause()
        poller, self.poller = self.poller, None
        if self.timer is not None and not self.loop.is_closed():
            self.timer.cancel()
        if self.inner is not None:
            self.inner.readers.clear()
            self.inner.close()
        quick.nkt_poller_close(poller)

    def close(self) -> None:
        self.end()
        super().close()
        if self.below is not None:
            self.below.changed = None
            self.below.close()

    def abandon(self, close: Call) -> None:
        # A finalizer runs anywhere and must not touch the loop.
        def bury() -> None:
            self.push = None
            self.end()
            if self.below is not None:
                self.below.changed = None
                self.below.abandon(close)
            else:
                close()
        if not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(bury)
                return
        bury()
