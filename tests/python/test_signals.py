#!/usr/bin/env python3
"""Signals, threads, forks, the end of the interpreter: what happens around a call that waits."""

import _thread
import ctypes
import gc
import os
import random
import signal
import socket
import sys
import threading
import time
import unittest
import warnings

import nkt_python

nkt_python.use_netkit()

import netkit                                                           # noqa: E402

LIMIT_S = 30
# A program of its own: waits in its main thread, each of which a real SIGINT ends.
WAIT = """
import os, signal, socket, sys, threading, time
import netkit
a, b = netkit.pair()
listener = netkit.listen("localhost:0")
busy = netkit.connect(listener.address)
sock = netkit.udp("127.0.0.1:0")
full, far = netkit.udp_pair()
try:
    while True:
        full.send(b"x" * 1000, timeout=0.01)
except TimeoutError:
    pass
# Nothing more than these is taken: who connects hears nothing.
backlog = socket.socket()
backlog.bind(("127.0.0.1", 0))
backlog.listen(0)
others = [socket.socket() for _ in range(8)]
for other in others:
    other.setblocking(False)
    other.connect_ex(backlog.getsockname())
waits = {
    "readline": a.readline,
    "readline with a time-out": lambda: a.readline(timeout=60),
    "read_exact": lambda: a.read_exact(10),
    "read_message": a.read_message,
    "iteration": lambda: next(iter(a)),
    "text": lambda: next(a.lines()),
    "socket": busy.readline,
    "write": lambda: [busy.write(b"x" * 1000000) for _ in range(100)],
    "accept": lambda: [listener.accept() for _ in range(2)],
    "serve": lambda: netkit.serve(lambda conn: conn.read(), listener),
    "connect": lambda: netkit.connect(backlog.getsockname(), timeout=60),
    "recv": sock.recv,
    "recv with a time-out": lambda: sock.recv(timeout=60),
    "recv_many": sock.recv_many,
    "datagrams": lambda: next(iter(sock)),
    "send": lambda: full.send(b"x" * 1000),
    "send_many": lambda: full.send_many([b"x" * 1000] * 10),
}
def interrupt():
    time.sleep(0.1)
    times.append(time.monotonic())
    # To the process, and to a thread that is not the one that waits.
    if sys.argv[2] == "process":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
for name in sys.argv[1].split(",") * int(sys.argv[3]):
    times = []
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        waits[name]()
    except KeyboardInterrupt:
        print((time.monotonic() - times[0]) * 1000, name)
"""


