"""udp_receiver.py - prints the datagrams that come to a port

Shows receiving on IPv6 and IPv4 at once; see udp_sender.py.

    python udp_receiver.py :5005

Prints "listening on [::]:5005" and then each message and its sender.
"""

import sys

import netkit

with netkit.udp(sys.argv[1] if len(sys.argv) > 1 else ":5005") as sock:
    print(f"listening on {sock.local}", flush=True)
    for data, sender in sock:
        print(f"{data.decode(errors='replace')} from {sender}", flush=True)
