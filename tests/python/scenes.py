"""The scenario table of the heart, in Python: the same rows for netkit and netkit.aio.

Each row is a coroutine. `await s.do(function, ...)` calls a method of the connection under test:
netkit's as it is, netkit.aio's awaited. So a row of the blocking namespace never waits in Python,
and is run to its end by one send(None). The names are those of tests/scenario/scenario.c; ROWS and
NOT_HERE together have all of them, which a test checks.

A face is what the connection stands on: TCP, a Unix-domain socket, a pair in memory, a class of
the user's. A scene is a connected pair on a face: `a` under test, and a peer with say(), heard(),
finish(), close(), reset().
"""

import inspect
import socket
import struct
import threading
import time

import netkit

FACES = ("tcp", "unix", "pair", "custom")
LIMIT_S = 20
SHORT = 0.03            # a time-out that is to pass


class Custom:
    """A user's transport: a socket behind two methods."""

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock

    def recv(self, size):
        return self.sock.recv(size)

    def send(self, data):
        return self.sock.send(data)

    def fileno(self):
        return self.sock.fileno()

    def shutdown_write(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()


def tcp_pair():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def sockets(face):
    if face == "tcp":
        return tcp_pair()
    return socket.socketpair()


class Scene:
    def __init__(self, namespace, face):
        self.namespace = namespace
        self.face = face
        self.options = {}
        self.a = self.b = None
        self.threads = []

    async def do(self, function, *args, **kwargs):
        result = function(*args, **kwargs)
        return (await result) if inspect.isawaitable(result) else result

    def later(self, seconds, function):
        """Calls it meanwhile, as the namespace wants to be called."""
        timer = threading.Timer(seconds, self.in_loop(function))
        self.threads.append(timer)
        timer.start()

    def in_loop(self, function):
        if "aio" not in self.namespace.__name__:
            return function
        import asyncio
        loop = asyncio.get_running_loop()
        return lambda: loop.call_soon_threadsafe(function)

    async def open(self, **options):
        if self.face == "pair":
            self.a, self.b = await self.do(self.namespace.pair)
            for name, value in options.items():
                setattr(self.a, name, value)
            return
        near, self.b = sockets(self.face)
        self.b.settimeout(LIMIT_S)
        if self.face == "custom":
            self.a = await self.do(self.namespace.Connection, Custom(near), **options)
        else:
            self.a = await self.do(self.namespace.Connection.from_socket, near, **options)

    async def end(self):
        for thread in self.threads:
            thread.join(LIMIT_S)
        for one in (self.a, self.b):
            if one is not None:
                await self.do(one.close)

    # --- The peer -----------------------------------------------------------------

    async def say(self, data):
        if self.face == "pair":
            await self.do(self.b.write, data)
        else:
            self.b.sendall(data)

    def say_meanwhile(self, *parts, pause=0.0, finish=False):
        """Says it from a thread, for what is more than fits or what comes slowly."""
        def run():
            for part in parts:
                self.b.sendall(part)
                time.sleep(pause)
            if finish:
                self.b.shutdown(socket.SHUT_WR)
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    async def heard(self, size):
        """The next bytes that the peer gets, fewer at the end."""
        if self.face == "pair":
            return await self.do(self.b.read, size)
        got = b""
        while len(got) < size:
            some = self.b.recv(size - len(got))
            if not some:
                break
            got += some
        return got

    async def finish(self):
        if self.face == "pair":
            await self.do(self.b.shutdown_write)
        else:
            self.b.shutdown(socket.SHUT_WR)

    async def close_peer(self):
        await self.do(self.b.close)

    async def reset(self):
        """The peer resets; a Unix-domain socket knows that only as closing with unread input."""
        if self.face == "tcp":
            self.b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            await self.do(self.a.write, b"?")
        self.b.close()

    # --- What is expected ---------------------------------------------------------

    def equal(self, got, want):
        if got != want:
            raise AssertionError("got %.300r, not %.300r" % (got, want))

    async def raises(self, kind, function, *args, **kwargs):
        try:
            got = await self.do(function, *args, **kwargs)
        except kind as error:
            return error
        raise AssertionError("got %.300r, no %s" % (got, kind))

    async def line(self, want):
        self.equal(await self.do(self.a.readline), want)

    async def lines(self, *wanted):
        for want in wanted:
            await self.line(want)

    async def arrived(self, count):
        data = await self.do(self.a.peek, count)
        if len(data) < count:
            raise AssertionError("%r is all that came" % data)

    async def at_end(self):
        self.equal(await self.do(self.a.readline), b"")
        self.equal(await self.do(self.a.read1, 1), b"")
        self.equal(await self.do(self.a.read_lines), [])


ROWS = {}
NOT_ON = {}             # name -> faces on which it is not run


def row(name, not_on=()):
    def add(function):
        ROWS[name] = function
        NOT_ON[name] = not_on
        return function
    return add


# --- Lines ------------------------------------------------------------------------

@row("a line")
async def _(s):
    await s.open()
    await s.say(b"hello\n")
    await s.line(b"hello\n")


@row("several lines in one segment")
async def _(s):
    await s.open()
    await s.say(b"one\ntwo\nthree\n")
    await s.lines(b"one\n", b"two\n", b"three\n")


@row("LF and CRLF end lines")
async def _(s):
    await s.open()
    await s.say(b"crlf\r\nlf\nmixed\r\n\r\n\nlast\r\n")
    await s.lines(b"crlf\r\n", b"lf\n", b"mixed\r\n", b"\r\n", b"\n", b"last\r\n")
    await s.say(b"crlf\r\nlf\n\r\n\nend\r")
    await s.finish()
    texts = s.a.lines()
    if hasattr(texts, "__aiter__"):
        got = [text async for text in texts]
    else:
        got = list(texts)
    s.equal(got, ["crlf", "lf", "", "", "end\r"])


@row("a lone CR is data")
async def _(s):
    await s.open()
    await s.say(b"a\rb\r\r\nc\r\r\r\n\r\n")
    await s.lines(b"a\rb\r\r\n", b"c\r\r\r\n", b"\r\n")


@row("cr_lines: a lone CR ends a line", not_on=("pair",))
async def _(s):
    await s.open(cr_lines=True)
    await s.say(b"a\rb\r\rc\r\n\rd\n\n\r\ne\r")
    await s.lines(b"a\n", b"b\n", b"\n", b"c\n", b"\n", b"d\n", b"\n", b"\n", b"e\n")


@row("CRLF split between packets")
async def _(s):
    await s.open()
    await s.say(b"ab\r")
    await s.arrived(3)
    await s.say(b"\ncd\r")
    await s.line(b"ab\r\n")
    await s.arrived(3)
    await s.say(b"ef\r\n")
    await s.line(b"cd\ref\r\n")


@row("cr_lines: CR returns at once and swallows the LF later", not_on=("pair",))
async def _(s):
    await s.open(cr_lines=True)
    await s.say(b"ab\r")
    await s.line(b"ab\n")
    await s.say(b"\ncd\r")
    await s.line(b"cd\n")


@row("cr_lines: other reads start after the LF", not_on=("pair",))
async def _(s):
    await s.open(cr_lines=True)
    await s.say(b"ab\r")
    await s.line(b"ab\n")
    await s.say(b"\nxyz\rrest\r")
    s.equal(await s.do(s.a.read_exact, 2), b"xy")
    await s.line(b"z\n")
    await s.line(b"rest\n")


@row("NUL bytes in lines")
async def _(s):
    await s.open()
    await s.say(b"a\0b\n\0\n")
    await s.lines(b"a\0b\n", b"\0\n")


@row("empty lines")
async def _(s):
    await s.open()
    await s.say(b"\n\n\r\n")
    await s.lines(b"\n", b"\n", b"\r\n")


@row("last line without end")
async def _(s):
    await s.open()
    await s.say(b"one\ntwo")
    await s.finish()
    await s.lines(b"one\n", b"two", b"")


@row("last line ends in CR")
async def _(s):
    await s.open()
    await s.say(b"one\r")
    await s.finish()
    await s.lines(b"one\r", b"")


@row("end of stream at once")
async def _(s):
    await s.open()
    await s.finish()
    await s.at_end()
    s.equal(await s.do(s.a.read, 5), b"")
    s.equal(await s.do(s.a.read_exact, 5), b"")
    s.equal(await s.do(s.a.read_until, b"$"), b"")
    s.equal(await s.do(s.a.peek, 5), b"")
    s.equal(await s.do(s.a.read_message), None)
    s.equal(await s.do(s.a.skip_line), False)
    s.equal(await s.do(s.a.readinto, bytearray(5)), 0)


@row("end of stream twice")
async def _(s):
    await s.open()
    await s.say(b"one\n")
    await s.finish()
    await s.line(b"one\n")
    await s.at_end()
    await s.at_end()


@row("bug 43: bytes above 0x7f")
async def _(s):
    every = bytes(range(256)).replace(b"\n", b"")
    await s.open()
    await s.say(every + b"\n" + every[::-1] + b"\n")
    await s.lines(every + b"\n", every[::-1] + b"\n")


@row("one byte at a time", not_on=("pair",))
async def _(s):
    await s.open()
    s.say_meanwhile(*[bytes([byte]) for byte in b"one\r\ntwo\n\nfour\r\n"], pause=0.001)
    await s.lines(b"one\r\n", b"two\n", b"\n", b"four\r\n")


@row("every split point of two lines")
async def _(s):
    text = b"ab\r\ncd\n"
    await s.open()
    for cut in range(1, len(text)):
        await s.say(text[:cut])
        await s.arrived(cut)
        if cut >= 4:
            await s.line(b"ab\r\n")
        await s.say(text[cut:])
        if cut < 4:
            await s.line(b"ab\r\n")
        await s.line(b"cd\n")


@row("10,000 pipelined lines", not_on=("pair",))
async def _(s):
    wanted = [b"%05d\r\n" % i for i in range(10000)]
    await s.open()
    s.say_meanwhile(b"".join(wanted) * 2, finish=True)
    for want in wanted:
        await s.line(want)
    got = []
    while True:
        some = await s.do(s.a.read_lines)
        if not some:
            break
        got += some
    s.equal(got, wanted)


@row("a line of exactly line_max")
async def _(s):
    await s.open(line_max=100)
    await s.say(b"x" * 100 + b"\n" + b"y" * 100 + b"\r\n" + b"z" * 100)
    await s.finish()
    await s.lines(b"x" * 100 + b"\n", b"y" * 100 + b"\r\n", b"z" * 100, b"")


@row("a line longer than line_max")
async def _(s):
    await s.open(line_max=100)
    await s.say(b"one\n" + b"x" * 101 + b"\nnext\n")
    await s.line(b"one\n")
    error = await s.raises(netkit.LineTooLong, s.a.readline)
    s.equal(error.code, -13)
    await s.raises(netkit.LineTooLong, s.a.readline)
    await s.raises(netkit.LineTooLong, s.a.read_lines)
    s.equal(await s.do(s.a.skip_line), True)
    await s.line(b"next\n")


@row("too long is known at once")
async def _(s):
    await s.open(line_max=100)
    await s.say(b"x" * 101)
    await s.raises(netkit.LineTooLong, s.a.readline, timeout=LIMIT_S)


@row("a long line read in pieces")
async def _(s):
    await s.open(line_max=100)
    await s.say(b"x" * 150 + b"\nnext\n")
    await s.raises(netkit.LineTooLong, s.a.readline)
    s.equal(await s.do(s.a.read, 100), b"x" * 100)
    await s.lines(b"x" * 50 + b"\n", b"next\n")


@row("cr_lines: a line of exactly line_max and one longer", not_on=("pair",))
async def _(s):
    await s.open(cr_lines=True, line_max=10)
    await s.say(b"x" * 10 + b"\r" + b"y" * 11 + b"\rnext\r")
    await s.line(b"x" * 10 + b"\n")
    await s.raises(netkit.LineTooLong, s.a.readline)
    s.equal(await s.do(s.a.skip_line), True)
    await s.line(b"next\n")


@row("lines at once")
async def _(s):
    await s.open()
    await s.say(b"one\r\ntwo\n\nthr")
    await s.arrived(13)
    s.equal(await s.do(s.a.read_lines), [b"one\r\n", b"two\n", b"\n"])
    await s.say(b"ee\nfive")
    await s.finish()
    s.equal(await s.do(s.a.read_lines), [b"three\n"])
    s.equal(await s.do(s.a.read_lines), [b"five"])
    s.equal(await s.do(s.a.read_lines), [])


@row("lines at once, one too long")
async def _(s):
    await s.open(line_max=100)
    await s.say(b"one\ntwo\n" + b"x" * 101 + b"\nnext\n")
    await s.arrived(100)
    s.equal(await s.do(s.a.read_lines), [b"one\n", b"two\n"])
    await s.raises(netkit.LineTooLong, s.a.read_lines)
    s.equal(await s.do(s.a.skip_line), True)
    s.equal(await s.do(s.a.read_lines), [b"next\n"])


@row("lines at once, ended by CR", not_on=("pair",))
async def _(s):
    await s.open(cr_lines=True)
    await s.say(b"a\rb\r\nc\n\rd\r")
    await s.arrived(10)
    s.equal(await s.do(s.a.read_lines), [b"a\n", b"b\n", b"c\n", b"\n", b"d\n"])


@row("going back")
async def _(s):
    """Bytes after lines, and lines after bytes, with lines cut and not handed out."""
    await s.open()
    await s.say(b"one\ntwo\nabc$rest of it\nlast\n")
    await s.arrived(28)
    await s.line(b"one\n")
    s.equal((await s.do(s.a.peek, 2))[:3], b"two")
    s.equal(await s.do(s.a.read_until, b"$"), b"two\nabc$")
    s.equal(await s.do(s.a.read1, 2), b"re")
    await s.line(b"st of it\n")
    s.equal(await s.do(s.a.read_exact, 3), b"las")
    await s.line(b"t\n")


@row("cr_lines: going back to behind a CR", not_on=("pair",))
async def _(s):
    await s.open(cr_lines=True)
    await s.say(b"one\r")
    await s.line(b"one\n")
    await s.say(b"\ntwo\nthree\r")
    await s.arrived(10)
    await s.line(b"two\n")
    s.equal((await s.do(s.a.peek, 2))[:2], b"th")
    await s.line(b"three\n")
    await s.say(b"\n\nfour\n")
    await s.line(b"\n")
    await s.line(b"four\n")


@row("putting back more than the buffer holds", not_on=("pair",))
async def _(s):
    """A time-out in the middle of much leaves all of it for other reads."""
    data = bytes(range(256)) * 1024
    await s.open()
    s.say_meanwhile(data)
    error = await s.raises(TimeoutError, s.a.read_exact, len(data) + 1, timeout=0.5)
    s.equal(error.errno is not None, True)
    await s.say(b"!")
    s.equal(await s.do(s.a.read_exact, len(data) + 1), data + b"!")


@row("skipping lines")
async def _(s):
    await s.open()
    await s.say(b"one\ntwo\nthree\nrest")
    await s.line(b"one\n")
    s.equal(await s.do(s.a.skip_line), True)
    await s.line(b"three\n")
    await s.finish()
    s.equal(await s.do(s.a.skip_line), True)
    s.equal(await s.do(s.a.skip_line), False)


@row("a line of a million bytes, allowed", not_on=("pair",))
async def _(s):
    line = b"x" * 1000000 + b"\n"
    await s.open(line_max=1000000)
    s.say_meanwhile(line + b"next\n")
    await s.lines(line, b"next\n")


# --- Bytes ------------------------------------------------------------------------

@row("read some bytes")
async def _(s):
    await s.open()
    await s.say(b"hello")
    await s.arrived(5)
    s.equal(await s.do(s.a.read1, 2), b"he")
    s.equal(await s.do(s.a.read1), b"llo")
    buffer = bytearray(b"......")
    await s.say(b"abc")
    await s.arrived(3)
    s.equal(await s.do(s.a.readinto, memoryview(buffer)[1:]), 3)
    s.equal(bytes(buffer), b".abc..")


@row("read into no room")
async def _(s):
    await s.open()
    s.equal(await s.do(s.a.read, 0), b"")
    s.equal(await s.do(s.a.read1, 0), b"")
    s.equal(await s.do(s.a.readinto, bytearray()), 0)
    s.equal(await s.do(s.a.read_exact, 0), b"")
    await s.raises(TypeError, s.a.readinto, b"constant")


@row("read 3 MB", not_on=("pair",))
async def _(s):
    data = bytes(range(251)) * 12000
    await s.open()
    s.say_meanwhile(data + data, finish=True)
    buffer = bytearray(len(data))
    got = 0
    while got < len(buffer):
        got += await s.do(s.a.readinto, memoryview(buffer)[got:])
    s.equal(bytes(buffer) == data, True)
    s.equal(await s.do(s.a.read) == data, True)
    s.equal(await s.do(s.a.read), b"")


@row("read exactly")
async def _(s):
    await s.open()
    await s.say(b"abcdefgh")
    s.equal(await s.do(s.a.read_exact, 3), b"abc")
    s.equal(await s.do(s.a.read, 3), b"def")
    await s.raises(ValueError, s.a.read_exact, -1)
    s.equal(await s.do(s.a.read_exact, 2), b"gh")


@row("read exactly, time-out, go on")
async def _(s):
    await s.open()
    await s.say(b"abc")
    await s.raises(TimeoutError, s.a.read_exact, 5, timeout=SHORT)
    await s.say(b"def")
    s.equal(await s.do(s.a.read_exact, 5), b"abcde")


@row("read exactly, time-out, give up")
async def _(s):
    await s.open()
    await s.say(b"ab\nc")
    await s.raises(TimeoutError, s.a.read_exact, 5, timeout=SHORT)
    await s.line(b"ab\n")
    s.equal(await s.do(s.a.read1), b"c")


@row("read exactly beyond the end")
async def _(s):
    await s.open()
    await s.say(b"abc")
    await s.finish()
    error = await s.raises(netkit.IncompleteRead, s.a.read_exact, 5)
    s.equal((error.partial, isinstance(error, EOFError), isinstance(error, OSError)),
            (b"abc", True, True))
    s.equal(await s.do(s.a.read_exact, 5), b"")


@row("read until a delimiter")
async def _(s):
    await s.open()
    await s.say(b"a$bc$$d")
    for want in (b"a$", b"bc$", b"$"):
        s.equal(await s.do(s.a.read_until, b"$"), want)
    await s.say(b"END")
    s.equal(await s.do(s.a.read_until, memoryview(b"END")), b"dEND")


@row("read until an overlapping delimiter")
async def _(s):
    await s.open()
    await s.say(b"aabaabaaabXabab")
    s.equal(await s.do(s.a.read_until, b"aaab"), b"aabaabaaab")
    s.equal(await s.do(s.a.read_until, b"abab"), b"Xabab")


@row("read until a delimiter, every split point")
async def _(s):
    text = b"abXYZcd"
    await s.open()
    for cut in range(1, len(text)):
        await s.say(text[:cut])
        await s.arrived(min(cut, 5))
        await s.say(text[cut:])
        s.equal(await s.do(s.a.read_until, b"XYZ"), b"abXYZ")
        s.equal(await s.do(s.a.read_exact, 2), b"cd")


@row("read until a delimiter, one byte at a time", not_on=("pair",))
async def _(s):
    await s.open()
    s.say_meanwhile(*[bytes([byte]) for byte in b"ab--aba--abac"], pause=0.001)
    s.equal(await s.do(s.a.read_until, b"abac"), b"ab--aba--abac")


@row("read until a delimiter at the end")
async def _(s):
    await s.open()
    await s.say(b"a$rest")
    await s.finish()
    for want in (b"a$", b"rest", b""):
        s.equal(await s.do(s.a.read_until, b"$"), want)


@row("read until a delimiter too far away")
async def _(s):
    await s.open(line_max=10)
    await s.say(b"x" * 10 + b"$" + b"y" * 11 + b"$")
    s.equal(await s.do(s.a.read_until, b"$"), b"x" * 10 + b"$")
    await s.raises(netkit.LineTooLong, s.a.read_until, b"$")
    s.equal(await s.do(s.a.read_exact, 12), b"y" * 11 + b"$")


@row("read until a bad delimiter")
async def _(s):
    await s.open()
    await s.raises(ValueError, s.a.read_until, b"")
    await s.raises(ValueError, s.a.read_until, b"x" * 256)
    await s.raises(TypeError, s.a.read_until, "$")


@row("peek, then read")
async def _(s):
    await s.open(line_max=100)
    await s.say(b"hello\n")
    await s.arrived(6)
    s.equal(await s.do(s.a.peek), b"hello\n")
    s.equal(await s.do(s.a.peek, 3), b"hello\n")
    await s.raises(ValueError, s.a.peek, 101)
    await s.line(b"hello\n")


@row("peek beyond the end")
async def _(s):
    await s.open()
    await s.say(b"abc")
    await s.finish()
    s.equal(await s.do(s.a.peek, 10), b"abc")
    s.equal(await s.do(s.a.read), b"abc")
    s.equal(await s.do(s.a.peek, 10), b"")


@row("all ways to read, mixed")
async def _(s):
    await s.open()
    await s.say(b"line\nab$exactly\0\0\0\3xyztwo\nsome\nlast\n")
    await s.line(b"line\n")
    s.equal(await s.do(s.a.read_until, b"$"), b"ab$")
    s.equal(await s.do(s.a.read_exact, 7), b"exactly")
    s.equal(await s.do(s.a.read_message), b"xyz")
    s.equal(await s.do(s.a.readline, 2), b"tw")
    s.equal(await s.do(s.a.read1, 1), b"o")
    await s.line(b"\n")
    s.equal(await s.do(s.a.read, 3), b"som")
    s.equal(await s.do(s.a.read_lines), [b"e\n", b"last\n"])


# --- Messages ---------------------------------------------------------------------

@row("messages, empty and small")
async def _(s):
    await s.open()
    await s.say(b"\0\0\0\0\0\0\0\5hello")
    s.equal(await s.do(s.a.read_message), b"")
    s.equal(await s.do(s.a.read_message), b"hello")
    s.equal(await s.do(s.a.write_message, b"answer"), 6)
    await s.do(s.a.flush)
    s.equal(await s.heard(10), b"\0\0\0\6answer")
    await s.finish()
    s.equal(await s.do(s.a.read_message), None)


@row("a message of 1 MiB", not_on=("pair",))
async def _(s):
    data = bytes(range(256)) * 4096
    await s.open()
    s.say_meanwhile(struct.pack(">I", len(data)) + data)
    s.equal(await s.do(s.a.read_message) == data, True)


@row("a message longer than message_max")
async def _(s):
    await s.open(message_max=10)
    await s.say(b"\0\0\0\013")
    await s.raises(netkit.MessageTooLong, s.a.read_message)
    await s.raises(netkit.MessageTooLong, s.a.write_message, b"x" * 11)
    s.equal(await s.do(s.a.read_exact, 4), b"\0\0\0\013")


@row("a message cut in its length")
async def _(s):
    await s.open()
    await s.say(b"\0\0")
    await s.finish()
    error = await s.raises(netkit.IncompleteRead, s.a.read_message)
    s.equal(error.partial, b"")


@row("a message cut in its body")
async def _(s):
    await s.open()
    await s.say(b"\0\0\0\5hel")
    await s.finish()
    error = await s.raises(netkit.IncompleteRead, s.a.read_message)
    s.equal(error.partial, b"hel")


@row("a message length with the highest bit")
async def _(s):
    await s.open()
    await s.say(b"\xff\xff\xff\xff")
    await s.raises(netkit.MessageTooLong, s.a.read_message)


@row("a message, time-outs inside, go on")
async def _(s):
    await s.open()
    for part in (b"\0\0", b"\0\5he", b"ll"):
        await s.say(part)
        await s.raises(TimeoutError, s.a.read_message, timeout=SHORT)
    await s.say(b"o")
    s.equal(await s.do(s.a.read_message), b"hello")


# --- Time-outs and failures -------------------------------------------------------

@row("a time-out, then a line")
async def _(s):
    await s.open()
    s.equal(s.a.timeout, None)
    s.a.timeout = SHORT
    error = await s.raises(TimeoutError, s.a.readline)
    s.equal((error.code, error.errno is not None), (-10, True))
    await s.raises(TimeoutError, s.a.read1)
    await s.say(b"late\n")
    s.equal(await s.do(s.a.readline, timeout=None), b"late\n")


@row("time-outs in mid-line, go on")
async def _(s):
    await s.open()
    for part in (b"on", b"e"):
        await s.say(part)
        await s.raises(TimeoutError, s.a.readline, timeout=SHORT)
    await s.say(b"\ntwo\n")
    await s.lines(b"one\n", b"two\n")


@row("time-outs in mid-delimiter, go on")
async def _(s):
    await s.open()
    for part in (b"abX", b"Y"):
        await s.say(part)
        await s.raises(TimeoutError, s.a.read_until, b"XYZ", timeout=SHORT)
    await s.say(b"Z.")
    s.equal(await s.do(s.a.read_until, b"XYZ"), b"abXYZ")


@row("time-outs in a longer look, lines go on")
async def _(s):
    await s.open()
    await s.say(b"one\ntw")
    await s.raises(TimeoutError, s.a.peek, 10, timeout=SHORT)
    await s.line(b"one\n")
    await s.say(b"o\n")
    await s.line(b"two\n")


@row("bug 38: a time-out covers the call, not the byte", not_on=("pair",))
async def _(s):
    await s.open()
    s.say_meanwhile(*[b"x"] * 60, pause=0.01)
    begin = time.monotonic()
    await s.raises(TimeoutError, s.a.readline, timeout=0.1)
    if time.monotonic() - begin > 0.5:
        raise AssertionError("each byte began the time-out anew")


@row("reset in mid-line", not_on=("pair", "custom"))
async def _(s):
    await s.open()
    await s.say(b"beg")
    await s.arrived(3)
    await s.reset()
    error = await s.raises(ConnectionResetError, s.a.readline)
    s.equal(error.code, -17)
    s.equal(await s.do(s.a.read1), b"beg")
    await s.raises(ConnectionResetError, s.a.read1)


@row("reset after whole lines", not_on=("pair", "custom"))
async def _(s):
    await s.open()
    await s.say(b"one\ntwo\n")
    await s.arrived(8)
    await s.reset()
    await s.lines(b"one\n", b"two\n")
    await s.raises(ConnectionResetError, s.a.readline)


@row("reset in mid-message", not_on=("pair", "custom"))
async def _(s):
    await s.open()
    await s.say(b"\0\0\0\5he")
    await s.arrived(6)
    await s.reset()
    await s.raises(ConnectionResetError, s.a.read_message)


# --- Writing ----------------------------------------------------------------------

@row("write")
async def _(s):
    import array
    await s.open()
    s.equal(await s.do(s.a.write, b"bytes "), 6)
    s.equal(await s.do(s.a.write, bytearray(b"bytearray ")), 10)
    s.equal(await s.do(s.a.write, memoryview(b"-view -")[1:-1]), 5)
    s.equal(await s.do(s.a.write, array.array("H", [0x2121, 0x2121])), 4)
    await s.do(s.a.flush)
    s.equal(await s.heard(25), b"bytes bytearray view !!!!")
    await s.raises(BufferError, s.a.write, memoryview(b"abcdef")[::2])
    await s.raises(TypeError, s.a.write, "text")


@row("write nothing")
async def _(s):
    await s.open()
    s.equal(await s.do(s.a.write, b""), 0)
    s.equal(await s.do(s.a.write, bytearray()), 0)
    await s.do(s.a.writelines, [])
    await s.do(s.a.write, b"x")
    await s.do(s.a.flush)
    s.equal(await s.heard(1), b"x")


@row("write 3,000 pieces at once")
async def _(s):
    pieces = [b"%d," % i for i in range(3000)]
    await s.open()
    await s.do(s.a.writelines, pieces)
    await s.do(s.a.flush)
    s.equal(await s.heard(sum(map(len, pieces))), b"".join(pieces))


@row("write empty pieces")
async def _(s):
    await s.open()
    await s.do(s.a.writelines, iter([b"", b"a", bytearray(), memoryview(b"b"), b""]))
    await s.do(s.a.flush)
    s.equal(await s.heard(2), b"ab")
    await s.raises(TypeError, s.a.writelines, [b"never sent", "text"])
    await s.do(s.a.write, b"!")
    await s.do(s.a.flush)
    s.equal(await s.heard(1), b"!")


def hear_meanwhile(s, size):
    """Hears from a thread; the list gets what it heard."""
    got = []

    def run():
        data = bytearray()
        while len(data) < size:
            some = s.b.recv(65536)
            if not some:
                break
            data += some
        got.append(bytes(data))
    s.threads.append(threading.Thread(target=run))
    s.threads[-1].start()
    return got


@row("a slow reader gets all in order", not_on=("pair",))
async def _(s):
    data = bytes(range(253)) * 8000
    await s.open()
    got = hear_meanwhile(s, 2 * len(data))
    s.equal(await s.do(s.a.write, data), len(data))
    await s.do(s.a.writelines, [memoryview(data)[i:i + 1000] for i in range(0, len(data), 1000)])
    await s.do(s.a.flush)
    s.threads[-1].join(LIMIT_S)
    s.equal(got[0] == data + data, True)


@row("a write times out, go on without loss", not_on=("pair", "custom"))
async def _(s):
    """With a peer that does not read, until the system takes no more."""
    data = bytes(range(241)) * 40000
    await s.open(queue_max=1000000)
    sent = 0
    try:
        while sent < len(data):
            sent += await s.do(s.a.write, data[sent:sent + 500000], timeout=SHORT)
    except TimeoutError as error:
        sent += error.sent
    else:
        raise AssertionError("the system takes everything")
    got = hear_meanwhile(s, len(data))
    while sent < len(data):
        sent += await s.do(s.a.write, data[sent:sent + 500000])
    await s.do(s.a.flush)
    s.threads[-1].join(LIMIT_S)
    s.equal(got[0] == data, True)


@row("flush")
async def _(s):
    await s.open()
    await s.do(s.a.flush)
    await s.do(s.a.write, b"x")
    await s.do(s.a.flush)
    s.equal(s.a.info.queued, 0)
    s.equal(await s.heard(1), b"x")


@row("the peer half-closes, we still write")
async def _(s):
    await s.open()
    await s.finish()
    await s.line(b"")
    await s.do(s.a.write, b"still")
    await s.do(s.a.flush)
    s.equal(await s.heard(5), b"still")


@row("shutdown_write, then the answer")
async def _(s):
    await s.open()
    await s.do(s.a.write, b"question")
    await s.do(s.a.shutdown_write)
    s.equal(await s.heard(100), b"question")
    await s.say(b"answer\n")
    await s.line(b"answer\n")


@row("write after shutdown_write")
async def _(s):
    await s.open()
    await s.do(s.a.shutdown_write)
    await s.do(s.a.shutdown_write)
    error = await s.raises(BrokenPipeError, s.a.write, b"x")
    s.equal(error.code, -18)


@row("bug 29: the peer is gone while we write", not_on=("pair", "custom"))
async def _(s):
    await s.open()
    await s.reset()
    with_errno = (BrokenPipeError, ConnectionResetError)
    for _ in range(1000):
        try:
            await s.do(s.a.write, b"x" * 1000)
            await s.do(s.a.flush)
        except with_errno as error:
            s.equal(error.errno is not None and error.code in (-17, -18), True)
            return
    raise AssertionError("writing to a peer that is gone never fails")


@row("flush, shutdown_write, read to the end, close")
async def _(s):
    await s.open()
    await s.do(s.a.write, b"all of it")
    await s.do(s.a.flush)
    await s.do(s.a.shutdown_write)
    s.equal(await s.heard(100), b"all of it")
    await s.finish()
    s.equal(await s.do(s.a.read), b"")
    await s.do(s.a.close)
    await s.do(s.a.close)
    s.equal(s.a.closed, True)
    await s.raises(ValueError, s.a.readline)
    await s.raises(ValueError, s.a.write, b"x")
    await s.raises(ValueError, s.a.fileno)


@row("abort resets the peer", not_on=("unix", "pair", "custom"))
async def _(s):
    await s.open()
    await s.do(s.a.abort)
    await s.raises(ConnectionResetError, s.b.recv, 1)


@row("8 MiB both ways at once", not_on=("pair", "custom"))
async def _(s):
    data = bytes(range(256)) * 4096
    await s.open()
    got = hear_meanwhile(s, 2 * len(data))
    s.say_meanwhile(data, data)
    for _ in range(2):
        await s.do(s.a.write, data)
        s.equal(await s.do(s.a.read_exact, len(data)) == data, True)
    await s.do(s.a.flush)
    for thread in s.threads:
        thread.join(LIMIT_S)
    s.equal(got[0] == data + data, True)


# --- Interrupting, asking ---------------------------------------------------------

async def interrupted(s, function, *args, **kwargs):
    error = await s.raises(OSError, function, *args, **kwargs)
    s.equal(error.code, -11)


@row("interrupt while reading")
async def _(s):
    await s.open()
    s.later(0.05, s.a.interrupt)
    await interrupted(s, s.a.readline)


@row("interrupt while reading with a time-out")
async def _(s):
    await s.open()
    s.later(0.05, s.a.interrupt)
    await interrupted(s, s.a.read_exact, 100, timeout=LIMIT_S)


@row("interrupt while writing", not_on=("pair", "custom"))
async def _(s):
    await s.open(queue_max=100000)
    s.later(0.2, s.a.interrupt)
    data = b"x" * 100000
    try:
        for _ in range(1000):
            await s.do(s.a.write, data)
    except OSError as error:
        s.equal(error.code, -11)
        return
    raise AssertionError("100 MB were taken")


@row("interrupt before the call")
async def _(s):
    await s.open()
    s.a.interrupt()
    await interrupted(s, s.a.readline)
    await interrupted(s, s.a.write, b"x")


@row("interrupt leaves buffered lines")
async def _(s):
    await s.open()
    await s.say(b"one\ntwo\n")
    await s.arrived(8)
    s.a.interrupt()
    await s.lines(b"one\n", b"two\n")
    await interrupted(s, s.a.readline)


@row("byte counts")
async def _(s):
    await s.open()
    await s.say(b"one\ntwo\n")
    await s.arrived(8)
    await s.line(b"one\n")
    await s.do(s.a.write, b"hello")
    await s.do(s.a.flush)
    info = s.a.info
    s.equal((info.received, info.buffered, info.sent, info.queued), (8, 4, 5, 0))


@row("addresses of both ends")
async def _(s):
    await s.open()
    if s.face == "tcp":
        s.equal(s.a.local.as_socket, s.b.getpeername())
        s.equal(s.a.peer.as_socket, s.b.getsockname())
        s.equal(s.a.peer_name, str(s.a.peer))
    else:
        s.equal((s.a.local, s.a.peer), (None, None))


@row("descriptor")
async def _(s):
    await s.open()
    if s.face in ("tcp", "unix"):
        s.equal(s.a.fileno() >= 0, True)
    else:
        await s.raises(OSError, s.a.fileno)


@row("options")
async def _(s):
    await s.open(line_max=1000, message_max=2000, queue_max=3000)
    s.equal((s.a.line_max, s.a.message_max, s.a.queue_max), (1000, 2000, 3000))
    s.a.line_max, s.a.message_max, s.a.queue_max = 10, 20, 30
    s.equal((s.a.line_max, s.a.message_max, s.a.queue_max), (10, 20, 30))
    for bad in (-1, 1 << 31):
        try:
            s.a.line_max = bad
        except ValueError:
            continue
        raise AssertionError("line_max became %d" % bad)
    for bad, kind in ((-1, ValueError), ("1", TypeError), (float("nan"), ValueError)):
        try:
            s.a.timeout = bad
        except kind:
            continue
        raise AssertionError("the time-out became %r" % (bad,))
    s.a.timeout = 2.5
    s.equal(s.a.timeout, 2.5)


@row("options of the socket", not_on=("unix", "pair", "custom"))
async def _(s):
    await s.open(keepalive=30)
    s.equal((s.a.keepalive, s.a.delay_small_writes), (30, False))
    s.a.keepalive, s.a.delay_small_writes = None, True
    s.equal((s.a.keepalive, s.a.delay_small_writes), (None, True))
    s.a.recv_buffer = 50000
    s.equal(s.a.recv_buffer >= 50000, True)
    s.a.send_buffer = 50000
    s.equal(s.a.send_buffer >= 50000, True)


@row("detach and adopt", not_on=("pair", "custom"))
async def _(s):
    await s.open()
    await s.say(b"one\ntwo\n")
    await s.arrived(8)
    await s.line(b"one\n")
    await s.raises(OSError, s.a.detach)
    await s.line(b"two\n")
    plain = await s.do(s.a.to_socket)
    s.equal(s.a.closed, True)
    plain.sendall(b"plain")
    s.equal(await s.heard(5), b"plain")
    s.a = await s.do(s.namespace.Connection.from_socket, plain)
    await s.say(b"again\n")
    await s.line(b"again\n")


SIGNALS = "signals end blocking waits of the main thread: test_signals.py"
POLLER = "pausing is a matter of pollers, which Python does not show"
C_ONLY = "about memory or functions that only C has"
NOT_HERE = {
    "bug 36: system calls move one byte": C_ONLY,
    "a view lives until the next read": C_ONLY,
    "bug 37: a line of 64 MiB refused in bounded memory": C_ONLY,
    "skip": C_ONLY,
    "skip beyond the end": C_ONLY,
    "skip, time-out, go on": C_ONLY,
    "a message announced huge takes no memory": C_ONLY,
    "write past the queue's limit": "writes wait in both namespaces, also beyond the queue",
    "a write longer than the queue": "writes wait in both namespaces, also beyond the queue",
    "shutdown_write comes after the queue": "shutdown_write waits for the queue",
    "close with data queued": "netkit has no queue; netkit.aio's own tests look at it",
    "a signal while reading, go on": SIGNALS,
    "a signal with SA_RESTART while reading, go on": SIGNALS,
    "a signal while reading with a time-out, go on": SIGNALS,
    "a signal while writing, go on": SIGNALS,
    "pause and resume reading": POLLER,
    "pause at a time-out and at the end": POLLER,
    "pause and resume writing": POLLER,
    "the system's code of a failure": "errno says it: reset in mid-line",
    "trace": C_ONLY,
}
