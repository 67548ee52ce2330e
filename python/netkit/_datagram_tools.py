"""The toolbox's commands of datagrams: listen --udp, send, discover."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time

import netkit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, Set

    from .__main__ import Output

GROUP, PORT = "239.255.77.77", 5577         # as examples/lan_lobby.py and lan_lobby.c
CALL_S = 0.25


def _shown(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _facts(datagram: netkit.Datagram) -> Dict[str, Any]:
    return {"sender": str(datagram.sender), "to": str(datagram.to or ""),
            "interface": datagram.interface, "text": _shown(datagram.data),
            "bytes": len(datagram.data)}


def listen(options: argparse.Namespace, output: Output) -> int:
    """Prints the datagrams that come, until Ctrl-C, and answers if it is to."""
    echo, address = options.what == "echo", options.address
    if not echo:
        if address is not None:
            raise ValueError("%r is not echo, which is all that datagrams know" % options.what)
        address = options.what
    with netkit.udp(address or ":7777", reuse_port=bool(options.join)) as sock:
        for group in options.join or ():
            sock.join(group, options.interface)
        output.note("listening on %s" % sock.local, "listening", address=str(sock.local),
                    port=sock.port)
        for datagram in sock:
            output.say("%s: %s" % (datagram.sender, _shown(datagram.data)), "datagram",
                       **_facts(datagram))
            if echo:
                try:
                    sock.send(datagram.data, datagram.sender)
                except OSError as error:
                    output.note("netkit: %s" % error.strerror, "failed", message=error.strerror)
    return 0


def _texts(options: argparse.Namespace) -> Iterator[bytes]:
    if options.text:
        yield " ".join(options.text).encode("utf-8", "surrogateescape")
        return
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n")


def send(options: argparse.Namespace, output: Output) -> int:
    """Sends a text, or each line of standard input: as a datagram, or as a line over TCP."""
    sent = size = 0
    if options.udp:
        with netkit.udp(interface=options.interface) as sock:
            try:
                to = netkit.Address(options.address)
            except netkit.AddressError:
                sock.connect(options.address)
                assert sock.peer is not None
                to = sock.peer
            for text in _texts(options):
                size += sock.send(text, None if sock.peer else to)
                sent += 1
    else:
        with netkit.connect(options.address, timeout=options.timeout) as conn:
            for text in _texts(options):
                size += conn.write(text + b"\n")
                sent += 1
            conn.shutdown_write()
            while conn.read1():
                pass            # until the other side has all of it
    output.note("sent %d, %d bytes" % (sent, size), "sent", count=sent, bytes=size)
    return 0


def discover(options: argparse.Namespace, output: Output) -> int:
    """Finds others on the local networks that discover at the same time, or play in a lobby: by
    multicast on every interface, and by broadcast. Ends with 1 if nobody was found."""
    name = options.name or "%s-%d" % (socket.gethostname(), os.getpid())
    hello = b"lobby " + name.encode()
    known: Set[str] = {name}
    end = time.monotonic() + options.time
    with netkit.udp(port=options.port, reuse_port=True) as sock:
        sock.join(options.group, options.interface)
        if options.interface is not None:
            sock.multicast_interface = options.interface
        next_call = 0.0
        while True:
            now = time.monotonic()
            if now >= end:
                break
            if now >= next_call:
                _call(sock, hello, options)
                next_call = now + CALL_S
            try:
                datagram = sock.recv(timeout=max(0.001, min(next_call, end) - now))
            except TimeoutError:
                continue
            except OSError:
                continue        # an answer to somebody who has left
            word, _, other = _shown(datagram.data).partition(" ")
            if word == "lobby" and other not in known:
                known.add(other)
                output.say("%s is at %s, by %s" % (other, datagram.sender, datagram.to), "found",
                           name=other, **_facts(datagram))
    output.note("%d found" % (len(known) - 1), "done", found=len(known) - 1)
    return 0 if len(known) > 1 else 1


def _call(sock: netkit.UDP, hello: bytes, options: argparse.Namespace) -> None:
    try:
        sock.send(hello, (options.group, options.port))
    except OSError:
        pass                    # a network that is down is no matter
    if options.interface is None:
        try:
            sock.broadcast(hello, options.port)
        except OSError:
            pass
