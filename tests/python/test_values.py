#!/usr/bin/env python3
"""Addresses, exceptions, the library that is loaded, and what a user's transport may do."""

import errno
import ipaddress
import os
import pickle
import random
import socket
import sys
import tempfile
import unittest

import nkt_python

nkt_python.use_netkit()

import netkit                                                           # noqa: E402
from netkit import IP, Address, Network, _errors, _lib                  # noqa: E402


class Addresses(unittest.TestCase):
    def test_text(self):
        for text, want in (("127.0.0.1", "127.0.0.1"), ("::", "::"), ("2001:DB8:0:0::1",
                           "2001:db8::1"), ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
                           ("1:0:0:2:0:0:0:3", "1:0:0:2::3"), ("fe80::1%7", "fe80::1%7"),
                           ("::1.2.3.4", "::102:304")):
            self.assertEqual(str(IP(text)), want)
        for text in ("", "1", "127.1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "0x7f.1.1.1",
                     " 1.2.3.4", "1.2.3.4 ", "1.2.3.4%1", "::ffff:1.2.3.4%1", ":::", "1::2::3",
                     "12345::", "::1%", "::1%0", "::1%01", "::1%no-such-if", "[::1]", "::1/64",
                     "1.2.3.\u0664", "::\uff11", "::01.2.3.4", "localhost"):
            with self.subTest(text=text), self.assertRaises(netkit.AddressError):
                IP(text)

    def test_as_the_library_reads_and_writes_them(self):
        import ctypes
        rng = random.Random(1)
        for _ in range(2000):
            if rng.random() < 0.3:
                text = ".".join(str(rng.choice((0, 1, 10, 99, 255, 256))) for _ in range(4))
            else:
                groups = [rng.choice(("", "0", "1", "ffff", "0a", "12345", "1.2.3.4"))
                          for _ in range(rng.randint(2, 8))]
                text = ":".join(groups)
            struct = _lib.nkt_ip()
            err = _lib.quick.nkt_ip_parse(text.encode(), ctypes.byref(struct))
            if err < 0:
                with self.assertRaises(netkit.AddressError, msg=text):
                    IP(text)
                continue
            ip = IP(text)
            self.assertEqual(IP._of(struct), ip, text)
            self.assertEqual(_lib.text_of(_lib.quick.nkt_ip_format, ctypes.byref(struct)),
                             str(ip))

    def test_whatever_is_an_address(self):
        want = IP("192.0.2.1")
        for given in ("192.0.2.1", 0xC0000201, bytes([192, 0, 2, 1]), want,
                      ipaddress.ip_address("192.0.2.1")):
            self.assertEqual(IP(given), want)
        self.assertEqual(IP(bytes(15) + b"\1"), IP("::1"))
        self.assertEqual(IP(1 << 127).version, 6)
        for bad, kind in ((-1, ValueError), (1 << 128, ValueError), (b"abc", ValueError),
                          (None, TypeError), (1.5, TypeError), (True, TypeError)):
            with self.assertRaises(kind):
                IP(bad)
        want = Address("192.0.2.1:80")
        for given in (("192.0.2.1", 80), (0xC0000201, 80), (ipaddress.ip_address("192.0.2.1"), 80),
                      want):
            self.assertEqual(Address(given), want)
        self.assertEqual(Address("192.0.2.1", 80), want)
        self.assertEqual(Address(("fe80::1", 80, 0, 3)), Address("[fe80::1%3]:80"))
        self.assertEqual(Address("[fe80::1%3]:80").as_socket, ("fe80::1", 80, 0, 3))
        for bad in ("::1:80", "[::1]", "[::1]:", "1.2.3.4", "1.2.3.4:65536", "1.2.3.4:080",
                    "[1.2.3.4]:80", "a:80", "[::1:80", "::1]:80", "1.2.3.4:-1"):
            with self.subTest(text=bad), self.assertRaises(netkit.AddressError):
                Address(bad)

    def test_values(self):
        texts = ("0.0.0.0", "9.9.9.9", "10.0.0.1", "255.255.255.255", "::", "::1", "fe80::1",
                 "fe80::1%2", "ff02::1")
        ips = [IP(text) for text in texts]
        shuffled = ips[:]
        random.Random(2).shuffle(shuffled)
        self.assertEqual(sorted(shuffled), ips)
        for ip in ips:
            self.assertEqual(hash(ip), hash(ip.ipaddress))
            self.assertEqual({ip: 1}[ip.ipaddress], 1)
            self.assertEqual(IP(ip.ipaddress), ip)
            self.assertEqual(pickle.loads(pickle.dumps(ip)), ip)
            with self.assertRaises(AttributeError):
                ip.scope = 5
        self.assertNotEqual(IP("fe80::1%2"), IP("fe80::1"))
        self.assertLess(IP("10.0.0.1"), ipaddress.ip_address("10.0.0.2"))
        self.assertNotEqual(IP(1), 1)
        addresses = [Address("9.9.9.9:2"), Address("10.0.0.1:1"), Address("10.0.0.1:2"),
                     Address("[::1]:1")]
        self.assertEqual(sorted(reversed(addresses)), addresses)
        self.assertEqual(len(set(addresses + [Address("[::1]:1")])), 4)
        self.assertEqual(pickle.loads(pickle.dumps(addresses)), addresses)

    def test_networks(self):
        net = Network("10.1.2.3/8")
        self.assertEqual((str(net), net.prefix_length, str(net.netmask), str(net.broadcast)),
                         ("10.0.0.0/8", 8, "255.0.0.0", "10.255.255.255"))
        self.assertEqual(net, ipaddress.ip_network("10.0.0.0/8"))
        self.assertEqual(hash(net), hash(ipaddress.ip_network("10.0.0.0/8")))
        self.assertIn("10.255.0.1", net)
        self.assertNotIn("11.0.0.0", net)
        self.assertNotIn("::ffff:10.0.0.1", net)
        self.assertTrue(net.overlaps("10.3.0.0/16"))
        self.assertFalse(net.overlaps(Network("11.0.0.0/8")))
        self.assertIsNone(Network("10.0.0.0/31").broadcast)
        self.assertEqual(Network(IP("2001:db8::5"), 32), Network("2001:db8::/32"))
        self.assertLess(Network("10.0.0.0/8"), Network("10.0.0.0/9"))
        for bad in ("10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "/8",
                    "10.0.0.0/", "10.0.0.0/-1", "fe80::%1/64"):
            with self.subTest(text=bad), self.assertRaises(netkit.AddressError):
                Network(bad)

    def test_pure_parts_need_no_library(self):
        env = dict(os.environ, NETKIT_LIBRARY="/nowhere/libnetkit.so")
        out, _ = nkt_python.python("import netkit; print(netkit.Address('[::1]:80').ip)\n"
                                   "try: netkit.pair()\n"
                                   "except ImportError as error: print(error)", env=env)
        self.assertIn("::1\n", out)
        self.assertIn("there is no /nowhere/libnetkit.so", out)
        self.assertIn("NETKIT_LIBRARY", out)


