#!/usr/bin/env python3
"""Connecting by name between network namespaces: what is sent, in which order, and when.

    python3 tests/lab/test_happy_eyeballs.py

Needs root, iproute2, nftables, dnsmasq-base and nginx-light. The hosts are made here and go with
this program; nothing outside of them is touched. The order is read from captured packets; times
are medians of 11 runs.

    client  192.0.2.1     2001:db8:1::1 ----- 192.0.2.2     2001:db8:1::2  server
    v4host  10.44.0.1     (no IPv6)     ----- 10.44.0.2
    sorter  10.45.0.1     (as the row says) - 10.45.0.2

Behind the server, each address of these networks answers in its way on every port:

    198.51.100.0/24      2001:db8:2:1::/64     listens on PORT
    203.0.113.0/25       2001:db8:2:dead::/64  drops everything
    203.0.113.128/25     2001:db8:2:5::/64     refuses everything
"""

import json
import math
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import NEVER, Capture, Host, NameServer, require_root
from nkt_programs import CC, MINGW, ROOT, STRICT, Failure, Skip, Suite, equal, need

PORT, HTTP_PORT = 8000, 80
RUNS = 11
LIVE6 = [f"2001:db8:2:1::{n}" for n in range(1, 21)]
LIVE4 = [f"198.51.100.{n}" for n in range(1, 21)]
DEAD6 = [f"2001:db8:2:dead::{n}" for n in range(1, 21)]
DEAD4 = [f"203.0.113.{n}" for n in range(1, 21)]
SHUT6 = [f"2001:db8:2:5::{n}" for n in range(1, 21)]
SHUT4 = [f"203.0.113.{n}" for n in range(129, 149)]

RULES = """
table inet lab {
    chain input {
        type filter hook input priority 0;
        ip daddr 203.0.113.0/25 drop
        ip6 daddr 2001:db8:2:dead::/64 drop
        ip daddr 203.0.113.128/25 meta l4proto tcp reject with tcp reset
        ip6 daddr 2001:db8:2:5::/64 meta l4proto tcp reject with tcp reset
    }
}
"""

RESOLV_CONF = "nameserver {}\nsearch .\noptions timeout:5 attempts:2\n"


def within(got, low, high, what):
    if not low <= got <= high:
        raise Failure(f"{what} is {got:.1f}, not from {low} to {high}")


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.parts = []
        self.servers = []
        self.listeners = []
        self.dnsmasq = None

    def build(self):
        self.probe = self.compile("connect_probe")
        self.sort_probe = self.compile("sort_probe")
        self.server = self.add(Host("server", self.folder))
        self.client = self.add(Host("client", self.folder))
        self.v4host = self.add(Host("v4host", self.folder))
        self.sorter = self.add(Host("sorter", self.folder))
        self.wire()
        for host in (self.client, self.v4host, self.sorter):
            host.without_nscd()
            host.etc("resolv.conf", RESOLV_CONF.format("192.0.2.2"))
            host.etc("nsswitch.conf", "hosts: files dns\n")
            host.etc("hosts", "127.0.0.1 localhost\n::1 localhost\n")
            host.etc("gai.conf", "")
        self.names = self.add(NameServer(self.server, "192.0.2.2"))
        for family, any_address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
            self.listeners.append(self.listen(self.server, family, any_address))
        self.capture = self.add(Capture(self.client))
        self.v4_capture = self.add(Capture(self.v4host))

    def add(self, part):
        self.parts.append(part)
        return part

    def compile(self, name):
        target = os.path.join(self.folder, name)
        command = (CC + STRICT + shlex.split(os.environ.get("CFLAGS", "")) +
                   ["-I", ROOT, os.path.join(ROOT, "tests", "lab", name + ".c"), "-pthread"] +
                   shlex.split(os.environ.get("LDFLAGS", "")) + ["-o", target])
        out = subprocess.run(command, capture_output=True, text=True, check=False)
        if out.returncode != 0:
            raise Failure(f"{' '.join(command)}\n{out.stderr[:3000]}")
        return target

    def wire(self):
        pid = self.server.process.pid
        for number, host in enumerate((self.client, self.v4host, self.sorter)):
            # A known link-local address on each end, and no waiting for others to object to it.
            host.ip(f"link add lab0 type veth peer name lab{number} netns {pid}\n")
            host.sysctl("ipv6/conf/lab0/addr_gen_mode", 1)
            self.server.sysctl(f"ipv6/conf/lab{number}/addr_gen_mode", 1)
            self.server.ip(f"link set lab{number} up\n"
                           f"addr add fe80::2/64 dev lab{number} nodad\n")
        self.server.ip("addr add 192.0.2.2/24 dev lab0\naddr add 192.0.2.3/24 dev lab0\n"
                       "addr add 2001:db8:1::2/64 dev lab0 nodad\n"
                       "addr add 10.44.0.2/24 dev lab1\naddr add 10.45.0.2/24 dev lab2\n"
                       "route add local 198.51.100.0/24 dev lo\n"
                       "route add local 203.0.113.0/24 dev lo\n"
                       "route add local 2001:db8:2::/48 dev lo\n")
        self.server.must(["nft", "-f", "-"], input=RULES)
        self.client.ip("link set lab0 up\naddr add fe80::1/64 dev lab0 nodad\n"
                       "addr add 192.0.2.1/24 dev lab0\nroute add default via 192.0.2.2\n"
                       "addr add 2001:db8:1::1/64 dev lab0 nodad\n"
                       "route add default via 2001:db8:1::2\n")
        self.v4host.sysctl("ipv6/conf/all/disable_ipv6", 1)
        self.v4host.ip("link set lab0 up\naddr add 10.44.0.1/24 dev lab0\n"
                       "route add default via 10.44.0.2\n")
        self.sorter.ip("link set lab0 up\naddr add fe80::1/64 dev lab0 nodad\n")

    def listen(self, host, family, address):
        sock = host.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, PORT))
        sock.listen(1024)
        sock.setblocking(False)
        return sock

    def start(self, host, command):
        server = host.start(command)
        self.servers.append(server)
        return server

    def connect(self, target, *options, host=None):
        """One run of the probe."""
        host = host or self.client
        capture = self.v4_capture if host is self.v4host else self.capture
        for sock in self.listeners:
            empty(sock)
        capture.take()
        started = time.monotonic()
        out = host.must([self.probe, target, *options], timeout=30)
        wall_ms = (time.monotonic() - started) * 1e3
        return Run(json.loads(out), capture.take(), wall_ms)

    def close(self):
        for server in self.servers:
            server.kill()
            server.wait()
        for sock in self.listeners:
            sock.close()
        for part in reversed(self.parts):
            part.close()


