"""A chat for anybody with a line-wise client: what one says, all others hear.

    python3 examples/chat_server.py :7777
    python3 -m netkit connect localhost:7777        (several times)

prints "listening on [::]:7777" and who comes and goes. A thread a client; who does not listen for
five seconds is put out. In a checkout: make shared, and PYTHONPATH=python.
"""

import sys
import threading

import netkit

members = set()
lock = threading.Lock()


def tell(text, but=None):
    with lock:
        others = [member for member in members if member is not but]
    for member in others:
        try:
            member.write(text.encode() + b"\n", timeout=5)
        except OSError:
            member.interrupt()          # its own thread then ends with an error, and leaves


def talk(conn):
    name = conn.peer_name
    with lock:
        members.add(conn)
    print(name, "is here", flush=True)
    tell(f"{name} is here", but=conn)
    try:
        for line in conn.lines(errors="replace"):
            tell(f"{name}: {line}", but=conn)
    finally:
        with lock:
            members.discard(conn)
        print(name, "has left", flush=True)
        tell(f"{name} has left")


def main(target=":7777"):
    with netkit.listen(target) as listener:
        print("listening on", listener.name, flush=True)
        try:
            netkit.serve(talk, listener, max_clients=200)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