class Library(unittest.TestCase):
    def test_another_version_is_refused(self):
        self.refused(nkt_python.built(self.header().replace(b'"%s"' % netkit.__version__.encode(),
                                                            b'"9.8.7"')),
                     "9.8.7", netkit.__version__)

    def test_another_layout_is_refused(self):
        self.refused(nkt_python.built(self.header().replace(b"int32_t start_ms;",
                                                            b"int64_t start_ms;", 1)),
                     "nkt_attempt", netkit.__version__)

    def test_another_library_is_refused(self):
        self.refused(nkt_python.built(b"", b"int other = 1;\n"), "nkt_version")

    def header(self):
        with open(os.path.join(nkt_python.ROOT, "netkit.h"), "rb") as file:
            return file.read()

    def refused(self, path, *words):
        with self.assertRaises(ImportError) as caught:
            _lib.load(path)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_numbers_are_those_of_the_library(self):
        for name in dir(_lib):
            value = getattr(_lib, name)
            if name.startswith("E") and name.isupper() and isinstance(value, int):
                self.assertEqual(_errors.name(value), "NKT_" + name)
        for name in _lib.PROTOTYPES:
            getattr(_lib.quick, name)
            getattr(_lib.slow, name)


class Exceptions(unittest.TestCase):
    def test_classes(self):
        for code, kind, number in (
                (_lib.EREFUSED, ConnectionRefusedError, errno.ECONNREFUSED),
                (_lib.ERESET, ConnectionResetError, errno.ECONNRESET),
                (_lib.EPIPE, BrokenPipeError, errno.EPIPE),
                (_lib.EABORTED, ConnectionAbortedError, errno.ECONNABORTED),
                (_lib.ETIMEDOUT, TimeoutError, errno.ETIMEDOUT),
                (_lib.EACCES, PermissionError, errno.EACCES),
                (_lib.EADDRINUSE, OSError, errno.EADDRINUSE),
                (_lib.EMFILE, OSError, errno.EMFILE),
                (_lib.ECANCELED, OSError, errno.ECANCELED),
                (_lib.EOS, OSError, errno.EXDEV)):
            made = _errors.error(code, errno.EXDEV)
            self.assertIsInstance(made, kind)
            self.assertEqual((made.errno, made.code), (number, code))
        for code in (_lib.EADDR, _lib.EPORT, _lib.ENAME, _lib.EAMBIGUOUS, _lib.EINVAL):
            self.assertIsInstance(_errors.error(code), ValueError)

    def test_a_refused_connect_tells_its_attempts(self):
        with netkit.listen("localhost:0") as listener:
            port = listener.port
        with self.assertRaises(ConnectionRefusedError) as caught:
            netkit.connect("localhost", port)
        error = caught.exception
        self.assertIsInstance(error, netkit.ConnectError)
        self.assertEqual((error.errno, error.code), (errno.ECONNREFUSED, -16))
        self.assertEqual({attempt.address.port for attempt in error.attempts}, {port})
        self.assertIn(Address("127.0.0.1", port), [attempt.address for attempt in error.attempts])
        for attempt in error.attempts:
            self.assertIsInstance(attempt.error, ConnectionRefusedError)
            self.assertIn(str(attempt.address), str(error))

    def test_names_and_paths(self):
        with self.assertRaises(socket.gaierror) as caught:
            netkit.resolve("no-such-host.invalid")
        self.assertIn(caught.exception.code, (_lib.ENOTFOUND, _lib.ELOOKUP))
        with self.assertRaises(socket.gaierror) as caught:
            netkit.connect("no-such-host.invalid:80")
        self.assertIsInstance(caught.exception, netkit.ConnectError)
        with self.assertRaises(FileNotFoundError):
            netkit.connect("unix:/no/such/path")
        for bad in ("localhost", "a b:80", "127.1:80", "::1:80", "localhost:99999", "a\0b:1"):
            with self.subTest(target=bad), self.assertRaises(ValueError):
                netkit.connect(bad)
        for bad in ("a b:80", "127.1:80", "nohost.invalid:1"):
            with self.subTest(target=bad), self.assertRaises((ValueError, OSError)):
                netkit.listen(bad)
        with netkit.listen("127.0.0.1:0") as listener:
            with self.assertRaises(OSError) as caught:
                netkit.listen("127.0.0.1", listener.port)
            self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_accepted_wherever_an_address_goes(self):
        with netkit.listen("127.0.0.1:0") as listener:
            port = listener.port
            for given in (("127.0.0.1:%d" % port,), ("127.0.0.1", port), (("127.0.0.1", port),),
                          (0x7F000001, port), (ipaddress.ip_address("127.0.0.1"), port),
                          (Address("127.0.0.1", port),), (IP("127.0.0.1"), port)):
                with self.subTest(given=given), netkit.connect(*given, timeout=5) as conn:
                    with listener.accept(timeout=5) as accepted:
                        self.assertEqual(accepted.local, conn.peer)
        with tempfile.TemporaryDirectory() as folder:
            import pathlib
            path = pathlib.Path(folder) / "socket"
            with netkit.listen(path) as listener, netkit.connect(path) as conn:
                listener.accept(timeout=5).close()
                self.assertEqual(conn.readline(timeout=5), b"")
            self.assertFalse(path.exists())

    def test_accept_times_out(self):
        with netkit.listen("localhost:0", timeout=0.05) as listener:
            with self.assertRaises(TimeoutError):
                listener.accept()
            with self.assertRaises(TimeoutError):
                listener.accept(timeout=0)