def empty(listener):
    """Takes what the kernel has accepted; nobody is served."""
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return


class Run:
    """What the probe said and what was seen of it."""

    def __init__(self, said, events, wall_ms):
        self.said = said
        self.events = events
        self.wall_ms = wall_ms
        self.took_ms = said["took_ms"]
        self.winner = said.get("winner", "").rsplit(":", 1)[0].strip("[]")
        # A second SYN to an address is TCP's, not ours.
        self.syns, self.repeated = [], []
        for event in events:
            if event.kind == "syn" and event.out:
                known = [syn.target for syn in self.syns]
                (self.repeated if event.target in known else self.syns).append(event)
        self.queries = [event for event in events if event.kind == "query" and event.out]
        self.answers = {event.what.split()[0]: event.at for event in events
                        if event.kind == "answer" and not event.out}

    def __str__(self):
        return f"{json.dumps(self.said)}; packets {self.events}"

    def order(self, targets):
        """The addresses that a SYN went to, in order. The report must say the same."""
        equal([syn.target for syn in self.syns], targets, f"SYNs sent ({self})")
        reported = [attempt["addr"].rsplit(":", 1)[0].strip("[]")
                    for attempt in self.said["attempts"]]
        equal(reported, targets[:16], f"attempts reported ({self})")

    def connected(self, winner):
        equal(self.said["err"], "NKT_OK", f"error ({self})")
        equal(self.winner, winner, f"winner ({self})")

    def errors(self):
        return [attempt["err"] for attempt in self.said["attempts"]]

    def gap(self, index):
        """From one SYN to the next."""
        return self.syns[index + 1].at - self.syns[index].at

    def asked(self):
        return sorted(event.what for event in self.queries)


def repeat(runs, function):
    """Several runs, each checked by itself; the median of each number that they give."""
    columns = zip(*[function() for _ in range(runs)])
    return [statistics.median(column) for column in columns]


# Both families work.

