#!/usr/bin/env python3
"""The Python examples, as their first lines say."""

import os
import re
import signal
import subprocess
import sys
import threading
import unittest

import nkt_python

nkt_python.use_netkit()

import netkit                                                           # noqa: E402

LIMIT_S = 30


def example(name):
    return [sys.executable, os.path.join(nkt_python.ROOT, "examples", name)]


def run(name, *arguments):
    done = subprocess.run(example(name) + list(arguments), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
                          check=False)
    return done.returncode, done.stdout.decode()


class Readme(unittest.TestCase):
    def test_its_programs_run(self):
        with open(os.path.join(nkt_python.ROOT, "README.md"), encoding="utf-8") as file:
            programs = re.findall(r"^```python\n(.*?)^```$", file.read(), re.M | re.S)
        whole = [program for program in programs if "netkit" in program and "talk" in program]
        self.assertGreaterEqual(len(whole), 2)
        for program in whole:
            out, _ = nkt_python.python(program)
            self.assertEqual(out, "b'you said hello\\n'\n", program)


class Examples(unittest.TestCase):
    def test_custom_transport(self):
        self.assertEqual(run("custom_transport.py"), (0, "uryyb, jbeyq\nhello, world\n" * 2))

    def test_line_client(self):
        def answer(conn):
            for line in conn.lines():
                conn.write(b"+" + line.upper().encode() + b"\r\n")
        with netkit.listen("localhost:0") as listener:
            server = threading.Thread(target=netkit.serve, args=(answer, listener))
            server.start()
            target = "localhost:%d" % listener.port
            self.assertEqual(run("line_client.py", target, "ping", "pong"),
                             (0, "+PING\n+PONG\n"))
            listener.close()
            server.join(LIMIT_S)
        status, said = run("line_client.py", target)
        self.assertEqual(status, 1)
        self.assertRegex(said, r"^cannot connect: .*refused")

    def test_datagrams(self):
        receiver = subprocess.Popen(example("udp_receiver.py") + [":0"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.addCleanup(receiver.stdout.close)
        self.addCleanup(receiver.wait)
        self.addCleanup(receiver.kill)
        first = receiver.stdout.readline().decode()
        port = re.fullmatch(r"listening on \[::\]:(\d+)\n", first).group(1)
        for host in ("127.0.0.1", "[::1]", "localhost"):
            self.assertEqual(run("udp_sender.py", "%s:%s" % (host, port), "2"),
                             (0, "sent message 1\nsent message 2\n"))
            for number in (1, 2):
                self.assertRegex(receiver.stdout.readline().decode(),
                                 r"^message %d from (127\.0\.0\.1|\[::1\]):\d+\n$" % number)
        receiver.kill()
        receiver.wait()
        self.assertEqual(run("udp_sender.py", "127.0.0.1:" + port, "2"),
                         (1, "sent message 1\nconnection refused: nothing listens there\n"))

    def test_train_game(self):
        # The seed says which states are lost.
        lost = []
        for _ in range(2):
            status, said = run("train_game.py", "2", "edge", "1")
            lines = said.splitlines()
            self.assertEqual((status, len(lines)), (0, 3), said)
            for number, line in enumerate(lines[:2], 1):
                self.assertRegex(line, r"^second %d: \d+ of 20 states in time, \d+ late, "
                                       r"\d+ lost, 0 twice; nothing for \d+ ms$" % number)
            # A way of 420 ms is too long for all of them.
            self.assertTrue(lines[0].startswith("second 1: 0 of 20 states in time"), said)
            lost.append(re.sub("nothing for.*|; again.*", "", said))
            self.assertRegex(lines[2], r"^40 states sent, \d+ lost; again: "
                                       r"python train_game\.py 2 edge 1$")
        self.assertEqual(lost[0], lost[1])
        self.assertNotIn("40 states sent, 0 lost", lost[0])

    def test_bad_network_test(self):
        status, said = run("bad_network_test.py")
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"Ran 1 test in .*\n\nOK\n$")

    def test_chat_server(self):
        server = subprocess.Popen(example("chat_server.py") + ["localhost:0"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  preexec_fn=nkt_python.interruptible)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        first = server.stdout.readline().decode()
        port = int(re.fullmatch(r"listening on .*:(\d+)\n", first).group(1))
        with netkit.connect("localhost", port) as ann:
            ann.timeout = LIMIT_S
            self.assertIn(b"is here", server.stdout.readline())
            with netkit.connect("localhost", port) as bob:
                bob.timeout = LIMIT_S
                self.assertEqual(ann.readline(), ("%s is here\n" % bob.local).encode())
                ann.write(b"hello\n")
                self.assertEqual(bob.readline(), ("%s: hello\n" % ann.local).encode())
                name = str(bob.local)
            self.assertEqual(ann.readline(), ("%s has left\n" % name).encode())
        server.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(LIMIT_S), 0)


if __name__ == "__main__":
    sys.exit(nkt_python.main())
