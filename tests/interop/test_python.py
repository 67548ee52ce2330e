#!/usr/bin/env python3
"""Both Python namespaces against real servers: 100,000 pipelined commands to redis-server, HTTP
from nginx.
"""

import asyncio
import os
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "python")]

import nkt_python                                                       # noqa: E402
from nkt_programs import Suite, equal                                   # noqa: E402
from test_interop import Nginx, Redis                                   # noqa: E402

nkt_python.use_netkit()

import netkit                                                           # noqa: E402
from netkit import aio                                                  # noqa: E402

COUNT = 100000
COMMANDS = b"DEL counter\r\n" + b"INCR counter\r\n" * COUNT + b"QUIT\r\n"
REQUEST = b"GET /page.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def check_replies(lines):
    equal(len(lines), COUNT + 2, "how many replies there are")
    for number, line in enumerate(lines[1:-1], 1):
        if line != b":%d\r\n" % number:
            equal(line, b":%d\r\n" % number, f"reply {number}")
    equal(lines[-1], b"+OK\r\n", "the last reply")


def redis_blocking(redis):
    with netkit.connect("localhost", redis.port, timeout=10) as conn:
        conn.timeout = 60
        # What is not read while it writes would stop redis, then us.
        writer = threading.Thread(target=conn.write, args=(COMMANDS,))
        writer.start()
        check_replies(list(conn))
        writer.join()


def redis_aio(redis):
    async def talk():
        async with aio.connect("localhost", redis.port, timeout=10) as conn:
            conn.timeout = 60
            writing = asyncio.ensure_future(conn.write(COMMANDS[:1000000]))
            lines = []

            async def read():
                async for line in conn:
                    lines.append(line)
            reading = asyncio.ensure_future(read())
            await writing
            await conn.write(COMMANDS[1000000:])
            await reading
            return lines
    check_replies(asyncio.run(talk()))


def check_answer(head, body, nginx):
    equal(head.split(b"\r\n")[0], b"HTTP/1.1 200 OK", "the status")
    equal(body == nginx.body, True, f"the body, {len(body)} of {len(nginx.body)} bytes")


def nginx_blocking(nginx):
    with netkit.connect("localhost", nginx.port, timeout=10) as conn:
        conn.write(REQUEST)
        check_answer(conn.read_until(b"\r\n\r\n"), conn.read(), nginx)


def nginx_aio(nginx):
    async def talk():
        async with aio.connect("localhost", nginx.port, timeout=10) as conn:
            await conn.write(REQUEST)
            return await conn.read_until(b"\r\n\r\n"), await conn.read()
    check_answer(*asyncio.run(talk()), nginx)


def main():
    suite = Suite("python interop")
    with tempfile.TemporaryDirectory() as folder:
        servers = []

        def start(kind):
            path = os.path.join(folder, kind.__name__)
            os.mkdir(path)
            servers.append(kind(path))

        suite.run("redis-server starts", start, Redis)
        if servers:
            suite.run("redis, pipelined, netkit", redis_blocking, servers[0])
            suite.run("redis, pipelined, netkit.aio", redis_aio, servers[0])
            servers.clear()
        suite.run("nginx starts", start, Nginx)
        if servers:
            suite.run("HTTP from nginx, netkit", nginx_blocking, servers[0])
            suite.run("HTTP from nginx, netkit.aio", nginx_aio, servers[0])
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
