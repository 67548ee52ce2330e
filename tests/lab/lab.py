"""A laboratory of network namespaces: hosts, a name server that answers late, packets seen.

Nothing of it has a name on this machine and nothing of the machine's own network is touched. A
host is a process that sleeps in namespaces of its own; when it ends, and it ends with this
program however that does, its interfaces, rules and mounts are gone too.
"""

import ctypes
import heapq
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from nkt_programs import Failure, Skip, need

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
SO_TIMESTAMPNS = 35
SOL_PACKET, PACKET_OUTGOING = 263, 4
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86dd
TYPE_A, TYPE_AAAA = 1, 28
TYPE_NAMES = {TYPE_A: "A", TYPE_AAAA: "AAAA"}
NEVER = None
libc = ctypes.CDLL(None, use_errno=True)


def require_root():
    if os.geteuid() != 0:
        raise Skip("network namespaces need root")
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("unshare", "util-linux"),
                             ("nsenter", "util-linux"), ("mount", "mount")):
        need(program, package)


class Host:
    """A network of its own, with its own /etc/resolv.conf, hosts, nsswitch.conf and gai.conf."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = os.path.join(folder, name)
        os.makedirs(self.folder)
        # The end of our pipe, when we end, ends it.
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "--",
             "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise Skip("no namespaces here: " + self.process.stderr.read().decode().strip())
        self.enter = ["nsenter", "--target", str(self.process.pid), "--net", "--mount", "--"]
        self.ip("link set lo up")
        for path, value in (("all/disable_ipv6", 0), ("default/disable_ipv6", 0),
                            ("all/accept_dad", 0), ("default/accept_dad", 0),
                            ("default/accept_ra", 0)):
            self.sysctl("ipv6/conf/" + path, value)

    def run(self, command, **more):
        return subprocess.run(self.enter + command, capture_output=True, text=True, check=False,
                              **more)

    def must(self, command, **more):
        out = self.run(command, **more)
        if out.returncode != 0:
            raise Failure(f"{' '.join(command)} in {self.name}: {out.stderr.strip()}")
        return out.stdout

    def ip(self, lines):
        """Commands of ip, one a line."""
        self.must(["ip", "-batch", "-"], input=lines)

    def sysctl(self, path, value):
        self.must(["sh", "-c", f"echo {value} > /proc/sys/net/{path}"])

    def etc(self, name, text):
        """What the host has in /etc/NAME; may be changed later."""
        path = os.path.join(self.folder, name)
        bound = os.path.exists(path)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        if not bound:
            if not os.path.exists("/etc/" + name):
                raise Skip(f"there is no /etc/{name} here that could be covered")
            self.must(["mount", "--bind", path, "/etc/" + name])

    def without_nscd(self):
        """A cache of the machine's would answer for another network."""
        if os.path.isdir("/run/nscd"):
            self.must(["mount", "-t", "tmpfs", "none", "/run/nscd"])

    def socket(self, *args):
        """A socket of this host's network, for use here."""
        made = []

        def make():
            # Only this thread moves.
            with open(f"/proc/{self.process.pid}/ns/net", "rb") as space:
                if libc.setns(space.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket(*args))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise Failure(f"cannot open a socket in {self.name}")
        return made[0]

    def start(self, command):
        """A server that runs until it is killed, or we are."""
        return subprocess.Popen(self.enter + command, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Capture:
    """TCP's beginnings and DNS messages that pass a host, with the kernel's times in ms."""

    def __init__(self, host):
        self.sock = host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.sock.setblocking(False)

    def take(self):
        """What has passed since the last call."""
        events = []
        while True:
            try:
                data, more, _, where = self.sock.recvmsg(4096, 256)
            except BlockingIOError:
                return events
            stamp = [value for level, kind, value in more
                     if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS]
            seconds, nanoseconds = struct.unpack("qq", stamp[0]) if stamp else (0, 0)
            event = read_packet(where[1], data)
            if event is not None:
                event.at = seconds * 1e3 + nanoseconds / 1e6
                event.out = where[2] == PACKET_OUTGOING
                events.append(event)

    def close(self):
        self.sock.close()


class Event:
    """kind: "syn", "synack", "rst", "query" or "answer"; the far end; a query's type and name."""

    def __init__(self, kind, source, target, ports, what=""):
        self.kind = kind
        self.source = source
        self.target = target
        self.ports = ports
        self.what = what
        self.at = 0.0
        self.out = False

    def __repr__(self):
        arrow = "->" if self.out else "<-"
        return f"{self.at % 1e5:.1f} {arrow} {self.kind} {self.what or self.target}"


def read_packet(protocol, data):
    if protocol == ETH_P_IP and len(data) >= 20:
        family, size, inner = socket.AF_INET, (data[0] & 15) * 4, data[9]
        source, target = data[12:16], data[16:20]
    elif protocol == ETH_P_IPV6 and len(data) >= 40:
        family, size, inner = socket.AF_INET6, 40, data[6]
        source, target = data[8:24], data[24:40]
    else:
        return None
    source, target = socket.inet_ntop(family, source), socket.inet_ntop(family, target)
    data = data[size:]
    if len(data) < 20:
        return None
    ports = struct.unpack("!HH", data[:4])
    if inner == socket.IPPROTO_TCP:
        flags = data[13]
        kind = "rst" if flags & 4 else {2: "syn", 18: "synack"}.get(flags & 18)
        return Event(kind, source, target, ports) if kind else None
    if inner == socket.IPPROTO_UDP and 53 in ports:
        name, qtype, _ = read_question(data[8:])
        kind = "query" if ports[1] == 53 else "answer"
        return Event(kind, source, target, ports, TYPE_NAMES.get(qtype, str(qtype)) + " " + name)
    return None


def read_question(message):
    """The name and type that a DNS message asks for, and where its question ends."""
    at, labels = 12, []
    while message[at] != 0:
        labels.append(message[at + 1:at + 1 + message[at]].decode("ascii"))
        at += 1 + message[at]
    return ".".join(labels).lower(), struct.unpack("!H", message[at + 1:at + 3])[0], at + 5


class NameServer:
    """Answers each name and type as it is told to: at once, late, or never.

    names[name][type] is a pair: after how many ms (NEVER), and the addresses, or a number, which
    is the code of a failure (2: server failure). A name that is not there does not exist.
    """

    def __init__(self, host, address):
        self.names = {}
        self.late = []
        self.count = 0
        self.sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 53))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def add(self, name, ipv6, ipv4):
        self.names[name] = {TYPE_AAAA: ipv6, TYPE_A: ipv4}
        return name

    def _serve(self):
        while True:
            wait = max(self.late[0][0] - time.monotonic(), 0.0) if self.late else 0.5
            # A time-out of 0 would make it nonblocking.
            self.sock.settimeout(max(wait, 0.0001))
            try:
                message, peer = self.sock.recvfrom(2048)
                self._ask(message, peer)
            except TimeoutError:
                pass
            except OSError:
                return
            while self.late and self.late[0][0] <= time.monotonic():
                _, _, answer, peer = heapq.heappop(self.late)
                try:
                    self.sock.sendto(answer, peer)
                except OSError:
                    pass                # who asked is gone

    def _ask(self, message, peer):
        name, qtype, end = read_question(message)
        known = self.names.get(name)
        delay_ms, addresses = (0, 3) if known is None else known.get(qtype, (0, []))
        if delay_ms is NEVER:
            return
        code, records = (addresses, []) if isinstance(addresses, int) else (0, addresses)
        family = socket.AF_INET if qtype == TYPE_A else socket.AF_INET6
        answer = message[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(records), 0, 0)
        answer += message[12:end]
        for record in records:
            packed = socket.inet_pton(family, record)
            answer += struct.pack("!HHHIH", 0xc00c, qtype, 1, 0, len(packed)) + packed
        self.count += 1
        due = time.monotonic() + delay_ms / 1e3
        heapq.heappush(self.late, (due, self.count, answer, peer))

    def close(self):
        self.sock.close()
        self.thread.join()
