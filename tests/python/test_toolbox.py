#!/usr/bin/env python3
"""python -m netkit: what it prints, for people and for programs, and how it ends."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

import nkt_python

nkt_python.use_netkit()

import netkit                                                           # noqa: E402
import netkit.__main__ as toolbox                                       # noqa: E402

TOOL = [sys.executable, "-m", "netkit"]
LIMIT_S = 20


def run(*arguments, stdin=b""):
    """Exit status, standard output, standard error."""
    done = subprocess.run(TOOL + list(arguments), input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=LIMIT_S, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Server:
    """A listening toolbox."""

    def __init__(self, test, *arguments, command="listen"):
        self.process = subprocess.Popen(TOOL + ["--json", command] + list(arguments),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        preexec_fn=nkt_python.interruptible)
        test.addCleanup(self.process.kill)
        self.port = self.event("listening")["port"]

    def event(self, wanted):
        made = json.loads(self.process.stdout.readline())
        assert made["event"] == wanted, made
        return made

    def end(self):
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(LIMIT_S)
        self.process.stdout.close()
        return status


class Toolbox(unittest.TestCase):
    def test_version(self):
        status, out, _ = run("version")
        self.assertEqual(status, 0)
        self.assertRegex(out, r"^netkit %s, /.*\n$" % re.escape(netkit.__version__))
        status, out, _ = run("version", "--json")
        self.assertEqual(json.loads(out)["version"], netkit.__version__)
        self.assertTrue(os.path.exists(json.loads(out)["library"]))

    def test_impair(self):
        def back(conn):
            for line in conn:
                conn.write(line)
        with netkit.listen("localhost:0") as listener:
            thread = threading.Thread(target=netkit.serve, args=(back, listener))
            thread.start()
            proxy = Server(self, "localhost:0", "localhost:%d" % listener.port, "--profile",
                           "lte", "--latency", "0.06", "--jitter", "0", "--seed", "7",
                           command="impair")
            for seed in (7, 8):
                with netkit.connect("localhost", proxy.port, timeout=LIMIT_S) as conn:
                    began = time.monotonic()
                    conn.write(b"there and back\n" * 100)
                    conn.shutdown_write()
                    self.assertEqual(conn.read(timeout=LIMIT_S), b"there and back\n" * 100)
                    self.assertGreaterEqual(time.monotonic() - began, 0.12)
                self.assertEqual(proxy.event("connected")["seed"], seed)
                self.assertEqual(proxy.event("closed")["sent"]["sent_bytes"], 1500)
            listener.close()
            thread.join(LIMIT_S)
            with self.assertRaises(ConnectionResetError):
                with netkit.connect("localhost", proxy.port, timeout=LIMIT_S) as conn:
                    conn.read(timeout=LIMIT_S)
            self.assertIn("refused", proxy.event("failed")["message"])
            self.assertEqual(proxy.end(), 130)

    def test_impair_datagrams(self):
        with netkit.udp("127.0.0.1:0", timeout=LIMIT_S) as server:
            proxy = Server(self, "127.0.0.1:0", str(server.local), "--udp", "--duplicate", "1",
                           "--seed", "7", command="impair")
            for seed in (7, 8):
                with netkit.udp(timeout=LIMIT_S) as asker:
                    asker.connect("127.0.0.1", proxy.port)
                    asker.send(b"hello")
                    data, sender = server.recv()
                    self.assertEqual((data, server.recv()), (b"hello", (b"hello", sender)))
                    server.send(b"well", sender)
                    self.assertEqual([asker.recv().data for _ in range(2)], [b"well"] * 2)
                self.assertEqual(proxy.event("connected")["seed"], seed)
            self.assertEqual(proxy.end(), 130)

    def test_impair_usage(self):
        status, out, _ = run("impair", "--list", "--json")
        self.assertEqual([json.loads(line)["name"] for line in out.splitlines()],
                         list(netkit.sim.profiles))
        for arguments, said in (([":1"], "LISTEN and TARGET"),
                                ([":1", ":2", "--profile", "5g"], "expected one of dsl, cable"),
                                ([":1", ":2", "--loss", "2"], "loss=2.0: expected a fraction"),
                                ([":1", ":2", "--seed", "0"], "seed=0: expected 1 to")):
            status, out, err = run("impair", *arguments)
            self.assertEqual((status, out), (2, ""), err)
            self.assertIn(said, err)

    def test_resolve(self):
        status, out, _ = run("resolve", "localhost", "-4")
        self.assertEqual((status, out), (0, "127.0.0.1\n"))
        status, out, _ = run("--json", "resolve", "192.0.2.1")
        self.assertEqual(json.loads(out), {"event": "address", "address": "192.0.2.1",
                                           "version": 4, "kind": "documentation"})
        status, out, err = run("resolve", "127.1")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("127.1", err)

    def test_usage(self):
        for arguments in ([], ["dance"], ["connect"], ["connect", "localhost"],
                          ["listen", "party", ":0"], ["resolve", "a b"]):
            status, out, err = run(*arguments)
            self.assertEqual((status, out), (2, ""), arguments)
            self.assertNotIn("Traceback", err)
        status, out, _ = run("--help")
        self.assertEqual(status, 0)
        self.assertIn("examples:", out)
        self.assertIn("exit status:", out)

    def test_help_of_each_command(self):
        def help_of(*arguments):
            out = io.StringIO()
            with contextlib.redirect_stdout(out), self.assertRaises(SystemExit) as ended:
                toolbox.main([*arguments, "--help"])
            self.assertEqual(ended.exception.code, 0)
            return out.getvalue()

        whole = help_of()
        for command in ("connect", "listen", "send", "discover", "resolve", "version"):
            out = help_of(command)
            self.assertIn("usage: python -m netkit %s" % command, out)
            examples = out.partition("\nexamples:\n")[2].splitlines()
            self.assertGreater(len(examples), 0, command)
            for line in examples:
                self.assertRegex(line, r"python -m netkit (--json )?%s\b" % command)
                self.assertIn(line, whole)

    def test_refused(self):
        with netkit.listen("127.0.0.1:0") as listener:
            port = listener.port
        status, out, err = run("connect", "127.0.0.1:%d" % port)
        self.assertEqual((status, out), (1, ""))
        self.assertRegex(err, r"^netkit: .*127\.0\.0\.1:%d.*refused" % port)
        status, out, err = run("connect", "127.0.0.1:%d" % port, "--json")
        told = json.loads(out)
        self.assertEqual((status, told["event"], told["error"]),
                         (1, "failed", "ConnectionRefusedError"))
        self.assertEqual(told["attempts"][0]["address"], "127.0.0.1:%d" % port)

    def test_echo(self):
        server = Server(self, "localhost:0")
        status, out, err = run("connect", "localhost:%d" % server.port,
                               stdin="one\nzw\u00f6lf\nlast".encode())
        self.assertEqual((status, out), (0, "one\nzw\u00f6lf\nlast\n"))
        self.assertRegex(err, "^connected to .*:%d\nclosed by the other side\n$" % server.port)
        server.event("connected")
        self.assertEqual(server.event("line")["text"], "one")
        self.assertEqual(server.end(), 130)

    def test_crlf_and_idle(self):
        with netkit.listen("localhost:0") as listener:
            tool = subprocess.Popen(TOOL + ["connect", "--crlf", "--idle", "0.2", "--json",
                                            str(listener.address)],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            with listener.accept(timeout=LIMIT_S) as conn:
                tool.stdin.write(b"hello\n")
                tool.stdin.close()
                self.assertEqual(conn.readline(timeout=LIMIT_S), b"hello\r\n")
                events = [json.loads(line) for line in tool.stdout]
                self.assertEqual(tool.wait(LIMIT_S), 1)
            tool.stdout.close()
        self.assertEqual([event["event"] for event in events], ["connected", "failed"])
        self.assertEqual(events[1]["error"], "TimeoutError")

    def test_chat(self):
        server = Server(self, "chat", "localhost:0")
        with netkit.connect("localhost", server.port) as ann, \
                netkit.connect("localhost", server.port) as bob:
            server.event("connected")
            server.event("connected")
            ann.write(b"hello\n")
            self.assertEqual(bob.readline(timeout=LIMIT_S),
                             ("%s: hello\n" % ann.local).encode())
            self.assertEqual(server.event("line")["text"], "hello")
            bob.write(b"good day\n")
            self.assertEqual(ann.readline(timeout=LIMIT_S),
                             ("%s: good day\n" % bob.local).encode())
        self.assertEqual(server.end(), 130)


class Datagrams(unittest.TestCase):
    def test_listen_and_send(self):
        server = Server(self, "--udp", "127.0.0.1:0")
        status, out, err = run("send", "--udp", "127.0.0.1:%d" % server.port, "hello", "there")
        self.assertEqual((status, out, err), (0, "", "sent 1, 11 bytes\n"))
        made = server.event("datagram")
        self.assertEqual((made["text"], made["bytes"], made["to"], made["interface"]),
                         ("hello there", 11, "127.0.0.1", "lo"))
        self.assertRegex(made["sender"], r"^127\.0\.0\.1:\d+$")
        status, out, _ = run("--json", "send", "--udp", "127.0.0.1:%d" % server.port,
                             stdin=b"one\ntwo\r\n\n")
        self.assertEqual(json.loads(out), {"event": "sent", "count": 3, "bytes": 6})
        self.assertEqual(server.end(), 130)

    def test_echo(self):
        server = Server(self, "--udp", "echo", "127.0.0.1:0")
        with netkit.udp(timeout=LIMIT_S) as sock:
            sock.send(b"back", ("127.0.0.1", server.port))
            self.assertEqual(sock.recv().data, b"back")
        self.assertEqual(server.end(), 130)

    def test_group(self):
        server = Server(self, "--udp", "--join", "239.255.77.79", "--interface", "lo", ":0")
        status, _, err = run("send", "--udp", "--interface", "lo",
                             "239.255.77.79:%d" % server.port, "to all")
        self.assertEqual((status, err), (0, "sent 1, 6 bytes\n"))
        made = server.event("datagram")
        self.assertEqual((made["text"], made["to"]), ("to all", "239.255.77.79"))
        self.assertEqual(server.end(), 130)

    def test_send_over_tcp(self):
        server = Server(self, "127.0.0.1:0")
        status, _, err = run("send", "127.0.0.1:%d" % server.port, "a", "line")
        self.assertEqual((status, err), (0, "sent 1, 7 bytes\n"))
        server.event("connected")
        self.assertEqual(server.event("line")["text"], "a line")

    def test_discover(self):
        common = ["discover", "--interface", "lo", "--port", "5578"]
        other = subprocess.Popen(TOOL + common + ["--name", "alice", "--time", "8"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        try:
            status, out, _ = run("--json", *common, "--name", "bob", "--time", "4")
        finally:
            other.kill()
            other.wait()
        found = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(status, 0, out)
        self.assertEqual((found[0]["event"], found[0]["name"], found[0]["to"]),
                         ("found", "alice", "239.255.77.77"))
        self.assertEqual(found[-1], {"event": "done", "found": 1})

    def test_bad(self):
        for arguments in (["send", "--udp", "127.0.0.1:0", "x"], ["listen", "--udp", "party", ":0"],
                          ["listen", "--udp", "--join", "nobody", ":0"],
                          ["send", "--udp", "300.1.2.3:5", "x"]):
            status, out, err = run(*arguments)
            self.assertEqual((status, out), (2, ""), arguments)
            self.assertNotIn("Traceback", err)
        status, _, err = run("listen", "--udp", "--join", "192.0.2.1", ":0")
        self.assertEqual(status, 1)
        self.assertIn("multicast", err)


if __name__ == "__main__":
    sys.exit(nkt_python.main())