def healthy(lab):
    # Without a delay it can be over before the question for A is sent.
    name = lab.names.add("healthy.lab.test", (20, LIVE6[:1]), (20, LIVE4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}")
        run.connected(LIVE6[0])
        run.order(LIVE6[:1])
        equal(run.asked(), ["A " + name, "AAAA " + name], "queries")
        equal(run.said["lookup_err"][0], "NKT_OK", "AAAA's look-up")
        apart = abs(run.queries[0].at - run.queries[1].at)
        return run.took_ms, apart

    took, apart = repeat(RUNS, once)
    within(took, 20, 40, "time")
    within(apart, 0, 5, "time between the two queries")


def ipv6_blackholed(lab, *options):
    name = lab.names.add("dead6.lab.test", (0, DEAD6[:1]), (0, LIVE4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}", *options)
        run.connected(LIVE4[0])
        run.order([DEAD6[0], LIVE4[0]])
        equal(run.errors(), ["NKT_ECANCELED", "NKT_OK"], "errors")
        return run.took_ms, run.gap(0)

    took, gap = repeat(RUNS, once)
    within(took, 245, 300, "time")
    within(gap, 245, 300, "time between the SYNs")


def ipv6_refused(lab, *options):
    name = lab.names.add("shut6.lab.test", (0, SHUT6[:1]), (0, LIVE4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}", *options)
        run.connected(LIVE4[0])
        run.order([SHUT6[0], LIVE4[0]])
        equal(run.errors(), ["NKT_EREFUSED", "NKT_OK"], "errors")
        return run.took_ms, run.gap(0)

    took, gap = repeat(RUNS, once)
    within(took, 0, 20, "time")
    within(gap, 0, 20, "time between the SYNs")


# Answers that come late or never.

def aaaa_late_40_ms(lab, *options):
    name = lab.names.add("late40.lab.test", (40, LIVE6[:1]), (0, LIVE4[:1]))
    late = []

    def once():
        while True:
            run = lab.connect(f"{name}:{PORT}", *options)
            # On a busy machine the name server itself may miss the 50 ms; that says nothing.
            if run.answers.get("AAAA", math.inf) - run.answers.get("A", math.inf) < 48:
                break
            late.append(run)
            if len(late) > 2 * RUNS:
                raise Failure("the name server is never in time")
        run.connected(LIVE6[0])
        run.order([LIVE6[0]])
        return (run.took_ms,)

    took, = repeat(RUNS, once)
    within(took, 38, 60, "time")


def aaaa_late_2_s(lab, *options):
    name = lab.names.add("late2000.lab.test", (2000, LIVE6[:1]), (0, LIVE4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}", *options)
        run.connected(LIVE4[0])
        run.order([LIVE4[0]])
        equal(run.said["lookup_err"], ["NKT_EAGAIN", "NKT_OK"], "look-ups")
        return run.took_ms, run.syns[0].at - run.answers["A"], run.wall_ms

    took, after, wall = repeat(RUNS, once)
    within(took, 48, 75, "time")
    within(after, 48, 75, "time from the answer to the SYN")
    within(wall, 0, 500, "time until the process is gone")


def aaaa_comes_into_the_race(lab, *options):
    # IPv4 is begun at 50 ms; IPv6 comes at 150 ms and keeps its distance of 250 ms.
    name = lab.names.add("merge.lab.test", (150, LIVE6[:1]), (0, DEAD4[:3]))

    def once():
        run = lab.connect(f"{name}:{PORT}", *options)
        run.connected(LIVE6[0])
        run.order([DEAD4[0], LIVE6[0]])
        return run.took_ms, run.gap(0)

    took, gap = repeat(RUNS, once)
    within(took, 295, 350, "time")
    within(gap, 245, 300, "time between the SYNs")


def aaaa_comes_when_its_turn_is_past(lab):
    name = lab.names.add("merge-late.lab.test", (450, LIVE6[:1]), (0, DEAD4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}")
        run.connected(LIVE6[0])
        run.order([DEAD4[0], LIVE6[0]])
        return run.took_ms, run.syns[1].at - run.answers["AAAA"]

    took, after = repeat(RUNS, once)
    within(took, 445, 500, "time")
    within(after, 0, 20, "time from the answer to the SYN")


def a_never(lab, *options):
    name = lab.names.add("no-a.lab.test", (0, LIVE6[:1]), (NEVER, []))

    def once():
        run = lab.connect(f"{name}:{PORT}", *options)
        run.connected(LIVE6[0])
        run.order([LIVE6[0]])
        equal(run.said["lookup_err"], ["NKT_OK", "NKT_EAGAIN"], "look-ups")
        return run.took_ms, run.wall_ms

    took, wall = repeat(RUNS, once)
    within(took, 0, 20, "time")
    within(wall, 0, 500, "time until the process is gone")


def a_late_and_ipv6_refused(lab):
    # All that is known has failed, and more may come: it is waited for, and then used at once.
    name = lab.names.add("late-a.lab.test", (0, SHUT6[:1]), (400, LIVE4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}")
        run.connected(LIVE4[0])
        run.order([SHUT6[0], LIVE4[0]])
        return run.took_ms, run.syns[1].at - run.answers["A"]

    took, after = repeat(RUNS, once)
    within(took, 395, 450, "time")
    within(after, 0, 20, "time from the answer to the SYN")


def one_family_alone(lab):
    # There is no such address: an answer too, and nothing waits for it.
    for name, ipv6, ipv4, winner in (("only4.lab.test", [], LIVE4[:1], LIVE4[0]),
                                     ("only6.lab.test", LIVE6[:1], [], LIVE6[0])):
        lab.names.add(name, (0, ipv6), (0, ipv4))

        def once(name=name, winner=winner):
            run = lab.connect(f"{name}:{PORT}")
            run.connected(winner)
            run.order([winner])
            return (run.took_ms,)

        took, = repeat(RUNS, once)
        within(took, 0, 20, "time for " + name)


def one_family_asked_for(lab):
    name = lab.names.add("both.lab.test", (0, LIVE6[:1]), (0, LIVE4[:1]))
    for family, kind, winner in (("6", "AAAA", LIVE6[0]), ("4", "A", LIVE4[0])):
        run = lab.connect(f"{name}:{PORT}", "family=" + family)
        run.connected(winner)
        run.order([winner])
        equal(run.asked(), [f"{kind} {name}"], "queries")


def other_delays(lab):
    name = lab.names.add("delays.lab.test", (NEVER, []), (0, DEAD4[:1] + LIVE4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}", "resolution_delay_ms=120", "attempt_delay_ms=100")
        run.connected(LIVE4[0])
        run.order([DEAD4[0], LIVE4[0]])
        return run.syns[0].at - run.answers["A"], run.gap(0)

    after, gap = repeat(RUNS, once)
    within(after, 118, 150, "time from the answer to the SYN")
    within(gap, 98, 130, "time between the SYNs")


# Many addresses.

def six_dead_then_a_good_one(lab):
    name = lab.names.add("six-dead.lab.test", (0, DEAD6[:3]), (0, DEAD4[:3] + LIVE4[:1]))
    order = [DEAD6[0], DEAD4[0], DEAD6[1], DEAD4[1], DEAD6[2], DEAD4[2], LIVE4[0]]

    def once():
        run = lab.connect(f"{name}:{PORT}")
        run.connected(LIVE4[0])
        run.order(order)
        equal(run.errors(), ["NKT_ECANCELED"] * 6 + ["NKT_OK"], "errors")
        # TCP repeats a SYN after a second: the first attempts were still under way.
        equal([syn.target for syn in run.repeated[:1]], DEAD6[:1], "the first SYN repeated")
        return [run.took_ms] + [run.gap(index) for index in range(6)]

    took, *gaps = repeat(RUNS, once)
    within(took, 1495, 1550, "time")
    for number, gap in enumerate(gaps):
        within(gap, 245, 300, f"time from SYN {number + 1} to the next")


def twenty_addresses(lab):
    # All but the last refuse; the report keeps 16 of the attempts and counts all. AAAA comes a
    # little later, so that both are known when the first is tried.
    name = lab.names.add("twenty.lab.test", (30, SHUT6[:10]), (0, SHUT4[:9] + LIVE4[:1]))
    order = [address for pair in zip(SHUT6[:10], SHUT4[:9] + LIVE4[:1]) for address in pair]

    def once():
        run = lab.connect(f"{name}:{PORT}")
        run.connected(LIVE4[0])
        run.order(order)
        equal(run.said["attempt_count"], 20, "attempts counted")
        return (run.took_ms,)

    took, = repeat(RUNS, once)
    within(took, 0, 100, "time")


def everything_fails(lab):
    name = lab.names.add("none.lab.test", (0, SHUT6[:1]), (0, DEAD4[:1] + SHUT4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}", "timeout_ms=600")
        run.order([SHUT6[0], DEAD4[0], SHUT4[0]])
        equal(run.said["err"], "NKT_ETIMEDOUT", f"error ({run})")
        equal(run.errors(), ["NKT_EREFUSED", "NKT_ETIMEDOUT", "NKT_EREFUSED"], "errors")
        for address in (SHUT6[0], DEAD4[0], SHUT4[0]):
            equal(address in run.said["text"], True, f"{address} in {run.said['text']!r}")
        return (run.took_ms,)

    took, = repeat(RUNS, once)
    within(took, 600, 650, "time")


# The resolver.

def resolver_dead(lab, *options):
    name = lab.names.add("silent.lab.test", (NEVER, []), (NEVER, []))

    def once():
        run = lab.connect(f"{name}:{PORT}", "timeout_ms=400", *options)
        equal(run.said["err"], "NKT_ETIMEDOUT", f"error ({run})")
        equal(run.asked(), ["A " + name, "AAAA " + name], "queries")
        equal(run.said["lookup_err"], ["NKT_EAGAIN", "NKT_EAGAIN"], "look-ups")
        equal("the resolver has not answered for IPv6 and IPv4" in run.said["text"], True,
              f"the reason in {run.said['text']!r}")
        run.order([])
        return run.took_ms, run.wall_ms

    took, wall = repeat(RUNS, once)
    within(took, 400, 450, "time")
    within(wall, 400, 900, "time until the process is gone")


def no_such_name(lab):
    def once():
        run = lab.connect(f"nowhere.lab.test:{PORT}")
        equal(run.said["err"], "NKT_ENOTFOUND", f"error ({run})")
        run.order([])
        return (run.took_ms,)

    took, = repeat(RUNS, once)
    within(took, 0, 20, "time")


def resolver_fails(lab):
    # A server failure of one family is no reason to wait, nor to fail, when the other answers.
    name = lab.names.add("servfail.lab.test", (0, 2), (0, 2))
    run = lab.connect(f"{name}:{PORT}")
    equal(run.said["err"], "NKT_ELOOKUP", f"error ({run})")
    name = lab.names.add("servfail6.lab.test", (0, 2), (0, LIVE4[:1]))

    def once():
        run = lab.connect(f"{name}:{PORT}")
        run.connected(LIVE4[0])
        equal(run.said["lookup_err"], ["NKT_ELOOKUP", "NKT_OK"], "look-ups")
        return (run.took_ms,)

    took, = repeat(RUNS, once)
    within(took, 0, 20, "time")


def hosts_file(lab):
    name = "listed.lab.test"
    lab.client.etc("hosts", f"127.0.0.1 localhost\n{LIVE6[3]} {name}\n{LIVE4[3]} {name}\n")

    def once():
        run = lab.connect(f"{name}:{PORT}")
        run.connected(LIVE6[3])
        run.order([LIVE6[3]])
        equal(run.asked(), [], "queries")
        return (run.took_ms,)

    took, = repeat(RUNS, once)
    within(took, 0, 20, "time")


def under_localhost(lab):
    listeners = [lab.listen(lab.client, socket.AF_INET6, "::1"),
                 lab.listen(lab.client, socket.AF_INET, "127.0.0.1")]
    try:
        for name in ("localhost", "app.localhost", "a.b.LocalHost", "app.localhost."):
            run = lab.connect(f"{name}:{PORT}")
            run.connected("::1")
            equal(run.asked(), [], "queries for " + name)
            equal(run.said["lookup_err"], ["NKT_EOF", "NKT_EOF"], "look-ups for " + name)
        listeners[0].close()
        run = lab.connect(f"app.localhost:{PORT}")
        run.connected("127.0.0.1")
        equal(run.asked(), [], "queries")
    finally:
        for sock in listeners:
            sock.close()


# Hosts without IPv6, and links.

def without_ipv6(lab):
    late = lab.names.add("v4-late.lab.test", (2000, LIVE6[:1]), (0, LIVE4[:1]))
    plain = lab.names.add("v4-plain.lab.test", (0, LIVE6[:1]), (0, LIVE4[:1]))
    first = lab.names.add("v4-first.lab.test", (0, LIVE6[:1]), (30, LIVE4[:1]))
    for name, limit in ((late, 20), (plain, 20), (first, 50)):
        def once(name=name):
            run = lab.connect(f"{name}:{PORT}", host=lab.v4host)
            run.connected(LIVE4[0])
            equal([syn.target for syn in run.syns], [LIVE4[0]], f"SYNs sent ({run})")
            return (run.took_ms,)

        took, = repeat(RUNS, once)
        within(took, 0, limit, "time for " + name)


def ipv6_on_the_link_only(lab):
    host = lab.v4host
    host.sysctl("ipv6/conf/all/disable_ipv6", 0)
    try:
        host.ip("addr add fe80::1/64 dev lab0 nodad\n")
        without_ipv6(lab)
    finally:
        host.sysctl("ipv6/conf/all/disable_ipv6", 1)


def link_local_with_scope(lab):
    for target in (f"[fe80::2%lab0]:{PORT}", f"[fe80::2%2]:{PORT}"):
        run = lab.connect(target)
        equal(run.said["err"], "NKT_OK", f"error ({run})")
        equal([(syn.source, syn.target) for syn in run.syns], [("fe80::1", "fe80::2")], "SYNs")
        equal(run.asked(), [], "queries")
        within(run.took_ms, 0, 200, "time")


# The order of addresses, by netkit and by glibc.

# glibc's own tables are those of RFC 3484; these are RFC 6724's.
GAI_CONF = """
label ::1/128 0
label ::/0 1
label ::ffff:0:0/96 4
label 2002::/16 2
label 2001::/32 5
label fc00::/7 13
label ::/96 3
label fec0::/10 11
label 3ffe::/16 12
precedence ::1/128 50
precedence ::/0 40
precedence ::ffff:0:0/96 35
precedence 2002::/16 30
precedence 2001::/32 5
precedence fc00::/7 3
precedence ::/96 1
precedence fec0::/10 1
precedence 3ffe::/16 1
"""
DEFAULT6 = "route replace default via fe80::2 dev lab0"
DEFAULT4 = "route replace default via 10.45.0.2"
GLOBAL = "addr add 2001:db8:1::10/64 dev lab0 nodad"
ULA = "addr add fd00:1::10/64 dev lab0 nodad"
SIX_TO_FOUR = "addr add 2002:c000:201::10/64 dev lab0 nodad"
TEREDO = "addr add 2001:0:4136:e378::10/64 dev lab0 nodad"
AUTOCONF4 = "addr add 169.254.7.1/16 dev lab0"
TO_GLOBAL, TO_ULA, TO_6TO4 = "2001:db8:2:1::1", "fd00:1::20", "2002:c633:6401::1"
TO_TEREDO, TO_V4 = "2001:0:53aa:64c::1", "198.51.100.1"
EVERYTHING = ["fec0::1", "3ffe::1", TO_TEREDO, TO_ULA, "fe80::5", TO_6TO4, TO_GLOBAL,
              "127.0.0.1", "169.254.7.9", TO_V4]

# What the host has, the answer in the resolver's order, and the order that both must give.
SORTS = [
    ("native IPv6 before IPv4", [GLOBAL, DEFAULT6, DEFAULT4],
     [TO_GLOBAL, TO_V4], [TO_GLOBAL, TO_V4]),
    ("from a ULA, IPv4 before global IPv6", [ULA, DEFAULT6, DEFAULT4],
     [TO_GLOBAL, TO_V4], [TO_V4, TO_GLOBAL]),
    ("from a ULA alone, global IPv6", [ULA, DEFAULT6],
     [TO_GLOBAL, TO_V4], [TO_GLOBAL, TO_V4]),
    ("from ULA and global", [ULA, GLOBAL, DEFAULT6, DEFAULT4],
     [TO_ULA, TO_GLOBAL, TO_V4], [TO_GLOBAL, TO_V4, TO_ULA]),
    ("from 6to4", [SIX_TO_FOUR, DEFAULT6, DEFAULT4],
     [TO_GLOBAL, TO_6TO4, TO_V4], [TO_V4, TO_6TO4, TO_GLOBAL]),
    ("from 6to4 and global", [SIX_TO_FOUR, GLOBAL, DEFAULT6, DEFAULT4],
     [TO_6TO4, TO_GLOBAL, TO_V4], [TO_GLOBAL, TO_V4, TO_6TO4]),
    ("from Teredo", [TEREDO, DEFAULT6, DEFAULT4],
     [TO_TEREDO, TO_GLOBAL, TO_V4], [TO_V4, TO_TEREDO, TO_GLOBAL]),
    ("everything, from global", [GLOBAL, DEFAULT6, DEFAULT4], EVERYTHING, None),
    ("everything, from all of them",
     [GLOBAL, ULA, SIX_TO_FOUR, TEREDO, AUTOCONF4, DEFAULT6, DEFAULT4], EVERYTHING, None),
    ("everything, without IPv6", [DEFAULT4], EVERYTHING, None),
    ("everything, without a default route", [GLOBAL, ULA], EVERYTHING, None),
    ("link-local IPv4 before global", [AUTOCONF4, DEFAULT4],
     [TO_V4, "169.254.7.9"], ["169.254.7.9", TO_V4]),
    ("the longest common prefix", [GLOBAL, DEFAULT6],
     ["2a00::1", "2001:db8:ffff::1", "2001:db8:1:5::1", "2001:db8:1::99"],
     ["2001:db8:1::99", "2001:db8:1:5::1", "2001:db8:ffff::1", "2a00::1"]),
    ("several IPv4 addresses far away", [DEFAULT4],
     ["198.51.100.9", "203.0.113.1", "198.51.100.2"],
     ["198.51.100.9", "203.0.113.1", "198.51.100.2"]),
]

# The same, where the two differ on purpose: netkit's order, glibc's, and why.
SORTS_APART = [
    # Rule 9 for IPv4 would undo the balancing by rotating answers; glibc applies it to addresses
    # of the host's own network.
    ("several IPv4 addresses of the own network", [DEFAULT4], GAI_CONF,
     ["10.45.0.200", "10.45.0.3"], ["10.45.0.200", "10.45.0.3"], ["10.45.0.3", "10.45.0.200"]),
    # A common prefix is no longer than that of the source's network (RFC 6724 section 2.2), so
    # interface identifiers do not count; glibc compares all 128 bits.
    ("several addresses of the own IPv6 network", [GLOBAL, DEFAULT6], GAI_CONF,
     ["2001:db8:1::f000", "2001:db8:1::11"], ["2001:db8:1::f000", "2001:db8:1::11"],
     ["2001:db8:1::11", "2001:db8:1::f000"]),
    # Rule 3: that a source is deprecated is not told to who asks a socket for it.
    ("a deprecated source", [GLOBAL + " preferred_lft 0", DEFAULT6, DEFAULT4], GAI_CONF,
     [TO_GLOBAL, TO_V4], [TO_GLOBAL, TO_V4], [TO_V4, TO_GLOBAL]),
    # glibc's own table, where there is no gai.conf, is RFC 3484's: unique local addresses are as
    # good as global ones.
    ("ULA and IPv4 by glibc's own table", [ULA, DEFAULT6, DEFAULT4], "",
     [TO_ULA, TO_V4], [TO_V4, TO_ULA], [TO_ULA, TO_V4]),
]


def sort_both(lab, has, answer, gai_conf):
    host = lab.sorter
    host.etc("gai.conf", gai_conf)
    # Also the routes of its addresses go.
    host.run(["sh", "-c", "ip -4 addr flush dev lab0; ip -6 addr flush dev lab0 scope global;"
                          "ip -6 route flush default"])
    host.ip("".join(line + "\n" for line in
                    ["addr add 10.45.0.1/24 dev lab0", "route add 192.0.2.2/32 via 10.45.0.2"] +
                    has))
    name = lab.names.add("sort.lab.test", (0, [text for text in answer if ":" in text]),
                         (0, [text for text in answer if ":" not in text]))
    out = host.must([lab.sort_probe, name] + answer)
    lines = [line.split() for line in out.splitlines()]
    equal([line[0] for line in lines], ["netkit", "system"], "lines")
    return lines[0][1:], lines[1][1:]


def sorted_alike(lab, has, answer, expected):
    netkit, system = sort_both(lab, has, answer, GAI_CONF)
    equal(netkit, system, "netkit's order")
    if expected is not None:
        equal(netkit, expected, "the order of both")


def sorted_apart(lab, has, gai_conf, answer, expected, expected_system):
    netkit, system = sort_both(lab, has, answer, gai_conf)
    equal(system, expected_system, "glibc's order")
    equal(netkit, expected, "netkit's order")


# Real servers.

def wait_for(function, what, server):
    end = time.monotonic() + 10
    while time.monotonic() < end and server.poll() is None:
        if function():
            return
        time.sleep(0.02)
    if server.poll() is None:
        server.kill()
    raise Failure(f"{what} does not answer; it says {server.stdout.read()[-1000:]!r}")


def start_dnsmasq(lab):
    """On an address of its own, with the names of a hosts file."""
    program = need("dnsmasq", "dnsmasq-base")
    lab.client.etc("resolv.conf", RESOLV_CONF.format("192.0.2.3"))
    if lab.dnsmasq is not None:
        return
    hosts = os.path.join(lab.folder, "dnsmasq.hosts")
    with open(hosts, "w", encoding="ascii") as file:
        for address in (LIVE6[0], LIVE4[0]):
            file.write(f"{address} web.lab.test\n")
        for address in LIVE6[:10] + LIVE4[:10]:
            file.write(f"{address} many.lab.test\n")
    server = lab.start(lab.server, [
        program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
        f"--addn-hosts={hosts}", "--local=/lab.test/", "--bind-interfaces", "--except-interface=lo",
        "--listen-address=192.0.2.3", "--port=53", "--user=root", "--group=root", "--pid-file",
        "--log-facility=-"])
    lab.dnsmasq = server
    wait_for(lambda: lab.connect(f"web.lab.test:{PORT}", "timeout_ms=500").said["err"] == "NKT_OK",
             "dnsmasq", server)


def start_nginx(lab):
    program = need("nginx", "nginx-light")
    conf = os.path.join(lab.folder, "nginx.conf")
    temp = "".join(f" {kind}_temp_path {lab.folder}/{kind};"
                   for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(conf, "w", encoding="ascii") as file:
        file.write(f"daemon off; master_process off; user root; pid {lab.folder}/nginx.pid;\n"
                   "error_log stderr; events {}\n"
                   f"http {{ access_log off;{temp}\n"
                   f"server {{ listen 0.0.0.0:{HTTP_PORT}; listen [::]:{HTTP_PORT};\n"
                   "location / { return 200 \"$remote_addr to $server_addr\\n\"; } } }\n")
    server = lab.start(lab.server, [program, "-c", conf, "-p", lab.folder, "-e", "stderr"])
    wait_for(lambda: lab.connect(f"{LIVE4[0]}:{HTTP_PORT}", "timeout_ms=500").said["err"] ==
             "NKT_OK", "nginx", server)


def nginx_by_name(lab):
    start_dnsmasq(lab)
    start_nginx(lab)
    for family, client, address in (("0", "2001:db8:1::1", LIVE6[0]),
                                    ("6", "2001:db8:1::1", LIVE6[0]),
                                    ("4", "192.0.2.1", LIVE4[0])):
        run = lab.connect(f"web.lab.test:{HTTP_PORT}", "get=/", "family=" + family)
        run.connected(address)
        run.order([address])
        equal(run.said["get_err"], "NKT_EOF", "how the reply ended")
        equal(run.said["reply"], f"{client} to {address}", "nginx's reply")


def twenty_addresses_of_dnsmasq(lab):
    start_dnsmasq(lab)
    # It hands them out in turn; whichever is first is fine, and it is an IPv6 one.
    for _ in range(RUNS):
        run = lab.connect(f"many.lab.test:{PORT}")
        equal(run.said["err"], "NKT_OK", f"error ({run})")
        equal(run.winner in LIVE6[:10], True, f"an IPv6 address wins ({run.winner})")
        run.order([run.winner])


ROWS = [
    ("a healthy dual stack takes IPv6", healthy),
    ("IPv6 blackholed: IPv4 after 250 ms", ipv6_blackholed),
    ("IPv6 refused: IPv4 at once", ipv6_refused),
    ("AAAA 40 ms late: IPv6 all the same", aaaa_late_40_ms),
    ("AAAA 2 s late: IPv4 after 50 ms", aaaa_late_2_s),
    ("AAAA comes while IPv4 is tried", aaaa_comes_into_the_race),
    ("AAAA comes when its turn is past", aaaa_comes_when_its_turn_is_past),
    ("A never comes: IPv6 at once", a_never),
    ("A comes late and IPv6 refuses", a_late_and_ipv6_refused),
    ("names with one family", one_family_alone),
    ("one family asked for", one_family_asked_for),
    ("other delays", other_delays),
    ("six dead addresses, then a good one", six_dead_then_a_good_one),
    ("twenty addresses, the last one good", twenty_addresses),
    ("no address is any good", everything_fails),
    ("the resolver is dead", resolver_dead),
    ("no such name", no_such_name),
    ("the resolver fails", resolver_fails),
    ("a name of /etc/hosts", hosts_file),
    ("names under localhost", under_localhost),
    ("a host without IPv6", without_ipv6),
    ("a host with IPv6 on the link only", ipv6_on_the_link_only),
    ("link-local addresses with a scope", link_local_with_scope),
    ("on a poller: IPv6 blackholed", ipv6_blackholed, "poller=1"),
    ("on a poller: IPv6 refused", ipv6_refused, "poller=1"),
    ("on a poller: AAAA 40 ms late", aaaa_late_40_ms, "poller=1"),
    ("on a poller: AAAA 2 s late", aaaa_late_2_s, "poller=1"),
    ("on a poller: AAAA comes while IPv4 is tried", aaaa_comes_into_the_race, "poller=1"),
    ("on a poller: A never comes", a_never, "poller=1"),
    ("on a poller: the resolver is dead", resolver_dead, "poller=1"),
    ("nginx by name, over both families", nginx_by_name),
    ("twenty addresses of dnsmasq", twenty_addresses_of_dnsmasq),
]


def main():
    # A kill, too, ends through `finally`.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    suite = Suite("lab")
    folder = tempfile.mkdtemp(prefix="nkt-lab-")
    lab = Lab(folder)
    ready = []

    def build():
        if MINGW:
            raise Skip("for Linux")
        require_root()
        lab.build()
        ready.append(True)

    try:
        suite.only, only = "", suite.only
        suite.run("the lab", build)
        suite.only = only
        for name, function, *options in ROWS:
            if ready:
                suite.run(name, function, lab, *options)
        for name, *row in SORTS:
            if ready:
                suite.run("order: " + name, sorted_alike, lab, *row)
        for name, *row in SORTS_APART:
            if ready:
                suite.run("order, unlike glibc: " + name, sorted_apart, lab, *row)
    finally:
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