class Boom(Exception):
    pass


class Transports(unittest.TestCase):
    def make(self, **methods):
        methods.setdefault("recv", lambda self, size: b"")
        methods.setdefault("send", lambda self, data: len(data))
        return type("Mine", (), methods)()

    def test_what_it_raises_comes_out(self):
        def boom(self, argument):
            raise Boom("here")
        with netkit.Connection(self.make(recv=boom)) as conn:
            with self.assertRaisesRegex(Boom, "here"):
                conn.readline()
        with netkit.Connection(self.make(send=boom)) as conn:
            with self.assertRaisesRegex(Boom, "here"):
                conn.write(b"x")

    def test_an_interrupt_in_it_ends_nothing(self):
        calls = []

        def recv(self, size):
            calls.append(size)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return b"line\n"
        with netkit.Connection(self.make(recv=recv)) as conn:
            with self.assertRaises(KeyboardInterrupt):
                conn.readline()
            self.assertEqual(conn.readline(), b"line\n")

    def test_more_than_asked_for_and_less_than_given(self):
        got = bytearray()
        pieces = [b"x" * 100000 + b"\nlast"]

        def send(self, data):
            got.extend(data[:3])
            return min(3, len(data))
        mine = self.make(recv=lambda self, size: pieces.pop() if pieces else b"", send=send)
        with netkit.Connection(mine, line_max=200000) as conn:
            self.assertEqual(conn.readline(), b"x" * 100000 + b"\n")
            self.assertEqual(conn.read(), b"last")
            conn.write(b"0123456789")
            conn.writelines([b"ab", b"", b"cdefg"])
        self.assertEqual(bytes(got), b"0123456789abcdefg")

    def test_bad_ones(self):
        with self.assertRaises(TypeError):
            netkit.Connection(object())
        with netkit.Connection(self.make(send=lambda self, data: len(data) + 1)) as conn:
            with self.assertRaises(ValueError):
                conn.write(b"x")

    def test_closed_once(self):
        closed = []
        mine = self.make(close=lambda self: closed.append("close"),
                         abort=lambda self: closed.append("abort"))
        netkit.Connection(mine).close()
        netkit.Connection(mine).abort()
        self.assertEqual(closed, ["close", "abort"])

    def test_notify_from_elsewhere(self):
        import threading
        box = []
        mine = self.make(recv=lambda self, size: box.pop() if box else None)
        with netkit.Connection(mine) as conn:
            threading.Timer(0.05, lambda: (box.append(b"late\n"), conn.notify())).start()
            self.assertEqual(conn.readline(timeout=10), b"late\n")


