"""lan_lobby.py - finds the other players on the local networks

Shows multicast on every interface, with broadcast beside it for networks that do not carry
multicast, and several programs on one port, in asyncio. Each player says its name four times a
second; who is heard is printed once. Players of lan_lobby.c are found, too.

    python lan_lobby.py alice
    python lan_lobby.py bob 10          elsewhere; for 10 seconds, 5 otherwise

Prints whom it finds, and how that one was heard first:

    bob is at 192.0.2.7:5577, by 239.255.77.77
"""

import asyncio
import contextlib
import sys

from netkit import aio

PORT, GROUP = 5577, "239.255.77.77"


async def call(sock, name):
    hello = f"lobby {name}".encode()
    while True:
        with contextlib.suppress(OSError):              # a network that is down is no matter
            await sock.send(hello, (GROUP, PORT))
        with contextlib.suppress(OSError):
            await sock.broadcast(hello, PORT)
        await asyncio.sleep(0.25)


async def hear(sock, name):
    known = {name}
    async for datagram in sock:
        word, _, other = datagram.data.decode(errors="replace").partition(" ")
        if word == "lobby" and other not in known:
            known.add(other)
            print(f"{other} is at {datagram.sender}, by {datagram.to}", flush=True)


async def main(name="somebody", seconds="5"):
    async with aio.udp(port=PORT, reuse_port=True) as sock:
        sock.join(GROUP)
        both = asyncio.gather(call(sock, name), hear(sock, name))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(both, float(seconds))


asyncio.run(main(*sys.argv[1:]))
