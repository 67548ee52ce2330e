"""How connections come about, and who serves them."""

from __future__ import annotations

import asyncio
import weakref
from ctypes import byref, c_void_p
from typing import (TYPE_CHECKING, Any, Awaitable, Callable, Generator, List, Optional, Set, Tuple,
                    Union)

from .. import _errors, _lib
from .._addr import Address
from .._lib import quick
from .._options import (LINE_MAX, MESSAGE_MAX, QUEUE_MAX, Connecting, Lookup, Stream,
                        check_timeout, default_stream, open_listener)
from ._conn import Connection
from ._listen import Listener
from ._loop import hub_of
from ._other import PairWatch

if TYPE_CHECKING:
    from .._addr import AddressLike, IPLike


class Connect:
    """What connect() gives: await it, or enter it with `async with`, once."""

    __slots__ = ("_arguments", "_connection")

    def __init__(self, arguments: Tuple[Any, ...]) -> None:
        """See connect()."""
        self._arguments = arguments
        self._connection: Optional[Connection] = None

    def __await__(self) -> Generator[Any, None, Connection]:
        """Connects."""
        return _connect(self._arguments).__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()


async def _connect(arguments: Tuple[Any, ...]) -> Connection:
    loop = asyncio.get_running_loop()
    connecting = Connecting(True, *arguments)
    handle = connecting.handle
    try:
        place = hub_of(loop).handles()
    except BaseException:
        quick.nkt_conn_close(handle)
        raise
    connection: Optional[Connection] = None
    while True:
        try:
            await place.start("conn", handle)
        except BaseException:
            place.discard("conn", handle)
            raise
        err = quick.nkt_connect_finish(handle)
        if err == _lib.OK:
            # Before the poller hears of it: without anything to do it would end.
            connection = Connection._on_socket(loop, handle, connecting.stream,
                                               connecting.attempts())
        place.finished("conn", handle)
        if connection is not None:
            return connection._was_opened()
        if err != _lib.EAGAIN:
            raise connecting.failed(err)


def connect(address: AddressLike, port: Optional[int] = None, *,
            timeout: Optional[float] = 30.0, default_port: Optional[int] = None,
            family: Optional[int] = None, source: Union[IPLike, Address, None] = None,
            interface: Optional[str] = None, attempt_delay: float = 0.25,
            resolution_delay: float = 0.05, line_max: int = LINE_MAX,
            message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
            keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
            recv_buffer: Optional[int] = None, cr_lines: bool = False,
            delay_small_writes: bool = False) -> Connect:
    """Connects to "host:port", "[v6]:port" or "unix:/path"; also (host, port), an Address, or a
    host or IP address and a port. To be awaited, or entered with `async with`.

    A name is looked up in IPv6 and IPv4 at once; its addresses are tried in turn, each
    `attempt_delay` seconds after the one before or as soon as that one failed, and the first that
    answers wins (RFC 8305). `timeout` seconds are for all of it, None for as long as it takes;
    for what comes later set `conn.timeout`. Cancelling closes whatever is under way.

    default_port        where the text has none
    family              4 or 6 alone; None for both
    source              connect from this address of this host
    interface           only through this one, by name
    resolution_delay    seconds to wait for IPv6 addresses once IPv4's are there
    line_max            longest line, in bytes; longer ones are LineTooLong
    message_max         longest message, in bytes; longer ones are MessageTooLong
    queue_max           bytes that may be written and not sent
    keepalive           seconds of silence before the system asks whether the peer is there
    send_buffer, recv_buffer    sizes of the system's buffers, in bytes
    cr_lines            a lone CR ends a line too
    delay_small_writes  Nagle's algorithm

    Raises, when awaited, AddressError, a ValueError, for bad text; ConnectError in the class that
    Python has for the reason: ConnectionRefusedError, TimeoutError, socket.gaierror if there is
    no such host, PermissionError, OSError. Its `attempts` tell of each address, and so does its
    message.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def main():
    ...     async with aio.listen("localhost:0") as listener:
    ...         async with aio.connect("localhost", listener.port, timeout=5) as conn:
    ...             print(conn.peer.port == listener.port)
    >>> asyncio.run(main())
    True
    """
    stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                    cr_lines, delay_small_writes)
    return Connect((address, port, timeout, default_port, family, source, interface,
                    attempt_delay, resolution_delay, stream))


