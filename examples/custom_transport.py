"""A transport of one's own: whatever has recv and send becomes a connection.

    python3 examples/custom_transport.py

prints "uryyb, jbeyq" and "hello, world": a connection that writes in rot13 on top of another one.
Then it does the same with netkit.aio, where the methods may be coroutines. Reading lines, messages,
time-outs and the rest work on it as on any other. In a checkout: make shared, and
PYTHONPATH=python.
"""

import asyncio

import netkit
from netkit import aio

ROT13 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                        b"NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm")


class Rot13:
    def __init__(self, below):
        self.below = below

    def recv(self, size):
        return self.below.read1(size).translate(ROT13)      # b"" at the end

    def send(self, data):
        return self.below.write(data.translate(ROT13))      # how many bytes were taken

    def shutdown_write(self):
        self.below.shutdown_write()

    def close(self):
        self.below.close()


class AioRot13(Rot13):
    async def recv(self, size):
        return (await self.below.read1(size)).translate(ROT13)

    async def send(self, data):
        return await self.below.write(data.translate(ROT13))

    async def shutdown_write(self):
        await self.below.shutdown_write()


def main():
    near, far = netkit.pair()
    with netkit.Connection(Rot13(near)) as secret, far:
        secret.write(b"hello, world\n")
        line = far.readline()
        print(line.decode().rstrip())
        far.write(line)
        print(next(secret.lines(timeout=5)))


async def aio_main():
    near, far = aio.pair()
    async with aio.Connection(AioRot13(near)) as secret, far:
        await secret.write(b"hello, world\n")
        line = await far.readline(timeout=5)
        print(line.decode().rstrip())
        await far.write(line)
        async for text in secret.lines(timeout=5):
            print(text)
            break


if __name__ == "__main__":
    main()
    asyncio.run(aio_main())
