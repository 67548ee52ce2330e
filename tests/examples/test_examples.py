#!/usr/bin/env python3
"""Builds every example as its first lines say, runs it as a user would and reads what it prints.

    python3 tests/examples/test_examples.py

NKT_TEST_ONLY=text runs the rows whose name contains the text; NKT_TEST_ALL=1 makes the big chat
room one of 10,000. CC and CFLAGS are respected; with mingw the programs are run by wine.
"""

import http.server
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from nkt_programs import (CC, DEADLINE, MINGW, ROOT, Failure, Program, Skip, Suite, build,
                          build_folder, equal, free_port, has_ipv6, head_comment)

FOLDER = build_folder()
LINUX = sys.platform.startswith("linux") and not MINGW
LOOPS = ["epoll_loop"] if LINUX else []
if LINUX and "-m32" not in CC:          # the libraries installed are not 32-bit ones
    LOOPS += ["glib_loop", "uv_loop"]
NAMES = sorted(name[:-2] for name in os.listdir(os.path.join(ROOT, "examples"))
               if name.endswith(".c"))
NAMES = [name for name in NAMES if not (MINGW and name.endswith("_posix"))
         and (name in LOOPS or name not in ("epoll_loop", "glib_loop", "uv_loop"))]
built = {}              # name: path, or the exception that building it raised


def build_one(name):
    if name not in built:
        try:
            built[name] = build(name, FOLDER)
        except (Failure, Skip) as why:
            built[name] = why


def build_all():
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build_one, NAMES))


def program(name):
    """The path of a built example; without it, a row is a skip: that it does not build is shown."""
    build_one(name)
    if isinstance(built[name], Exception):
        raise Skip(f"{name} was not built: {str(built[name])[:80]}")
    return built[name]


def check_build(name):
    build_one(name)
    if isinstance(built[name], Exception):
        raise built[name]
    text = "\n".join(head_comment(os.path.join(ROOT, "examples", name + ".c")))
    if not text.startswith(f"{name}.c - "):
        raise Failure("the first line does not name the file")
    if name != "rot13" and re.search(r"^(.*\. )?(Shows|Prints) ", text, re.M) is None:
        raise Failure("the first lines do not say what it shows and prints")


def start(name, *args, **more):
    return Program([program(name), *args], **more)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def read_all(sock):
    data = bytearray()
    while True:
        block = sock.recv(65536)
        if not block:
            return bytes(data)
        data += block


def loopbacks():
    return ["127.0.0.1", "localhost"] + (["[::1]"] if has_ipv6() else [])


# The tour

def tour():
    run = start("tour")
    run.expect(r"^netkit \d+\.\d+\.\d+$")
    port = run.port()
    hosts = [r"127\.0\.0\.1"] + ([r"\[::1\]"] if has_ipv6() else []) + ["localhost"]
    for host in hosts:
        run.expect(rf"^   {host}:{port} +-> hello to (127\.0\.0\.1|\[::1\]):\d+ too$")
    run.expect(r"3 lines are written already, whether it is connected yet or not$")
    run.expect(r"event: connected")
    for number, word in enumerate(["one", "two", "three"], 1):
        run.expect(rf"line {number}: {word} to ")
    run.expect(r"tick after \d+ ms$")          # three ticks, and a slow machine sees some at once
    for answer in ["5 bytes", "10 bytes", "0 bytes"]:
        run.expect(rf"the thread says: {answer}$")
    run.expect(r"this system has none" if MINGW else r"over unix:/\S+: no network at all$")
    run.expect(r"100 ms: timed out")
    run.expect(r"line: half a line, and the other half$")
    run.expect(r'^   "10\.0\.0\.300:80": .+')
    run.expect(r'^   "::1:80": .+')
    run.expect(r"refused")
    run.expect(r"^everything was as it should be$")
    equal(run.finish(), 0, "the exit code")
    equal([line for line in run.lines if "!!" in line], [], "surprises")


