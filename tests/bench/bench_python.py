#!/usr/bin/env python3
"""Python's netkit beside socket, makefile and asyncio, as ratios of the processor's time.

    make bench-python           or  tests/bench/bench_python.py [ROUNDS [LINES]]

All rows take turns within one run, ROUNDS times, and a ratio is the median of the rounds' ratios.
"A/A" is the reference measured against itself: how far from 1.00 chance alone gets. Lines have 64
bytes and come over TCP from another process. In an echo both ends are in this process, so that no
other one's scheduling is in it: the cost of an exchange less that of its four system calls made
plainly is the overhead that is compared. Datagrams wait in the system's buffer, and only taking
them is counted, from a socket's second burst on: at the first one Linux switches receive offload
on, which takes it 0.8 ms once. The table is also written to build/bench-python.tsv.
"""

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests", "python"), os.path.join(ROOT, "tests")]

import nkt_python                                                       # noqa: E402

os.environ.setdefault("NETKIT_LIBRARY", nkt_python.library("-O2"))
nkt_python.use_netkit()

import netkit                                                           # noqa: E402
from netkit import aio                                                  # noqa: E402

try:
    import uvloop
except ImportError:
    uvloop = None

LINE = b"x" * 63 + b"\n"
LAST = b"y" * 63 + b"\n"
EXCHANGES = 3000
BURST, BURSTS = 128, 40         # datagrams that the system's buffer holds, and how often
BUILD = os.path.join(ROOT, os.environ.get("BUILD") or "build")


def tcp():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


FEEDER = """
import socket, sys
far, count = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]) - 1
block = (b"x" * 63 + b"\\n") * 4096
far.recv(1)
while count > 0:
    far.sendall(block[:64 * min(count, 4096)])
    count -= 4096
far.sendall(b"y" * 63 + b"\\n")
"""


class Feed:
    """A socket that another process writes lines to. Not a fork of this one: every page that is
    touched after a fork is copied first, and that would be measured."""

    def __init__(self, count):
        self.sock, far = tcp()
        with far:
            os.set_inheritable(far.fileno(), True)
            self.child = subprocess.Popen(
                [sys.executable, "-S", "-c", FEEDER, str(far.fileno()), str(count)],
                pass_fds=[far.fileno()])
        self.sock.send(b"!")

    def end(self):
        self.child.wait()


def lines_row(read):
    """Nanoseconds of this process for a line, read in one of the blocking ways."""
    def run(count):
        feed = Feed(count)
        start = time.process_time()
        last = read(feed.sock)
        took = time.process_time() - start
        feed.end()
        assert last in (LAST, LAST.decode().rstrip()), last
        return took / count * 1e9
    return run


def last_of(lines):
    for line in lines:
        pass
    return line


def makefile_lines(sock):
    with sock, sock.makefile("rb") as file:
        return last_of(file)


def makefile_readline(sock):
    with sock, sock.makefile("rb") as file:
        line = b""
        while True:
            following = file.readline()
            if not following:
                return line
            line = following


def makefile_text(sock):
    with sock, sock.makefile("r", encoding="utf-8") as file:
        return last_of(file).rstrip("\n")


def netkit_lines(sock):
    with netkit.Connection.from_socket(sock) as conn:
        return last_of(conn)


def netkit_readline(sock):
    with netkit.Connection.from_socket(sock) as conn:
        line = b""
        while True:
            following = conn.readline()
            if not following:
                return line
            line = following


def netkit_text(sock):
    with netkit.Connection.from_socket(sock) as conn:
        return last_of(conn.lines())


def on_loop(make, function, *args):
    loop = make()
    try:
        return loop.run_until_complete(function(*args))
    finally:
        loop.close()


async def streams_lines(sock):
    reader, writer = await asyncio.open_connection(sock=sock)
    async for line in reader:
        pass
    writer.close()
    return line


async def aio_lines(sock):
    async with aio.Connection.from_socket(sock) as conn:
        async for line in conn:
            pass
        return line


async def aio_batches(sock):
    async with aio.Connection.from_socket(sock) as conn:
        line = b""
        while True:
            lines = await conn.read_lines()
            if not lines:
                return line
            for line in lines:
                pass


def async_row(function, make):
    return lines_row(lambda sock: on_loop(make, function, sock))


# --- Echoes -------------------------------------------------------------------------

def plain_echo():
    near, far = tcp()
    with near, far:
        start = time.process_time()
        for _ in range(EXCHANGES):
            near.sendall(LINE)
            far.send(far.recv(65536))
            near.recv(65536)
        return (time.process_time() - start) / EXCHANGES * 1e9