class Servers(unittest.TestCase):
    def test_max_clients(self):
        import threading
        listener = netkit.listen("localhost:0")
        lock, now, most = threading.Lock(), [0], [0]

        def handler(conn):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            conn.readline()
            with lock:
                now[0] -= 1
            conn.write(b"bye\n")
        server = threading.Thread(target=netkit.serve, args=(handler, listener),
                                  kwargs={"max_clients": 2})
        server.start()
        clients = [netkit.connect(listener.address) for _ in range(6)]
        for client in clients:
            client.write(b"hello\n")
        for client in clients:
            with client:
                self.assertEqual(client.readline(timeout=20), b"bye\n")
        listener.close()
        server.join(20)
        self.assertFalse(server.is_alive())
        self.assertLessEqual(most[0], 2)

    def test_it_is_a_file(self):
        import io
        import shutil
        a, b = netkit.pair()
        with a, b:
            shutil.copyfileobj(io.BytesIO(b"one\ntwo\n"), a)
            pickle.dump([1, 2, 3], a)
            a.shutdown_write()
            self.assertEqual(b.read_exact(8), b"one\ntwo\n")
            self.assertEqual(pickle.load(b), [1, 2, 3])
            text = io.TextIOWrapper(b)
            self.assertEqual(text.read(), "")
            text.detach()


if __name__ == "__main__":
    sys.exit(nkt_python.main())