def tour_without_ipv6():
    """In a network namespace of its own, where IPv6 is switched off and loopback is up."""
    script = ("ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && "
              "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6 && exec \"$0\"")
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    probe = subprocess.run(unshare + ["sh", "-c", script, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        raise Skip("no network namespaces here (needs root, or user namespaces, and iproute2)")
    run = Program(unshare + ["sh", "-c", script, program("tour")])
    run.expect(r"IPv6 is switched off on this machine")
    run.expect(r"^   localhost:\d+ +-> hello to 127\.0\.0\.1:\d+ too$")
    run.expect(r"^everything was as it should be$")
    equal(run.finish(), 0, "the exit code")


# Lines

def echo_and_line_client():
    server = start("echo_server_threads", ":0")
    port = server.port()
    for host in loopbacks():
        client = start("line_client", f"{host}:{port}", "hello", "", "a b")
        equal(client.finish(), 0, "the exit code")
        equal(client.lines, ["hello", "", "a b"], "the replies")
        who = server.expect(r"^(\S+:\d+) came$").group(1)
        server.expect(rf"^{re.escape(who)} left, lines: 3; end of stream")
    server.stop()


def line_client_stdin():
    server = start("echo_server_threads", "localhost:0")
    client = start("line_client", f"localhost:{server.port()}")
    lines = [f"line {i} " + "x" * (i % 100) for i in range(20000)]
    threading.Thread(target=lambda: (client.say("\n".join(lines) + "\n"),
                                     client.end_input())).start()
    client.expect(r"^line 19999 ")
    equal(client.finish(), 0, "the exit code")
    equal(client.lines, lines, "the replies")
    server.stop()


def line_client_complains():
    client = start("line_client", f"127.0.0.1:{free_port()}", "hello")
    equal(client.finish(), 1, "the exit code when refused")
    client.expect(r"127\.0\.0\.1.*refused")
    client = start("line_client", "10.0.0.300:80", "hello")
    equal(client.finish(), 1, "the exit code for a bad address")
    client.expect(r"10\.0\.0\.300|address")
    client = start("line_client")
    equal(client.finish(), 2, "the exit code without arguments")
    client.expect(r"^usage: line_client host:port")


def several_processes():
    """Killing the first process ends the others; until then they share the clients."""
    name = "echo_processes_posix"
    port = free_port()
    server = start(name, f"127.0.0.1:{port}", "3")
    pids = {server.expect(r"^(\d+) listens$").group(1) for _ in range(3)}
    equal(len(pids), 3, "the number of processes")
    served = set()
    for number in range(100):
        with connect(port) as sock:
            sock.sendall(b"hello %d\n" % number)
            pid, _, rest = sock.makefile("rb").readline().partition(b": ")
        equal(rest, b"hello %d\n" % number, "the reply")
        served.add(pid.decode())
    if not served <= pids or len(served) < 2:
        raise Failure(f"{served} served, of {pids}")
    server.stop()
    end = time.monotonic() + DEADLINE
    while not server.ended:             # its output is open as long as one of them lives
        if time.monotonic() > end:
            raise Failure("processes are left over")
        time.sleep(0.01)


def echo_many_threads():
    server = start("echo_server_threads", "127.0.0.1:0")
    port = server.port()
    socks = [connect(port) for _ in range(100)]
    for i, sock in enumerate(socks):
        sock.sendall(b"I am %d\r\n" % i)
    for i, sock in enumerate(socks):
        sock.shutdown(socket.SHUT_WR)
        equal(read_all(sock), b"I am %d\n" % i, "the reply")
        sock.close()
    server.stop()


def stopped_and_continued():
    """Ctrl-Z and fg: on Linux that ends some system calls with EINTR, handler or not."""
    for name in ["echo_server_threads", "chat_server", "epoll_loop"]:
        server = start(name, "127.0.0.1:0")
        port = server.port()
        client = start("line_client" if name != "chat_server" else "chat_client",
                       f"127.0.0.1:{port}")
        if name == "chat_server":
            client.expect(r"^\* welcome")
        else:
            client.say("before\n")
            client.expect(r"^before$")
        for _ in range(3):
            for run in (server, client):
                run.process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, run.process.pid, os.WSTOPPED | os.WNOWAIT)
                run.process.send_signal(signal.SIGCONT)
                os.waitid(os.P_PID, run.process.pid, os.WCONTINUED | os.WNOWAIT)
                time.sleep(0.05)        # it has to be in its wait again
        if name == "chat_server":
            with connect(port) as sock:
                sock.sendall(b"after\n")
                client.expect(r"^guest2: after$")
        else:
            client.say("after\n")
            client.expect(r"^after$")
        client.end_input()
        equal(client.finish(), 0, "the exit code of the client")
        server.stop()


# HTTP

class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body = bytes(range(256)) * 4096             # 1 MiB, with everything in it
    asked = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append((self.path, self.headers["Host"], self.headers["Connection"]))
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path in ("/length", "/cut"):
            self.send_header("Content-Length", str(len(self.body) + (self.path == "/cut")))
        elif self.path == "/chunks":
            self.send_header("transfer-encoding", "chunked")
        elif self.path == "/nonsense":
            self.send_header("Content-Length", "-5")
        self.end_headers()
        if self.path == "/chunks":
            for at in range(0, len(self.body), 10007):
                block = self.body[at:at + 10007]
                self.wfile.write(b"%x;name=value\r\n%s\r\n" % (len(block), block))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path != "/nonsense":
            self.wfile.write(self.body)
        self.close_connection = True


def http_get():
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = f"localhost:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "page")
        for page, code, text in [("/length", 0, None), ("/chunks", 0, None), ("/end", 0, None),
                                 ("/cut", 1, "http_get: cut off: it ended in the middle"),
                                 ("/nonsense", 1, "http_get: bad data"),
                                 ("/missing", 1, "HTTP/1.1 404 ")]:
            run = start("http_get", target, page, os.path.relpath(path) if MINGW else path)
            equal(run.finish(), code, f"the exit code for {page}")
            run.expect(re.escape(text) if text else r"^HTTP/1\.1 200 OK$")
            with open(path, "rb") as file:
                if code == 0:
                    equal(file.read(), Pages.body, f"the body of {page}")
        equal(Pages.asked[0], ("/length", target, "close"), "what the server was asked")
    server.shutdown()
    if not MINGW:
        run = start("http_get", f"127.0.0.1:{free_port()}")
        equal(run.finish(), 1, "the exit code when refused")
        run.expect("refused")


# Chat

def chat_three():
    server = start("chat_server", ":0")
    port = server.port()
    clients = []
    for number, host in enumerate((loopbacks() * 2)[:3], 1):
        client = start("chat_client", f"{host}:{port}")
        client.expect(rf"^\* welcome, guest{number}; {number} here; /nick NAME$")
        server.expect(rf"^guest{number} came from (127\.0\.0\.1|\[::1\]):\d+, {number} here$")
        clients.append(client)
    one, two, three = clients
    one.say("hello everybody\n")
    two.expect(r"^guest1: hello everybody$")
    three.expect(r"^guest1: hello everybody$")
    two.say("/nick two, too\n")
    two.expect(r"^\* a name is letters and digits$")
    two.say("/nick bob\nhere I am\n")
    server.expect(r"^guest2 is now bob$")
    for client in (one, three):
        client.expect(r"^guest2 is now bob$")
        client.expect(r"^bob: here I am$")
    two.end_input()
    equal(two.finish(), 0, "the exit code")
    server.expect(r"^bob left \(end of stream.*\), 2 here$")
    three.say("\x1b[31mred\n")
    one.expect(r"^guest3: \?\[31mred$")
    if any("hello everybody" in line for line in one.lines):
        raise Failure("who speaks hears himself")
    server.stop()
    equal(one.finish(), 1 if one.lines[-1].find("reset") >= 0 else 0, "the exit code")
    one.expect(r"end of stream|reset")


def chat_too_long():
    server = start("chat_server", "127.0.0.1:0")
    port = server.port()
    quiet, noisy = connect(port), connect(port)
    server.expect("^guest2 came")
    noisy.sendall(b"x" * 100000)
    server.expect(r"^guest2 left \(longer than the limit allows\), 1 here$")
    other = connect(port)
    other.sendall(b"still here?\r\n")
    quiet.shutdown(socket.SHUT_WR)
    data = quiet.recv(65536)
    while not data.endswith(b"guest3: still here?\n"):
        block = quiet.recv(65536)
        if not block:
            # His end of stream was read before the line came; the room goes on without him.
            server.expect(r"^guest1 left")
            break
        data += block
    server.stop()


def chat_slow_reader():
    """He who does not read loses lines and is told exactly how many; the others lose none."""
    server = start("chat_server", "127.0.0.1:0")
    port = server.port()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    slow.settimeout(DEADLINE)
    slow.connect(("127.0.0.1", port))
    server.expect("^guest1 came")
    talker, fast = connect(port), connect(port)
    server.expect("^guest3 came")
    reader = fast.makefile("rb")
    reader.readline()
    total, batch = 0, 1000
    while total < 60000:                # 60 MB: more than any system buffers for one who is slow
        talker.sendall(b"".join(b"%06d %s\n" % (total + i, b"y" * 980) for i in range(batch)))
        for _ in range(batch):          # the fast one follows, so that nothing is left out for him
            equal(reader.readline()[:15], b"guest2: %06d " % total, "what the fast one hears")
            total += 1
    talker.sendall(b"the end\n")
    equal(reader.readline(), b"guest2: the end\n", "what the fast one hears")
    total += 1

    heard, missed, buffer = 0, None, b""
    slow_file = slow.makefile("rb")
    equal(slow_file.readline(), b"* welcome, guest1; 1 here; /nick NAME\n", "the welcome")
    while missed is None:
        line = slow_file.readline()
        if line.startswith(b"* you missed "):
            missed = int(line.split()[3])
        else:
            equal(line[:15], b"guest2: %06d " % heard, "what the slow one hears")
            heard += 1
    if missed < 1000:
        raise Failure(f"the slow one missed only {missed}: nothing was shown")
    equal(heard + missed, total, "heard and missed together")
    talker.sendall(b"welcome back\n")
    equal(slow_file.readline(), b"guest2: welcome back\n", "what he hears after that")
    server.stop()


def chat_crowd():
    count = 10000 if os.environ.get("NKT_TEST_ALL") == "1" else 500
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = min(count, hard - 100)
    server = start("chat_server", "127.0.0.1:0")
    port = server.port()
    socks = []
    for number in range(count):
        socks.append(connect(port))
    server.expect(rf"^guest{count} came from .*, {count} here$")
    for number in (0, count // 2, count - 1):
        socks[number].sendall(b"hello from %d\n" % number)
    for number, sock in enumerate(socks):
        want = 3 - (number in (0, count // 2, count - 1))
        data = b""
        while data.count(b": hello from ") < want:
            block = sock.recv(65536)
            if not block:
                raise Failure(f"client {number} was sent home")
            data += block
        equal(data.count(b"\n"), want + 1, f"lines at client {number}")
    for sock in socks:
        sock.close()
    server.expect(r", 0 here$")
    server.stop()


def chat_client_irc():
    """Against an IRC server made of a few lines of Python; the real one is in tests/interop."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = start("chat_client", f"127.0.0.1:{listener.getsockname()[1]}", "--irc", "ann", "#room")
    client.say("too early\n")
    listener.settimeout(DEADLINE)
    sock, _ = listener.accept()
    sock.settimeout(DEADLINE)
    lines = sock.makefile("rb")
    equal(lines.readline(), b"NICK ann\r\n", "the first line")
    equal(lines.readline(), b"USER ann 0 * :ann\r\n", "the second line")
    sock.sendall(b"PING :abc def\r\n")
    equal(lines.readline(), b"PONG :abc def\r\n", "the answer to PING")
    sock.sendall(b":srv 001 ann :Welcome\r\n")
    equal(lines.readline(), b"JOIN #room\r\n", "after the welcome")
    sock.sendall(b":ann!a@h JOIN :#room\r\n:srv 353 ann = #room :ann bob\r\n")
    sock.sendall(b":srv 366 ann #room :End of NAMES list\r\n")
    client.expect(r"^\* joined #room$")
    equal(lines.readline(), b"PRIVMSG #room :too early\r\n", "what was typed before joining")
    sock.sendall(b":bob!b@h PRIVMSG #room :hi: \x07ann\r\n")
    client.expect(r"^bob: hi: \?ann$")
    client.end_input()
    equal(lines.readline(), b"QUIT\r\n", "the farewell")
    sock.shutdown(socket.SHUT_RDWR)
    equal(client.finish(), 0, "the exit code")

    client = start("chat_client", f"127.0.0.1:{free_port()}")
    equal(client.finish(), 1, "the exit code when refused")
    client.expect("refused")
    client = start("chat_client", "no port")
    equal(client.finish(), 1, "the exit code for bad text")


# A game

def game_loop():
    server = start("echo_server_threads", "127.0.0.1:0")
    game = start("game_loop", f"127.0.0.1:{server.port()}")
    for x in (10, 20, 140):
        game.expect(rf"^frame \d+: player at {x}$")
    game.expect(r"^125 frames, \d+ late; the network took [\d.]+ ms of a frame, [\d.]+ at most$")
    equal(game.finish(), 0, "the exit code")
    server.stop()
    game = start("game_loop", f"127.0.0.1:{free_port()}")
    equal(game.finish(), 1, "the exit code when refused")
    game.expect("refused")


def connect_report():
    server = start("echo_server_threads", "127.0.0.1:0")
    port, dead = server.port(), free_port()
    run = start("connect_report", f"127.0.0.1:{port}", f"localhost:{dead}", "10.0.0.300:80")
    run.expect(rf"^  127\.0\.0\.1:{port} +\d+ to \d+ ms  success$")
    run.expect(rf"^  connected to 127\.0\.0\.1:{port}$")
    run.expect(rf"^  127\.0\.0\.1:{dead} +\d+ to \d+ ms  connection refused")
    run.expect(rf"^  cannot connect to localhost:{dead} in \d+ ms: connection refused")
    run.expect("expected a number from 0 to 255")
    equal(run.finish(), 1, "the exit code, one having failed")
    server.stop()


# Messages

def messages():
    server = start("message_receiver", ":0")
    port = server.port()
    for host in loopbacks():
        client = start("message_sender", f"{host}:{port}", "hi", "", "two\nlines")
        equal(client.finish(), 0, "the exit code")
        equal(client.lines, ["thank you"] * 3, "the answers")
        server.expect(r"^2 bytes: hi$")
        server.expect(r"^0 bytes: $")
        server.expect(r"^9 bytes: two$")
        server.expect(r"^lines$")
        server.expect(r"^end of stream")
    with connect(port) as sock:             # on the wire
        for byte in struct.pack(">I", 5) + b"a\0b\nc":
            sock.sendall(bytes([byte]))
        server.expect(r"^5 bytes: a")
        equal(sock.recv(100), b"\0\0\0\x09thank you", "the answer on the wire")
        sock.sendall(struct.pack(">I", 5) + b"cut")
    server.expect(r"^cut off: it ended in the middle, or did not fit$")
    with connect(port) as sock:
        sock.sendall(struct.pack(">I", 65537))
        server.expect(r"^longer than the limit allows$")
    size = 30000 if MINGW else 65536        # Windows takes no longer arguments
    client = start("message_sender", f"127.0.0.1:{port}", "x" * size)
    equal(client.finish(), 0, "the exit code for the longest message")
    server.expect(rf"^{size} bytes: x{{1000}}")
    server.stop()


# The module

def rot13():
    listening = start("rot13_chat", "--listen", "127.0.0.1:0")
    calling = start("rot13_chat", f"127.0.0.1:{listening.port()}")
    calling.say("Hello, World 123!\n")
    listening.expect(r"^Hello, World 123!$")
    listening.say("the quick brown fox\n")
    calling.expect(r"^the quick brown fox$")
    for run in (calling, listening):
        run.end_input()
    for run in (calling, listening):
        run.expect(r"^end of stream")
        equal(run.finish(), 0, "the exit code")


# Datagrams

def udp_pair():
    receiver = start("udp_receiver", ":0")
    port = int(receiver.expect(r"^on port (\d+)$").group(1))
    for host in loopbacks():
        sender = start("udp_sender", f"{host}:{port}", "2")
        for number in (1, 2):
            sender.expect(rf"^sent message {number}$")
            receiver.expect(rf"^message {number} from (127\.0\.0\.1|\[::1\]):\d+$")
        equal(sender.finish(), 0, "the exit code")
    receiver.stop()
    if MINGW:
        return                          # Wine does not tell that nobody listens
    sender = start("udp_sender", f"127.0.0.1:{port}", "2")
    sender.expect(r"^connection refused: nothing listens there$")
    equal(sender.finish(), 1, "the exit code")


def xor_talk():
    listening = start("xor_talk", "--listen", "127.0.0.1:0")
    port = listening.port()
    equal(start("xor_talk", f"127.0.0.1:{port}", "hello").finish(), 0, "the exit code")
    listening.expect(r"^hello$")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:      # on the wire
        sock.sendto(b"2?665", ("127.0.0.1", port))
        listening.expect(r"^hello$")
    listening.stop()


def train_game():
    """The same journey each time, on every machine."""
    journey = start("train_game")
    journey.expect(r"^train, seed 7: 109091 states sent in an hour, 5.9 % lost, 0 came too late$")
    journey.expect(r"^the picture froze 69 times for over half a second, at worst for 3.2 s$")
    equal(journey.finish(), 0, "the exit code")
    other = start("train_game", "lte", "3")
    other.expect(r"^lte, seed 3: 109091 states sent in an hour, 0.1 % lost, 0 came too late$")
    equal(other.finish(), 0, "the exit code")
    unknown = start("train_game", "5g")
    unknown.expect(r"^5g: expected one of dsl, cable, .*train$")
    equal(unknown.finish(), 1, "the exit code")


def game_server():
    """Each of 64 players gets each of the 60 states of a second, in order."""
    server = start("game_server", "127.0.0.1:0", "2")
    port = server.port()
    players = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(65)]
    for player in players:
        player.connect(("127.0.0.1", port))
        player.settimeout(DEADLINE)
        player.send(b"nonsense")        # no player yet
        player.send(b"join")
    players[0].send(b"move")
    server.expect(r"^60 frames, 64 players, \d+ states sent$")
    server.expect(r"^60 frames, 64 players, 3840 states sent$")
    equal(server.finish(), 0, "the exit code")
    heard = 0
    for player in players:
        frames = []
        player.setblocking(False)
        try:
            while True:
                state = player.recv(2048)
                frames.append(struct.unpack(">I", state[:4])[0])
                places = struct.unpack(f">{(len(state) - 4) // 4}I", state[4:])
        except BlockingIOError:
            pass
        player.close()
        if not frames:
            continue                    # the 65th, whichever that was
        heard += 1
        equal(frames, list(range(frames[0], 121)), "the frames of a player")
        equal((len(places), sum(places)), (64, 1), "players and moves of the last state")
    equal(heard, 64, "how many were players")


def lan_lobby():
    """In a network of its own, where there is nothing but loopback."""
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    script = 'ip link set lo up; "$0" ann 3 & "$0" bob 3 & "$0" cy 3; wait'
    probe = subprocess.run(unshare + ["ip", "link", "set", "lo", "up"], capture_output=True,
                           check=False)
    if probe.returncode != 0:
        raise Skip("no network namespaces here (needs root, or user namespaces, and iproute2)")
    run = Program(unshare + ["sh", "-c", script, program("lan_lobby")])
    equal(run.finish(), 0, "the exit code")
    found = sorted(line.split(" is at ")[0] for line in run.lines)
    equal(found, ["ann", "ann", "bob", "bob", "cy", "cy"], f"who was found ({run.lines})")


def rot13_on_the_wire():
    listening = start("rot13_chat", "--listen", "127.0.0.1:0")
    text = "".join(chr(c) for c in range(32, 127))
    turned = text.translate(str.maketrans(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "nopqrstuvwxyzabcdefghijklmNOPQRSTUVWXYZABCDEFGHIJKLM"))
    with connect(listening.port()) as sock:
        sock.sendall(turned.encode() + b"\n")
        listening.expect(rf"^{re.escape(text)}$")
        count = 80000                   # 8 MB, more than the system takes while nobody reads
        lines = [f"{text} {i}" for i in range(count)]
        threading.Thread(target=lambda: (listening.say("\n".join(lines) + "\n"),
                                         listening.end_input())).start()
        time.sleep(0.5)
        got = read_all(sock).decode().splitlines()
        equal(len(got), count, "how many lines came")
        for number, line in enumerate(got):
            equal(line, f"{turned} {number}", f"line {number}")
    equal(listening.finish(), 0, "the exit code")


# Other people's loops

def inside_loop(name):
    server = start(name, ":0")
    port = server.port()
    for host in loopbacks():
        client = start("line_client", f"{host}:{port}", "hello", "again")
        equal(client.finish(), 0, "the exit code")
        equal(client.lines, ["hello", "again"], "the replies")
    server.expect(rf"^tick: {2 * len(loopbacks())} lines so far$")
    socks = [connect(port) for _ in range(50)]
    for round_number in range(20):
        for sock in socks:
            sock.sendall(b"round %d\n" % round_number)
        for sock in socks:
            equal(sock.recv(100), b"round %d\n" % round_number, "the reply")
    for sock in socks:
        sock.close()
    server.stop()


def last_words(name):
    """Answers that are still queued when the client's end of stream comes are sent before close.

    Over a Unix-domain socket, whose buffer does not grow: 0.2 MB are in the system, the rest of
    what nobody reads is in netkit's queue.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "sock")
        server = start(name, f"unix:{path}")
        server.expect(r"listening on unix:")
        data = b"".join(b"%d %s\n" % (i, b"z" * 90) for i in range(9000))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(path)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            server.expect(r"^tick: 9000 lines so far$")
            equal(read_all(sock), data, "the replies")
        server.stop()


def idle_costs_nothing(name):
    """Inside a loop, netkit must not make it turn when there is nothing to do."""
    server = start(name, "127.0.0.1:0")
    with connect(server.port()) as sock:
        sock.sendall(b"hello\n")
        equal(sock.recv(100), b"hello\n", "the reply")
        used = []
        for _ in range(2):
            server.expect("^tick")
            with open(f"/proc/{server.process.pid}/schedstat", encoding="ascii") as file:
                used.append(int(file.read().split()[0]))
    server.stop()
    spent_ms = (used[1] - used[0]) / 1e6
    if spent_ms > 150:                  # in a second, which a loop that spins would use up
        raise Failure(f"it used {spent_ms} ms of processor time doing nothing")


def main():
    suite = Suite("examples")
    if suite.only == "":
        build_all()
    for name in NAMES:
        suite.run(f"{name} builds", check_build, name)
    suite.run("tour", tour)
    if LINUX:
        suite.run("tour without IPv6", tour_without_ipv6)
    suite.run("echo_server_threads and line_client", echo_and_line_client)
    suite.run("line_client sends stdin", line_client_stdin)
    suite.run("line_client says what is wrong", line_client_complains)
    suite.run("echo_server_threads with 100 clients", echo_many_threads)
    if LINUX:
        suite.run("echo_processes_posix", several_processes)
    suite.run("http_get", http_get)
    suite.run("chat with three people", chat_three)
    suite.run("chat: a line that is too long", chat_too_long)
    suite.run("chat: a slow reader", chat_slow_reader)
    suite.run("chat: a crowd", chat_crowd)
    suite.run("chat_client speaks IRC", chat_client_irc)
    suite.run("game_loop", game_loop)
    suite.run("connect_report", connect_report)
    suite.run("message_sender and message_receiver", messages)
    suite.run("rot13_chat", rot13)
    suite.run("rot13_chat on the wire", rot13_on_the_wire)
    suite.run("udp_sender and udp_receiver", udp_pair)
    suite.run("xor_talk", xor_talk)
    suite.run("game_server", game_server)
    suite.run("train_game", train_game)
    if LINUX:
        suite.run("lan_lobby", lan_lobby)
    for name in LOOPS:
        suite.run(f"{name} serves", inside_loop, name)
        suite.run(f"{name} sends the rest", last_words, name)
        suite.run(f"{name} sleeps", idle_costs_nothing, name)
    if LINUX:
        suite.run("stopped and continued", stopped_and_continued)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
