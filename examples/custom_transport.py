"""A transport of one's own: whatever has recv and send becomes a connection.

    python3 examples/custom_transport.py

prints "uryyb, jbeyq" and "hello, world": a connection that writes in rot13 on top of another one.
Reading lines, messages, time-outs and the rest work on it as on any other. In a checkout: make
shared, and PYTHONPATH=python.
"""

import netkit

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


def main():
    near, far = netkit.pair()
    with netkit.Connection(Rot13(near)) as secret, far:
        secret.write(b"hello, world\n")
        line = far.readline()
        print(line.decode().rstrip())
        far.write(line)
        print(next(secret.lines(timeout=5)))


if __name__ == "__main__":
    main()