def socket_timeout_echo():
    near, far = tcp()
    with near, far:
        near.settimeout(5)
        start = time.process_time()
        for _ in range(EXCHANGES):
            near.sendall(LINE)
            far.send(far.recv(65536))
            near.recv(65536)
        return (time.process_time() - start) / EXCHANGES * 1e9


def netkit_timeout_echo():
    near, far = tcp()
    with netkit.Connection.from_socket(near, timeout=5) as conn, far:
        start = time.process_time()
        for _ in range(EXCHANGES):
            conn.write(LINE)
            far.send(far.recv(65536))
            conn.read1()
        return (time.process_time() - start) / EXCHANGES * 1e9


async def streams_echo():
    near, far = tcp()
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(sock=near)
    with far:
        start = time.process_time()
        for _ in range(EXCHANGES):
            writer.write(LINE)
            await writer.drain()
            loop.call_soon(lambda: far.send(far.recv(65536)))
            await reader.readline()
        took = time.process_time() - start
    writer.close()
    return took / EXCHANGES * 1e9


async def aio_echo():
    near, far = tcp()
    loop = asyncio.get_running_loop()
    async with aio.Connection.from_socket(near) as conn:
        with far:
            start = time.process_time()
            for _ in range(EXCHANGES):
                await conn.write(LINE)
                loop.call_soon(lambda: far.send(far.recv(65536)))
                await conn.readline()
            return (time.process_time() - start) / EXCHANGES * 1e9


# --- Datagrams ----------------------------------------------------------------------

def udp_sockets():
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind(("127.0.0.1", 0))
    far.connect(near.getsockname())
    return near, far


def burst(far):
    for _ in range(BURST):
        far.send(LINE)


def recvfrom_datagrams():
    """Nanoseconds for each datagram of a full queue; sending is not counted."""
    near, far = udp_sockets()
    took = 0.0
    with near, far:
        for turn in range(1 + BURSTS):
            burst(far)
            start = time.process_time()
            for _ in range(BURST):
                data, _ = near.recvfrom(65536)
            took += time.process_time() - start if turn else 0
            assert data == LINE
    return took / BURSTS / BURST * 1e9


def netkit_datagrams():
    took = 0.0
    with netkit.udp("127.0.0.1:0", timeout=5) as near, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.connect(("127.0.0.1", near.port))
        for turn in range(1 + BURSTS):
            burst(far)
            count = 0
            start = time.process_time()
            while count < BURST:
                some = near.recv_many()
                for data, _ in some:
                    pass
                count += len(some)
            took += time.process_time() - start if turn else 0
            assert data == LINE
    return took / BURSTS / BURST * 1e9


class Receiver(asyncio.DatagramProtocol):
    def __init__(self):
        self.left = 0
        self.done = None

    def datagram_received(self, data, addr):
        self.left -= 1
        if self.left == 0:
            self.done.set_result(data)


async def protocol_datagrams():
    near, far = udp_sockets()
    loop = asyncio.get_running_loop()
    transport, receiver = await loop.create_datagram_endpoint(Receiver, sock=near)
    took = 0.0
    with far:
        for turn in range(1 + BURSTS):
            burst(far)
            receiver.left, receiver.done = BURST, loop.create_future()
            start = time.process_time()
            data = await receiver.done
            took += time.process_time() - start if turn else 0
            assert data == LINE
    transport.close()
    return took / BURSTS / BURST * 1e9


async def aio_datagrams():
    took = 0.0
    async with aio.udp("127.0.0.1:0") as near:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.connect(("127.0.0.1", near.port))
            for turn in range(1 + BURSTS):
                burst(far)
                count = 0
                start = time.process_time()
                while count < BURST:
                    some = await near.recv_many()
                    for data, _ in some:
                        pass
                    count += len(some)
                took += time.process_time() - start if turn else 0
                assert data == LINE
    return took / BURSTS / BURST * 1e9


# --- Ctrl-C and importing -------------------------------------------------------------

def interrupt_ms():
    """Milliseconds from SIGINT until KeyboardInterrupt is out of a blocked readline."""
    a, b = netkit.pair()
    sent = []

    def kill():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    with a, b:
        timer = threading.Timer(0.05, kill)
        timer.start()
        try:
            b.readline(timeout=10)
        except KeyboardInterrupt:
            took = time.perf_counter() - sent[0]
        timer.join()
    return took * 1000


def import_ms():
    code = ("import time; t = time.process_time(); import netkit; "
            "print((time.process_time() - t) * 1000)")
    env = dict(os.environ)
    env.pop("PYTHONDONTWRITEBYTECODE", None)        # installed packages are compiled, too
    return float(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env,
                                check=True).stdout)


