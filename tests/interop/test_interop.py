#!/usr/bin/env python3
"""The examples against real servers: redis-server, nginx and ngircd, started here on free ports.

    python3 tests/interop/test_interop.py

A server that is not installed is a skip which names its package. CC and CFLAGS are respected.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from nkt_programs import (DEADLINE, MINGW, Failure, Program, Skip, Suite, build, build_folder,
                          equal, free_port, has_ipv6, need)

FOLDER = build_folder()
built = {}


def example(name):
    if name not in built:
        built[name] = build(name, FOLDER)
    return built[name]


def serve(make_command, ready):
    """Starts a server and waits until it answers; a port that was taken meanwhile is not used."""
    for _ in range(5):
        port = free_port()
        server = Program(make_command(port), runner=[], stdin=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE
        while server.process.poll() is None and time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
                    if ready(sock):
                        return server, port
            except OSError:
                pass
            time.sleep(0.02)
        server.process.kill()
    raise Failure(f"{server.name} did not start: {server.lines[-10:]}")


def hosts():
    return ["127.0.0.1", "localhost"] + (["[::1]"] if has_ipv6() else [])


# redis

class Redis:
    def __init__(self, folder):
        program = need("redis-server", "redis-server")
        self.path = os.path.join(folder, "redis.sock")

        def command(port):
            return [program, "--port", str(port), "--save", "", "--appendonly", "no", "--dir",
                    folder, "--unixsocket", self.path,
                    "--bind", "127.0.0.1"] + (["::1"] if has_ipv6() else [])

        def ready(sock):
            sock.sendall(b"PING\r\n")
            return sock.recv(7) == b"+PONG\r\n"

        self.server, self.port = serve(command, ready)


def redis_by_hand(redis):
    targets = [f"{host}:{redis.port}" for host in hosts()]
    if not MINGW:
        targets.append(f"unix:{redis.path}")
    for target in targets:
        client = Program([example("line_client"), target, "PING", "SET greeting hello",
                          "STRLEN greeting", "NONSENSE"])
        equal(client.finish(), 0, f"the exit code at {target}")
        equal(client.lines[:3], ["+PONG", "+OK", ":5"], f"the replies at {target}")
        equal(client.lines[3].startswith("-ERR unknown command"), True, "an error reply")


def redis_pipeline(redis, folder):
    count = 100000
    path = os.path.join(folder, "commands.txt")
    with open(path, "w", encoding="ascii") as file:
        file.write("DEL counter\n" + "INCR counter\n" * count + "QUIT\n")
    with open(path, "rb") as file:
        client = Program([example("line_client"), f"localhost:{redis.port}"], stdin=file)
        equal(client.finish(), 0, "the exit code")
    equal(len(client.lines), count + 2, "how many replies there are")
    want = [client.lines[0]] + [f":{i}" for i in range(1, count + 1)] + ["+OK"]
    for number, (got, wanted) in enumerate(zip(client.lines, want)):
        equal(got, wanted, f"reply {number}")


def redis_big_replies(redis, folder):
    """Replies of many megabytes while commands are still being written: neither side may stop."""
    count, size = 2000, 20000
    path = os.path.join(folder, "big.txt")
    with open(path, "w", encoding="ascii") as file:
        for i in range(count):
            file.write(f"ECHO {i:06d}{'x' * size}\n")
        file.write("QUIT\n")
    with open(path, "rb") as file:
        client = Program([example("line_client"), f"127.0.0.1:{redis.port}"], stdin=file)
        equal(client.finish(), 0, "the exit code")
    want = []
    for i in range(count):
        want += [f"${size + 6}", f"{i:06d}" + "x" * size]
    equal(client.lines, want + ["+OK"], "the replies")


# nginx

class Nginx:
    def __init__(self, folder):
        program = need("nginx", "nginx-light")
        self.body = os.urandom(1 << 20)
        os.makedirs(os.path.join(folder, "logs"))
        with open(os.path.join(folder, "page.bin"), "wb") as file:
            file.write(self.body)
        with open(os.path.join(folder, "index.html"), "w", encoding="ascii") as file:
            file.write("<h1>hello</h1>\n")

        def command(port):
            listens = f"listen 127.0.0.1:{port};" + (f" listen [::1]:{port};" if has_ipv6() else "")
            temporary = "".join(f" {kind}_temp_path {folder}/{kind};" for kind in
                                ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            user = "user root;" if os.geteuid() == 0 else ""
            text = (f"daemon off; master_process off; pid {folder}/nginx.pid; {user}\n"
                    f"error_log {folder}/error.log; events {{}}\n"
                    f"http {{ access_log {folder}/access.log;{temporary} gzip on;\n"
                    f"server {{ {listens} root {folder};\n"
                    f"location /squeezed {{ ssi on; ssi_types *; alias {folder}/page.bin; }} "
                    f"}} }}\n")
            path = os.path.join(folder, f"nginx-{port}.conf")
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
            return [program, "-p", folder, "-c", path, "-e", f"{folder}/error.log"]

        def ready(sock):
            sock.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return sock.recv(8) == b"HTTP/1.1"

        self.server, self.port = serve(command, ready)


def nginx_get(nginx, folder, host):
    path = os.path.join(folder, "got.bin")
    client = Program([example("http_get"), f"{host}:{nginx.port}", "/page.bin",
                      "got.bin" if MINGW else path], cwd=folder)
    equal(client.finish(), 0, "the exit code")
    client.expect(r"^HTTP/1\.1 200 OK$")
    client.expect(r"^Content-Length: 1048576$")
    with open(path, "rb") as file:
        equal(file.read(), nginx.body, "the body")


def nginx_chunks(nginx, folder):
    """With server-side includes nginx does not know the length, and sends chunks."""
    path = os.path.join(folder, "got.bin")
    client = Program([example("http_get"), f"localhost:{nginx.port}", "/squeezed",
                      "got.bin" if MINGW else path], cwd=folder)
    equal(client.finish(), 0, "the exit code")
    client.expect(r"^Transfer-Encoding: chunked$")
    with open(path, "rb") as file:
        equal(file.read(), nginx.body, "the body")


def nginx_stdout_and_missing(nginx):
    client = Program([example("http_get"), f"localhost:{nginx.port}"])
    equal(client.finish(), 0, "the exit code")
    client.expect(r"^<h1>hello</h1>$")
    client = Program([example("http_get"), f"localhost:{nginx.port}", "/missing"])
    equal(client.finish(), 1, "the exit code of a page that is not there")
    client.expect(r"^HTTP/1\.1 404 Not Found$")


# ngircd

class Ngircd:
    def __init__(self, folder):
        program = need("ngircd", "ngircd")

        def command(port):
            path = os.path.join(folder, f"ngircd-{port}.conf")
            listen = "127.0.0.1" + (",::1" if has_ipv6() else "")
            with open(path, "w", encoding="ascii") as file:
                file.write(f"[Global]\nName = irc.example.test\nInfo = a test\n"
                           f"Listen = {listen}\nPorts = {port}\nMotdPhrase = hello\n"
                           f"AdminEMail = nobody@example.test\n"
                           f"[Limits]\nMaxConnectionsIP = 0\nPingTimeout = 120\n"
                           f"[Options]\nPAM = no\nDNS = no\nIdent = no\n")
            os.chmod(path, 0o644)
            return [program, "-n", "-f", path]

        def ready(sock):
            sock.sendall(b"PING :x\r\n")
            return len(sock.recv(1)) == 1

        self.server, self.port = serve(command, ready)


class Irc:
    """A second client, made of a plain socket, so that two programs have to agree."""

    def __init__(self, port, nick, channel):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self.file = self.sock.makefile("rb")
        self.send(f"NICK {nick}")
        self.send(f"USER {nick} 0 * :{nick}")
        self.until(b" 001 ")
        self.send(f"JOIN {channel}")
        self.until(b" 366 ")

    def send(self, text):
        self.sock.sendall(text.encode() + b"\r\n")

    def until(self, part):
        while True:
            line = self.file.readline()
            if not line:
                raise Failure(f"the server hung up before {part!r}")
            if line.startswith(b"PING"):
                self.sock.sendall(b"PONG" + line[4:])
            if part in line:
                return line


def ngircd_talk(ngircd, host):
    other = Irc(ngircd.port, "bob", "#netkit")
    client = Program([example("chat_client"), f"{host}:{ngircd.port}", "--irc", "ann", "#netkit"])
    client.say("typed before joining\n")
    client.expect(r"^\* joined #netkit$")
    line = other.until(b"PRIVMSG")
    equal(line.split(b"!")[0], b":ann", "who said it")
    equal(line.endswith(b" PRIVMSG #netkit :typed before joining\r\n"), True, f"what came: {line}")
    other.send("PRIVMSG #netkit :hello ann: how are you?")
    client.expect(r"^bob: hello ann: how are you\?$")
    client.say("fine :-)\n")
    equal(other.until(b"PRIVMSG").endswith(b" PRIVMSG #netkit :fine :-)\r\n"), True, "the answer")
    client.end_input()
    other.until(b"QUIT")
    if client.finish() not in (0, 1):       # some versions of the server reset after QUIT
        raise Failure("the client did not end by itself")
    other.send("QUIT")
    other.sock.close()


def with_server(suite, kind, folder, rows):
    """Starts a server for its rows; when it cannot be started, each of them says why."""
    problem, server = None, None
    if any(suite.only in name for name, _ in rows):
        try:
            os.makedirs(folder)
            os.chmod(folder, 0o755)
            server = kind(folder)
        except (Skip, Failure) as why:
            problem = why
    for name, function in rows:
        def row(function=function):
            if problem is not None:
                raise problem
            function(server)
        suite.run(name, row)
    if server is not None:
        suite.run(f"{kind.__name__.lower()} lived to the end", server.server.stop)


def main():
    suite = Suite("interop")
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        folder = os.path.join(top, "redis")
        with_server(suite, Redis, folder, [
            ("redis: commands one by one", redis_by_hand),
            ("redis: 100,000 commands at once", lambda it: redis_pipeline(it, top)),
            ("redis: big replies", lambda it: redis_big_replies(it, top)),
        ])
        folder = os.path.join(top, "nginx")
        with_server(suite, Nginx, folder, [
            (f"nginx: 1 MiB from {host}", lambda it, host=host: nginx_get(it, top, host))
            for host in hosts()
        ] + [
            ("nginx: chunks", lambda it: nginx_chunks(it, top)),
            ("nginx: to stdout, and a missing page", nginx_stdout_and_missing),
        ])
        folder = os.path.join(top, "ngircd")
        with_server(suite, Ngircd, folder, [
            (f"ngircd: a talk through {host}", lambda it, host=host: ngircd_talk(it, host))
            for host in hosts()
        ])
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