class Interrupts(unittest.TestCase):
    def interrupted(self, waits, to="process", times=1):
        """How long each of so many took to end, in milliseconds, the shortest first."""
        out, _ = nkt_python.python(WAIT, ",".join(waits), to, str(times))
        rows = [line.partition(" ") for line in out.splitlines()]
        self.assertEqual([name for _, _, name in rows], list(waits) * times)
        return sorted(float(ms) for ms, _, _ in rows)

    def test_a_real_sigint_ends_every_wait(self):
        # serve() closes its listener.
        self.interrupted(("readline", "readline with a time-out", "read_exact", "read_message",
                          "iteration", "text", "socket", "write", "accept", "connect", "recv",
                          "recv with a time-out", "recv_many", "datagrams", "send", "send_many",
                          "serve"))

    def test_how_soon(self):
        took = self.interrupted(["socket"], times=11)
        print("Ctrl-C, ms: median %.1f" % took[5])
        self.assertLess(took[5], 100)

    def test_a_signal_that_another_thread_gets(self):
        took = self.interrupted(["socket"], "thread", times=11)
        print("Ctrl-C by another thread, ms: median %.1f, worst %.1f" % (took[5], took[10]))
        self.assertLess(took[5], 400)

    @unittest.skipUnless(hasattr(signal, "setitimer"), "there is no setitimer")
    def test_other_handlers_run_and_the_wait_goes_on(self):
        a, b = netkit.pair()
        c, d = netkit.udp_pair()
        seen = []

        def handler(number, frame):
            if len(seen) == 3:
                return              # one that was on its way when the timer was stopped
            seen.append(number)
            if len(seen) == 3:
                signal.setitimer(signal.ITIMER_REAL, 0)
                send(b"late\n")
        before = signal.signal(signal.SIGALRM, handler)
        try:
            with a, b, c, d:
                for read, send in ((b.readline, a.write), (lambda: b.read_exact(5), a.write),
                                   (lambda: b.read(5), a.write),
                                   (lambda: b.read_until(b"\n"), a.write),
                                   (lambda: next(iter(b)), a.write),
                                   (lambda: d.recv().data, c.send),
                                   (lambda: d.recv_many()[0].data, c.send)):
                    del seen[:]
                    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
                    self.assertEqual(read(), b"late\n")
                    self.assertEqual(len(seen), 3)
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_a_handler_closes_what_is_waited_for(self):
        a, b = netkit.pair()
        before = signal.signal(signal.SIGALRM, lambda number, frame: b.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with a:
                with self.assertRaises((OSError, ValueError)):
                    b.readline()
            self.assertIsNone(b._handle)
        finally:
            signal.signal(signal.SIGALRM, before)


class Stop(Exception):
    pass


@unittest.skipUnless(sys.implementation.name == "cpython", "it needs CPython's exceptions from "
                                                           "outside")
class AnyMoment(unittest.TestCase):
    """An exception between any two instructions loses no line and gives none twice."""

    def run_reader(self, read_some, count=150000):
        """Reads numbered lines while exceptions come; how many came.

        One thread after the other reads until an exception ends it, wherever it comes, and has
        nothing else to do that it could be kept from.
        """
        near, far = socket.socketpair()
        data = b"".join(b"%07d %s\n" % (i, b"x" * (i % 50)) for i in range(count))
        sender = threading.Thread(target=lambda: (far.sendall(data), far.close()))
        conn = netkit.Connection.from_socket(near)
        got, done = [], []
        begun = threading.Lock()
        begun.acquire()

        def victim():
            try:
                begun.release()
                while read_some(conn, got):
                    pass
                done.append(True)
            except Stop:
                pass

        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        rng = random.Random(7)
        hits = 0
        before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
        sender.start()
        try:
            while not done:
                ident = ctypes.c_ulong(_thread.start_new_thread(victim, ()))
                begun.acquire()
                time.sleep(rng.random() * 0.002)
                while raise_in(ident, ctypes.py_object(Stop)) == 1:    # 0 when it has ended
                    hits += 1
                    time.sleep(rng.random() * 0.002)
        finally:
            sys.unraisablehook = before
        sender.join()
        conn.close()
        self.assertEqual(len(got), count)
        self.assertEqual(b"".join(got) == data, True)
        return hits

    def test_iteration(self):
        def read_some(conn, got):
            got.extend(conn)        # all of it in C: nothing can come between two lines
            return False
        hits = self.run_reader(read_some)
        print("exceptions during iteration: %d" % hits)
        self.assertGreater(hits, 3)

    def test_fill(self):
        """Where every exception finds the reader between taking and handing out."""
        def read_some(conn, got):
            operation = conn._run(conn._next_front(), None)
            if operation is None:
                return False
            got.extend(operation)
            return True
        hits = self.run_reader(read_some)
        print("exceptions while filling: %d" % hits)
        self.assertGreater(hits, 3)


class Threads(unittest.TestCase):
    def test_close_wakes_a_reader(self):
        for opened in (netkit.pair, lambda: map(netkit.Connection.from_socket,
                                                socket.socketpair())):
            a, b = opened()
            raised = []

            def read():
                try:
                    b.readline()
                except (OSError, ValueError) as error:
                    raised.append(error)
            thread = threading.Thread(target=read)
            thread.start()
            time.sleep(0.05)
            b.close()
            thread.join(LIMIT_S)
            self.assertFalse(thread.is_alive())
            self.assertEqual([error.code for error in raised], [-11])
            self.assertIsNone(b._handle)
            a.close()

    def test_concurrent_writers_are_serialised_whole(self):
        near, far = socket.socketpair()
        count, size = 40, 30000
        got = bytearray()

        def hear():
            while True:
                some = far.recv(65536)
                if not some:
                    return
                got.extend(some)
        hearer = threading.Thread(target=hear)
        hearer.start()
        with netkit.Connection.from_socket(near) as conn:
            def write(number):
                for _ in range(count):
                    if number % 2:
                        conn.write(bytes([number]) * size)
                    else:
                        conn.writelines([bytes([number]) * (size // 10)] * 10)
            writers = [threading.Thread(target=write, args=(n,)) for n in range(1, 5)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join(LIMIT_S)
        hearer.join(LIMIT_S)
        far.close()
        self.assertEqual(len(got), 4 * count * size)
        for at in range(0, len(got), size):
            self.assertEqual(len(set(got[at:at + size])), 1)

    def test_readers_take_turns(self):
        a, b = netkit.pair()
        wanted = [b"%d\n" % i for i in range(2000)]
        got = []
        with a, b:
            def read():
                while True:
                    line = b.readline()
                    if not line:
                        return
                    got.append(line)
            readers = [threading.Thread(target=read) for _ in range(4)]
            for reader in readers:
                reader.start()
            for line in wanted:
                a.write(line)
            a.shutdown_write()
            for reader in readers:
                reader.join(LIMIT_S)
        self.assertEqual(sorted(got), sorted(wanted))

    def test_close_ends_accept_and_iteration(self):
        listener = netkit.listen("localhost:0")
        ended = []
        thread = threading.Thread(target=lambda: ended.append(list(listener)))
        thread.start()
        time.sleep(0.05)
        listener.close()
        thread.join(LIMIT_S)
        self.assertEqual(ended, [[]])
        with self.assertRaises(ValueError):
            listener.accept()

    def test_a_wait_lets_other_threads_run(self):
        a, b = netkit.pair()
        with a, b:
            ran = threading.Event()
            threading.Timer(0.05, lambda: (ran.set(), a.write(b"x\n"))).start()
            self.assertEqual(b.readline(timeout=LIMIT_S), b"x\n")
            self.assertTrue(ran.is_set())


class Endings(unittest.TestCase):
    def test_unclosed_ones_are_told(self):
        for make in (lambda: netkit.pair()[0], lambda: netkit.listen("localhost:0")):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                make()
                gc.collect()
            kinds = {warning.category for warning in told}
            self.assertEqual(kinds, {ResourceWarning}, told)
            self.assertIn("unclosed <netkit.", str(told[0].message))

    def test_closed_ones_are_not(self):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            a, b = netkit.pair()
            with a, b, netkit.listen("localhost:0") as listener:
                with netkit.connect(listener.address), listener.accept():
                    pass
            del a, b, listener
            gc.collect()
        self.assertEqual(told, [])

    def test_the_end_of_the_interpreter(self):
        code = """
import threading, time, netkit
a, b = netkit.pair()
listener = netkit.listen("localhost:0")
for wait in (b.readline, listener.accept):
    threading.Thread(target=wait, daemon=True).start()
time.sleep(0.1)
cycle = [a, b, listener]
cycle.append(cycle)
print("over")
"""
        out, err = nkt_python.python(code)
        self.assertEqual(out, "over\n")
        self.assertNotIn("Traceback", err)

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_a_child_only_closes(self):
        code = """
import os, sys, socket, netkit
near, far = socket.socketpair()
conn = netkit.Connection.from_socket(near)
listener = netkit.listen("localhost:0")
pid = os.fork()
if pid == 0:
    for call in (conn.readline, listener.accept, lambda: conn.write(b"x")):
        try:
            call()
        except RuntimeError as error:
            assert "parent process" in str(error)
        else:
            os._exit(1)
    assert "parent" in repr(conn)
    conn.close()
    listener.close()
    a, b = netkit.pair()
    a.write(b"child\\n")
    os._exit(0 if b.readline() == b"child\\n" else 2)
_, status = os.waitpid(pid, 0)
assert status == 0, status
far.sendall(b"alive\\n")                   # the child has not shut it down
assert conn.readline() == b"alive\\n"
with netkit.connect(listener.address) as client, listener.accept():
    conn.close()
    listener.close()
print("well")
"""
        out, err = nkt_python.python(code)
        self.assertEqual(out, "well\n", err)

    def test_import_brings_neither_asyncio_nor_what_is_slow(self):
        # Some machines have a .pth file that imports much in every Python.
        code = ("import sys; before = set(sys.modules); import netkit; print(*[name for name in "
                "('asyncio', 'socket', 'ipaddress', 'threading') "
                "if name in sys.modules and name not in before])")
        out, _ = nkt_python.python(code)
        self.assertEqual(out.split(), [])


if __name__ == "__main__":
    sys.exit(nkt_python.main())