# --- The run --------------------------------------------------------------------------

def table(rounds, lines):
    """(name, reference, target, floor) of each row, and the measurements by name."""
    selector = asyncio.SelectorEventLoop
    few = max(1, lines // 4)
    makers = {
        "makefile rb, for line": (lines_row(makefile_lines), lines),
        "makefile rb, readline": (lines_row(makefile_readline), lines),
        "makefile r, for line": (lines_row(makefile_text), lines),
        "asyncio, async for": (async_row(streams_lines, selector), few),
        "for line in conn": (lines_row(netkit_lines), lines),
        "conn.readline()": (lines_row(netkit_readline), lines),
        "conn.lines()": (lines_row(netkit_text), lines),
        "aio, async for": (async_row(aio_lines, selector), lines),
        "aio, read_lines": (async_row(aio_batches, selector), lines),
        "plain echo": (plain_echo, None),
        "socket echo, settimeout": (socket_timeout_echo, None),
        "netkit echo, timeout": (netkit_timeout_echo, None),
        "asyncio streams echo": (lambda: on_loop(selector, streams_echo), None),
        "aio echo": (lambda: on_loop(selector, aio_echo), None),
        "recvfrom": (recvfrom_datagrams, None),
        "udp.recv_many": (netkit_datagrams, None),
        "asyncio, datagram protocol": (lambda: on_loop(selector, protocol_datagrams), None),
        "aio udp.recv_many": (lambda: on_loop(selector, aio_datagrams), None),
    }
    rows = [
        ("for line in conn", "makefile rb, for line", 0.60, None),
        ("conn.readline()", "makefile rb, readline", 1.05, None),
        ("conn.lines()", "makefile r, for line", 0.75, None),
        ("aio, async for", "asyncio, async for", 0.20, None),
        ("aio, read_lines", "asyncio, async for", 0.08, None),
        ("netkit echo, timeout", "socket echo, settimeout", 1.00, None),
        ("aio echo", "asyncio streams echo", 0.80, "plain echo"),
        ("udp.recv_many", "recvfrom", 0.60, None),
        ("aio udp.recv_many", "asyncio, datagram protocol", 0.10, None),
    ]
    if uvloop is not None:
        makers["uvloop, streams echo"] = (lambda: on_loop(uvloop.new_event_loop, streams_echo),
                                          None)
        makers["uvloop, aio echo"] = (lambda: on_loop(uvloop.new_event_loop, aio_echo), None)
        rows.append(("uvloop, aio echo", "uvloop, streams echo", 0.80, "plain echo"))
    references = sorted({row[1] for row in rows})
    found = {name: [] for name in makers}
    again = {name: [] for name in references}
    for _ in range(rounds):
        for name, (measure, count) in makers.items():
            found[name].append(measure() if count is None else measure(count))
        for name in references:
            measure, count = makers[name]
            again[name].append(measure() if count is None else measure(count))
    return rows, found, again


def ratio_of(ours, theirs, floor):
    floor = floor or [0] * len(ours)
    return statistics.median((a - c) / max(b - c, 1e-9) for a, b, c in zip(ours, theirs, floor))


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    lines = int(sys.argv[2]) if len(sys.argv) > 2 else 400000
    rows, found, again = table(rounds, lines)
    out = [("row", "ns", "reference", "ns", "ratio", "A/A", "target", "met")]
    for name, reference, target, floor in rows:
        base = found[floor] if floor else None
        ratio = ratio_of(found[name], found[reference], base)
        chance = ratio_of(again[reference], found[reference], base)
        out.append((name, "%.0f" % statistics.median(found[name]), reference,
                    "%.0f" % statistics.median(found[reference]), "%.2f" % ratio,
                    "%.2f" % chance, "%.2f" % target, "yes" if ratio <= target else "NO"))
    stops = [interrupt_ms() for _ in range(11)]
    loads = [import_ms() for _ in range(11)]
    for name, value, target in (("Ctrl-C, worst of 11, ms", max(stops), 260),
                                ("Ctrl-C, median, ms", statistics.median(stops), 1),
                                ("import netkit, median of 11, ms", statistics.median(loads),
                                 15)):
        out.append((name, "", "", "", "%.2f" % value, "", str(target),
                    "yes" if value <= target else "NO"))
    os.makedirs(BUILD, exist_ok=True)
    with open(os.path.join(BUILD, "bench-python.tsv"), "w", encoding="ascii") as file:
        file.writelines("\t".join(row) + "\n" for row in out)
    for row in out:
        print("%-32s %7s  %-24s %7s %7s %6s %7s  %s" % row)


if __name__ == "__main__":
    main()
