"""udp_sender.py - sends one message a second to a host by name

Shows a connected datagram socket: it has one peer, and hears when nobody listens there; see
udp_receiver.py.

    python udp_sender.py localhost:5005 3           three times; for ever without

Prints "sent message 1" and so on, and "connection refused ..." where nobody listens.
"""

import itertools
import sys
import time

import netkit

numbers = range(1, int(sys.argv[2]) + 1) if len(sys.argv) > 2 else itertools.count(1)
with netkit.udp() as sock:
    sock.connect(sys.argv[1] if len(sys.argv) > 1 else "localhost:5005")
    for number in numbers:
        try:
            sock.send(f"message {number}".encode())
            print(f"sent message {number}", flush=True)
        except ConnectionRefusedError as error:         # the answer to the one before
            sys.exit(error.strerror)
        time.sleep(1)