class Pair(Tuple[Connection, Connection]):
    """What pair() gives: a pair, which may also be awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Tuple[Connection, Connection]]:
        """Itself."""
        return self
        yield


def pair(*, timeout: Optional[float] = None) -> Pair:
    """Two ends of a connection in memory: what is written to one is read from the other. For
    tests, and for talking between one's own tasks. 64 KiB can be under way in each direction.
    Awaiting it is allowed.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def main():
    ...     a, b = aio.pair()
    ...     async with a, b:
    ...         await a.write(b"hello\\n")
    ...         print(await b.readline())
    >>> asyncio.run(main())
    b'hello\\n'
    """
    loop = asyncio.get_running_loop()
    stream = default_stream()
    stream.timeout = check_timeout(timeout)
    options = stream.conn_opts(nonblocking=True)
    handles = c_void_p(), c_void_p()
    err = quick.nkt_conn_pair(byref(options), byref(options), byref(handles[0]),
                              byref(handles[1]))
    if err < 0:
        raise _errors.error(err)
    ends = PairWatch(loop), PairWatch(loop)
    ends[0].other, ends[1].other = ends[1], ends[0]
    pair = Pair(Connection._of(handle, stream) for handle in handles)
    for connection, watch in zip(pair, ends):
        watch.owner = weakref.ref(connection)
        connection._begin(watch)
    for connection in pair:
        connection._was_opened()
    return pair


def listen(address: AddressLike = ":0", port: Optional[int] = None, *,
           timeout: Optional[float] = None, backlog: Optional[int] = None,
           reuse_port: bool = False, keep_path: bool = False, interface: Optional[str] = None,
           line_max: int = LINE_MAX, message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
           keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
           recv_buffer: Optional[int] = None, cr_lines: bool = False,
           delay_small_writes: bool = False) -> Listener:
    """Listens on ":port" (every address, IPv6 and IPv4), "address:port", "localhost:port" (both
    loopback addresses) or "unix:/path". Port 0 takes a free one; `listener.port` tells which.
    It does not wait; awaiting it is allowed.

    timeout             seconds of each accept(); None for as long as it takes
    backlog             how many may wait to be accepted; None for 511
    reuse_port          several processes on one port, where the system has that
    keep_path           do not remove a Unix-domain path when it is closed
    interface           only through this one, by name

    The others are for what it accepts; see connect(). Raises AddressError, a ValueError, for bad
    text, OSError (EADDRINUSE, EADDRNOTAVAIL, EOPNOTSUPP, ENAMETOOLONG: a Unix-domain path of more
    than 107 bytes), PermissionError.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def main():
    ...     async with aio.listen("localhost:0") as listener:
    ...         print(listener.port > 0)
    >>> asyncio.run(main())
    True
    """
    asyncio.get_running_loop()
    stream = Stream(line_max, message_max, queue_max, keepalive, send_buffer, recv_buffer,
                    cr_lines, delay_small_writes)
    handle = open_listener(True, address, port, timeout, backlog, reuse_port, keep_path,
                           interface, stream)
    return Listener(handle, stream, timeout)


async def resolve(host: Union[str, IPLike], port: int = 0, *, family: Optional[int] = None,
                  timeout: Optional[float] = 30.0) -> List[Address]:
    """Looks a host name up: its addresses, with `port`, in the order in which they should be tried
    (RFC 6724). `family` is 4 or 6 alone, `timeout` seconds for all of it.

    Raises AddressError, a ValueError, for bad text, socket.gaierror if there is no such host or
    the resolver could not tell, TimeoutError.

    >>> import asyncio, netkit
    >>> from netkit import aio
    >>> async def main():
    ...     print(netkit.Address("127.0.0.1", 80) in await aio.resolve("localhost", 80))
    >>> asyncio.run(main())
    True
    """
    loop = asyncio.get_running_loop()
    lookup = Lookup(host, port, timeout, family)
    try:
        place = hub_of(loop).handles()
        while not lookup.finish():
            task = lookup.task
            try:
                await place.start("task", task)
            except BaseException:
                # The poller, or its thread, closes it.
                lookup.task = c_void_p()
                place.discard("task", task)
                raise
            place.finished("task", task)
        return lookup.addresses()
    finally:
        lookup.close()


class _Clients:
    """The tasks of a server."""

    def __init__(self, handler: Callable[[Connection], Awaitable[object]],
                 max_clients: Optional[int]) -> None:
        self.handler = handler
        self.free = None if max_clients is None else asyncio.Semaphore(max_clients)
        self.tasks: Set[asyncio.Task[None]] = set()

    def start(self, conn: Connection) -> None:
        task = asyncio.get_running_loop().create_task(self.run(conn))
        self.tasks.add(task)
        task.add_done_callback(lambda task: self.ended(task, conn))

    async def run(self, conn: Connection) -> None:
        try:
            await self.handler(conn)
        except ConnectionError:
            pass            # the peer went away: that is not the server's fault
        except OSError as problem:
            if problem.errno != _errors.os_exception(_lib.ECANCELED).errno:
                raise

    def ended(self, task: asyncio.Task[None], conn: Connection) -> None:
        # Here and not in the task: one that was cancelled before its first step runs nothing.
        conn.close()
        self.tasks.discard(task)
        if self.free is not None:
            self.free.release()
        if not task.cancelled() and task.exception() is not None:
            task.get_loop().call_exception_handler({
                "message": "the handler of a netkit server raised", "task": task,
                "exception": task.exception()})

    async def stop(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def serve(handler: Callable[[Connection], Awaitable[object]],
                address: Union[AddressLike, Listener] = ":0", port: Optional[int] = None, *,
                max_clients: Optional[int] = None, timeout: Optional[float] = None,
                backlog: Optional[int] = None, reuse_port: bool = False, keep_path: bool = False,
                interface: Optional[str] = None, line_max: int = LINE_MAX,
                message_max: int = MESSAGE_MAX, queue_max: int = QUEUE_MAX,
                keepalive: Optional[float] = None, send_buffer: Optional[int] = None,
                recv_buffer: Optional[int] = None, cr_lines: bool = False,
                delay_small_writes: bool = False) -> None:
    """Calls `handler`, an async function, with each connection that comes, each in a task of its
    own, and closes the connection afterwards. Goes on until it is cancelled or the listener is
    closed.

    `address` is as for listen(), or a Listener, which then tells the port, and can be closed from
    elsewhere to end this. With `max_clients` no more are accepted while so many are served; the
    others wait in the system's queue. `timeout` is the connections'. For the rest see listen().

    When it ends, the tasks that still serve are cancelled and waited for: a handler that has
    something to finish does it when it is cancelled. What a handler raises ends its
    connection and goes to the loop's exception handler, but for ConnectionError: peers go.

    >>> import asyncio
    >>> from netkit import aio
    >>> async def talk(conn):
    ...     async for line in conn.lines():
    ...         await conn.write(f"you said {line}\\n".encode())
    >>> async def main():
    ...     listener = aio.listen("localhost:0")
    ...     server = asyncio.ensure_future(aio.serve(talk, listener))
    ...     async with aio.connect(listener.address) as conn:
    ...         await conn.write(b"hello\\n")
    ...         print(await conn.readline())
    ...     listener.close()
    ...     await server
    >>> asyncio.run(main())
    b'you said hello\\n'
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
            if clients.free is not None:
                await clients.free.acquire()
            try:
                conn = await listener.__anext__()
            except StopAsyncIteration:
                break
            if conn_timeout is not None:
                conn.timeout = conn_timeout
            clients.start(conn)
    finally:
        listener.close()
        await clients.stop()
