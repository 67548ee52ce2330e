#!/usr/bin/env python3
"""Datagrams, groups and broadcasts between network namespaces: heard exactly where they should be.

    python3 tests/lab/test_udp.py

Needs root, iproute2 and avahi-daemon. The hosts are made here and go with this program; nothing
outside of them is touched. Three hosts have a card in each of two networks, whose switches are a
fourth namespace. udp_probe.c does as it is told and says what it hears.

               net0                          net1
    ann        10.1.0.1/24  fd01::1/64       10.2.0.1/25  fd02::1/64
    bob        10.1.0.2/24  fd01::2/64       10.2.0.2/25  fd02::2/64
    cy         10.1.0.3/24  fd01::3/64       10.2.0.3/25  fd02::3/64
    old        10.1.0.4/24                                          IPv6 switched off
    lone       nothing but loopback
    none       not even that
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "python"))
import nkt_python
from lab import Host, require_root
from nkt_programs import (CC, MINGW, ROOT, STRICT, Failure, Program, Skip, Suite, equal, need)

PORT = 5600
GROUP4, GROUP6 = "239.255.77.77", "ff15::77"
QUIET_S = 0.3       # silence; what is sent after it is heard proves that nothing was on its way


class Probe(Program):
    """A running udp_probe on a host."""

    def __init__(self, lab, host, *args):
        self.host = host
        super().__init__(host.enter + [lab.probe, *args], runner=[])
        lab.probes.append(self)
        self.told = 0       # the lines of which `heard` has told
        self.opened = self.expect(r"^open (\S+)( \d)?$", 20).group(1)

    def do(self, command):
        """Has it obey; what it answers behind the command's name."""
        self.say(command + "\n")
        return self.expect(rf"^{command.split()[0]} (\S+)$", 20).group(1)

    def heard(self, *wanted):
        """Everything it hears until a message to itself is, in no order: (text, to, card)."""
        mark = f"mark{time.monotonic_ns()}"
        time.sleep(QUIET_S)
        self.say(f"send {mark} 127.0.0.1:{self.opened}\n")
        self.expect(rf"^got {mark} from ", 20)
        lines, self.told = self.lines[self.told:self.seen], self.seen
        matches = [re.search(r"^got (\S*) from (\S+) to (\S+) on (\S+)$", line)
                   for line in lines]
        got = [(found.group(1), found.group(3), found.group(4)) for found in matches
               if found and found.group(1) != mark]
        equal(sorted(got), sorted(wanted), f"heard on {self.host.name}")

    def hears(self, *wanted):
        """The next datagrams, in any order, for one of several on a port, whom a message to
        itself might not reach."""
        got = []
        for _ in wanted:
            found = self.expect(r"^got (\S*) from \S+ to (\S+) on (\S+)$", 20)
            got.append((found.group(1), found.group(2), found.group(3)))
        equal(sorted(got), sorted(wanted), f"heard on {self.host.name}")

    def close(self):
        if self.process.poll() is not None:
            raise Failure(f"the probe on {self.host.name} has ended")
        self.process.kill()
        self.process.wait()


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.hosts = []
        self.probes = []

    def build(self):
        self.probe = self.compile(["tests/lab/udp_probe.c"], "udp_probe")
        self.lobby = self.compile(["examples/lan_lobby.c"], "lan_lobby")
        self.switch = self.host("switch")
        self.switch.ip("".join(f"link add br{n} type bridge mcast_snooping 0\n"
                               f"link set br{n} up\n" for n in (0, 1)))
        self.ann, self.bob, self.cy = (self.host(name) for name in ("ann", "bob", "cy"))
        for number, host in enumerate((self.ann, self.bob, self.cy), 1):
            for net, bits in ((0, 24), (1, 25)):
                self.plug(host, net)
                host.ip(f"addr add 10.{net + 1}.0.{number}/{bits} dev net{net}\n"
                        f"addr add fd0{net + 1}::{number}/64 dev net{net} nodad\n")
        self.old = self.host("old")
        self.old.sysctl("ipv6/conf/all/disable_ipv6", 1)
        self.old.sysctl("ipv6/conf/default/disable_ipv6", 1)
        self.plug(self.old, 0)
        self.old.ip("addr add 10.1.0.4/24 dev net0\n")
        self.lone = self.host("lone")
        self.none = self.host("none")
        self.none.ip("link set lo down\n")

    def host(self, name):
        self.hosts.append(Host(name, self.folder))
        return self.hosts[-1]

    def plug(self, host, net, card=None):
        """A card of a host in one of the networks; a `card` that is named is without addresses."""
        bare, card = card is not None, card or f"net{net}"
        there = f"{host.name}{card}"
        self.switch.ip(f"link add {there} type veth peer name {card} netns {host.process.pid}\n"
                       f"link set {there} master br{net} up\n")
        if bare:
            host.ip(f"link set {card} addrgenmode none\n")
        host.ip(f"link set {card} up\n")

    def carry_multicast(self, carried):
        """Whether the switches pass on what is for a group; broadcasts they always do."""
        word = "on" if carried else "off"
        self.switch.ip("".join(f"link set {host.name}net{net} type bridge_slave "
                               f"mcast_flood {word}\n"
                               for host in (self.ann, self.bob, self.cy) for net in (0, 1)))

    def compile(self, sources, name):
        target = os.path.join(self.folder, name)
        command = (CC + STRICT + shlex.split(os.environ.get("CFLAGS", "")) + ["-I", ROOT] +
                   [os.path.join(ROOT, source) for source in sources] + ["-pthread"] +
                   shlex.split(os.environ.get("LDFLAGS", "")) + ["-o", target])
        out = subprocess.run(command, capture_output=True, text=True, check=False)
        if out.returncode != 0:
            raise Failure(f"{' '.join(command)}\n{out.stderr[:3000]}")
        return target

    def open(self, host, local=f":{PORT}", *args):
        return Probe(self, host, local, *args)

    def close(self):
        for host in reversed(self.hosts):
            host.close()


def index_of(host, card):
    return json.loads(host.must(["ip", "-j", "link", "show", "dev", card]))[0]["ifindex"]


def row(lab, function, *options):
    """Whatever becomes of a row, the next one finds its ports free."""
    try:
        function(lab, *options)
    finally:
        while lab.probes:
            probe = lab.probes.pop()
            probe.process.kill()
            probe.process.wait()


def close_all(*probes):
    for probe in probes:
        probe.close()


# Groups

def group(lab, group_text, address, *args):
    """Out of both cards, heard on both by who has joined, and by nobody else."""
    ann, bob, cy = (lab.open(host, f":{PORT}", *args) for host in (lab.ann, lab.bob, lab.cy))
    equal(bob.do(f"join {group_text} - -"), "2", "interfaces joined")
    equal(ann.do(f"send hello {address}"), "5", "bytes sent")
    bob.heard(("hello", group_text, "net0"), ("hello", group_text, "net1"))
    cy.heard()
    ann.heard()
    # Our own host hears it as well, where it has joined.
    equal(ann.do(f"join {group_text} - -"), "2", "interfaces joined")
    equal(ann.do(f"send again {address}"), "5", "bytes sent")
    ann.heard(("again", group_text, "net0"), ("again", group_text, "net1"))
    bob.heard(("again", group_text, "net0"), ("again", group_text, "net1"))
    equal(bob.do(f"leave {group_text} - -"), "0", "leaving")
    equal(ann.do(f"send gone {address}"), "4", "bytes sent")
    bob.heard()
    cy.heard()
    close_all(ann, bob, cy)


def one_card_joined(lab):
    ann, bob, cy = lab.open(lab.ann), lab.open(lab.bob), lab.open(lab.cy)
    equal(bob.do(f"join {GROUP4} net1 -"), "1", "joined by name")
    equal(cy.do(f"join {GROUP4} 10.1.0.3 -"), "1", "joined by address")
    equal(cy.do(f"join {GROUP6} fd02::3 -"), "1", "joined by address")
    ann.do(f"send four {GROUP4}:{PORT}")
    ann.do(f"send six [{GROUP6}]:{PORT}")
    bob.heard(("four", GROUP4, "net1"))
    cy.heard(("four", GROUP4, "net0"), ("six", GROUP6, "net1"))
    equal(bob.do(f"join {GROUP4} net7 -"), "NKT_ENODEV", "joined where there is no card")
    close_all(ann, bob, cy)


def one_card_sent(lab):
    index = index_of(lab.ann, "net1")
    ann, bob = lab.open(lab.ann), lab.open(lab.bob)
    bound = lab.open(lab.ann, ":0", "card=net0")
    equal(bob.do(f"join {GROUP4} - -"), "2", "interfaces joined")
    equal(bob.do(f"join {GROUP6} - -"), "2", "interfaces joined")
    equal(ann.do(f"through {index}"), "0", "choosing a card")
    ann.do(f"send chosen {GROUP4}:{PORT}")
    ann.do(f"send chosen6 [{GROUP6}]:{PORT}")
    bob.heard(("chosen", GROUP4, "net1"), ("chosen6", GROUP6, "net1"))
    bound.do(f"send bound {GROUP4}:{PORT}")
    bound.do(f"broadcast wide {PORT}")
    bound.do(f"send bound6 [{GROUP6}]:{PORT}")
    bob.heard(("bound", GROUP4, "net0"), ("bound6", GROUP6, "net0"), ("wide", "10.1.0.255", "net0"))
    close_all(ann, bob, bound)


def one_address_sent(lab):
    bob, four, six = lab.open(lab.bob), lab.open(lab.ann, "10.2.0.1:0"), lab.open(
        lab.ann, "[fd01::1]:0")
    equal(bob.do(f"join {GROUP4} - -"), "2", "interfaces joined")
    equal(bob.do(f"join {GROUP6} - -"), "2", "interfaces joined")
    four.do(f"send four {GROUP4}:{PORT}")
    four.do(f"broadcast wide {PORT}")
    six.do(f"send six [{GROUP6}]:{PORT}")
    bob.heard(("four", GROUP4, "net1"), ("wide", "10.2.0.127", "net1"), ("six", GROUP6, "net0"))
    # The address goes, and with it the way: another's is not taken.
    lab.ann.ip("addr del 10.2.0.1/25 dev net1\n")
    try:
        equal(four.do(f"send gone {GROUP4}:{PORT}"), "NKT_ENETUNREACH", "without the address")
        bob.heard()
    finally:
        lab.ann.ip("addr add 10.2.0.1/25 dev net1\n")
    close_all(bob, four, six)


def each_card(lab):
    ann = lab.open(lab.ann)
    equal(ann.do(f"each x {GROUP4}:{PORT}"), "2", "interfaces")
    for _ in range(2):
        ann.expect(rf"^to {GROUP4}:{PORT} NKT_OK$", 20)
    equal(ann.do(f"each x 255.255.255.255:{PORT}"), "2", "interfaces")
    ann.expect(rf"^to 10\.1\.0\.255:{PORT} NKT_OK$", 20)
    ann.expect(rf"^to 10\.2\.0\.127:{PORT} NKT_OK$", 20)
    ann.close()


def two_programs(lab, group_text, address, *broadcast_too):
    ann = lab.open(lab.ann)
    one, two = lab.open(lab.bob, f":{PORT}", "reuse"), lab.open(lab.bob, f":{PORT}", "reuse")
    for probe in (one, two):
        equal(probe.do(f"join {group_text} - -"), "2", "interfaces joined")
    # Without being asked for, a port is not shared.
    refused = Program(lab.bob.enter + [lab.probe, f":{PORT}"], runner=[])
    refused.expect(r"^open NKT_EADDRINUSE$", 20)
    ann.do(f"send both {address}")
    wanted = [("both", group_text, "net0"), ("both", group_text, "net1")]
    if broadcast_too:
        ann.do(f"broadcast wide {PORT}")
        wanted += [("wide", "10.1.0.255", "net0"), ("wide", "10.2.0.127", "net1")]
    for probe in (one, two):
        probe.hears(*wanted)
    close_all(ann, one, two)


def sources(lab, group_text, address, wanted, other):
    """Source-specific: one sender of a group is heard, the other is not."""
    ann, cy, bob = lab.open(lab.ann), lab.open(lab.cy), lab.open(lab.bob)
    equal(bob.do(f"join {group_text} - {wanted}"), "2", "interfaces joined")
    equal(bob.do(f"join {group_text} - {other}"), "NKT_EFAMILY", "a source of the other family")
    for sender in (ann, cy):
        sender.do(f"send from-{sender.host.name} {address}")
    # Each card has an address of its own, and one of them is the source.
    bob.heard(("from-ann", group_text, "net0"))
    equal(bob.do(f"leave {group_text} - {wanted}"), "0", "leaving")
    ann.do(f"send late {address}")
    bob.heard()
    close_all(ann, bob, cy)


def broadcast(lab, *args):
    ann, bob, cy = (lab.open(host, f":{PORT}", *args) for host in (lab.ann, lab.bob, lab.cy))
    equal(ann.do(f"broadcast hello {PORT}"), "5", "bytes sent")
    for probe in (bob, cy):
        probe.heard(("hello", "10.1.0.255", "net0"), ("hello", "10.2.0.127", "net1"))
    close_all(ann, bob, cy)


# Cards that come and go

def new_card(lab, group_text, address, net, blocking):
    """A card that is plugged in, and one that gets its address later, are joined by themselves."""
    lab.plug(lab.ann, 0, "extra0")
    lab.ann.ip(f"addr add {net[0]} dev extra0 {net[2]}\n")
    sender = re.escape(address.format(net[0].partition("/")[0])) + r":\d+"
    address = address.format(group_text) + f":{PORT}"
    index = index_of(lab.ann, "extra0")
    ann = lab.open(lab.ann, ":0")
    ann.do(f"through {index}")
    if blocking:
        bob = lab.open(lab.bob, f":{PORT}", f"blocking={group_text}")
        equal(bob.expect(r"^join (\S+)$", 20).group(1), "2", "interfaces joined")
    else:
        bob = lab.open(lab.bob)
        equal(bob.do(f"join {group_text} - -"), "2", "interfaces joined")
    try:
        lab.plug(lab.bob, 0, "late0")               # up, without an address
        ann.do(f"send early {address}")
        bob.expect(rf"^got early from {sender} to {group_text} on net0$", 20)
        lab.bob.ip(f"addr add {net[1]} dev late0 {net[2]}\n")
        heard = []
        for _ in range(40):
            ann.do(f"send now {address}")
            heard.append(bob.expect(rf"^got now from {sender} to \S+ on (\S+)$",
                                    20).group(1))
            if "late0" in heard:
                break
            time.sleep(0.05)
        if "late0" not in heard:
            raise Failure(f"the new card is not joined: heard on {heard}")
        if not blocking:
            time.sleep(QUIET_S)
            equal(bob.do("joined"), "3", "interfaces joined")
        lab.switch.ip("link del boblate0\n")        # pulled out
        if not blocking:
            for _ in range(40):
                time.sleep(0.05)
                if bob.do("joined") == "2":
                    break
            equal(bob.do("joined"), "2", "interfaces joined")
        ann.do(f"send still {address}")
        bob.expect(rf"^got still from {sender} to \S+ on net0$", 20)
    finally:
        lab.switch.run(["ip", "link", "del", "boblate0"])
        lab.switch.run(["ip", "link", "del", "annextra0"])
    close_all(ann, bob)


# Hosts that lack something

def without_ipv6(lab):
    old, ann = lab.open(lab.old), lab.open(lab.ann)
    equal(old.do(f"join {GROUP4} - -"), "1", "interfaces joined")
    # The switch takes the addresses away, and may give them back.
    equal(old.do(f"join {GROUP6} - -"), "0", "interfaces joined")
    equal(old.do(f"send x [{GROUP6}]:{PORT}"), "NKT_ENETUNREACH", "sending to an IPv6 group")
    ann.do(f"send hello {GROUP4}:{PORT}")
    ann.do(f"broadcast wide {PORT}")
    old.heard(("hello", GROUP4, "net0"), ("wide", "10.1.0.255", "net0"))
    close_all(old, ann)


def only_loopback(lab):
    one, two = lab.open(lab.lone, f":{PORT}", "reuse"), lab.open(lab.lone, f":{PORT}", "reuse")
    for probe in (one, two):
        equal(probe.do(f"join {GROUP4} - -"), "1", "interfaces joined")
    equal(one.do(f"send hello {GROUP4}:{PORT}"), "5", "bytes sent")
    for probe in (one, two):
        probe.expect(rf"^got hello from 127\.0\.0\.1:{PORT} to {GROUP4} on lo$", 20)
    equal(one.do(f"broadcast wide {PORT}"), "4", "bytes sent")
    for probe in (one, two):
        probe.expect(rf"^got wide from 127\.0\.0\.1:{PORT} to 127\.255\.255\.255 on lo$", 20)
    equal(one.do("send x 10.9.9.9:9"), "NKT_ENETUNREACH", "sending without a route")
    close_all(one, two)


def no_network(lab):
    none = lab.open(lab.none)
    equal(none.do(f"join {GROUP4} - -"), "0", "interfaces joined")
    equal(none.do(f"send x {GROUP4}:{PORT}"), "NKT_ENETUNREACH", "sending to a group")
    equal(none.do(f"broadcast x {PORT}"), "NKT_ENETUNREACH", "broadcasting")
    equal(none.do("send x 10.9.9.9:9"), "NKT_ENETUNREACH", "sending")
    none.close()


def path_mtu(lab):
    ann, bob, plain = lab.open(lab.ann, ":0", "df"), lab.open(lab.bob), lab.open(lab.ann, ":0")
    for address in (f"10.1.0.2:{PORT}", f"[fd01::2]:{PORT}"):
        equal(ann.do(f"long 2000 {address}"), "NKT_EMSGSIZE", "a datagram larger than the path")
        equal(ann.do(f"send fits {address}"), "4", "one that fits")
        equal(plain.do(f"long 2000 {address}"), "2000", "without the option")
    close_all(ann, bob, plain)


# Others

def avahi(lab):
    """The port and group of multicast DNS, shared with a running avahi-daemon."""
    daemon = need("avahi-daemon", "avahi-daemon")
    lab.bob.must(["mount", "-t", "tmpfs", "none", "/run"])
    config = os.path.join(lab.folder, "avahi.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write("[server]\nhost-name=bobhost\nenable-dbus=no\nallow-interfaces=net0,net1\n"
                   "[wide-area]\nenable-wide-area=no\n[publish]\n[reflector]\n[rlimits]\n")
    server = Program(lab.bob.enter + [daemon, "--no-drop-root", "--no-chroot", "--no-rlimits",
                                      "-f", config], runner=[])
    server.expect(r"Server startup complete", 30)
    beside = lab.open(lab.bob, ":5353", "reuse")
    asker = lab.open(lab.cy, ":5353", "reuse")
    for probe in (beside, asker):
        equal(probe.do("join 224.0.0.251 - -"), "2", "interfaces joined")
    # A question for bobhost.local, as multicast DNS has it (RFC 6762), by a plain socket.
    question = (b"\0\0\0\0\0\1\0\0\0\0\0\0" + b"\7bobhost\5local\0" + b"\0\1\0\1")
    lab.ann.must([sys.executable, "-c",
                  "import socket,sys\ns=socket.socket(2,2)\ns.bind(('10.1.0.1',5353))\n"
                  "s.setsockopt(0,32,socket.inet_aton('10.1.0.1'))\n"
                  f"s.sendto({question!r},('224.0.0.251',5353))\n"])
    # The answer is heard by both, and the question too: nobody has taken it from the other.
    for probe in (beside, asker):
        probe.expect(r" from 10\.1\.0\.1:5353 to 224\.0\.0\.251 on net0$", 20)
        probe.expect(r" from 10\.1\.0\.2:5353 to 224\.0\.0\.251 on net0$", 20)
    close_all(beside, asker)
    server.stop()


# A broadcast may be the first that is heard, between opening and joining.
BY_EITHER = r"(?:239\.255\.77\.77|10\.1\.0\.255|10\.2\.0\.127)"
BY_BROADCAST = r"(?:10\.1\.0\.255|10\.2\.0\.127)"


def in_python(*args):
    return ["env", f"PYTHONPATH={os.path.join(ROOT, 'python')}",
            f"NETKIT_LIBRARY={nkt_python.library()}", sys.executable, *args]


def lobby(lab, how, *python):
    """Three hosts find each other within a second of the last one's coming. Those that are named
    run the Python program; the interpreter's start is counted, so that there only the median must
    be within it."""
    def command(host):
        return host.enter + (in_python(os.path.join(ROOT, "examples", "lan_lobby.py"))
                             if host.name in python else [lab.lobby])
    players = [Program(command(host) + [host.name, "120"], runner=[])
               for host in (lab.ann, lab.bob)]
    for player, other in zip(players, ("bob", "ann")):
        player.expect(rf"^{other} is at 10\.[12]\.0\.\d:5577, by {how}$", 20)
    took = []
    for turn in range(11):
        begin = time.monotonic()
        last = Program(command(lab.cy) + [f"cy{turn}", "120"], runner=[])
        for player in players:
            player.expect(rf"^cy{turn} is at 10\.[12]\.0\.3:5577, by {how}$", 20)
        for other in ("ann", "bob"):
            found = rf"^{other} is at 10\.[12]\.0\.\d:5577, by {how}$"
            if not any(re.search(found, line) for line in last.lines):
                last.expect(found, 20)
        took.append(time.monotonic() - begin)
        last.process.kill()
        last.process.wait()
    took.sort()
    print(f"    the median of 11 times is {took[5]:.2f} s, the longest {took[10]:.2f} s")
    if took[5] > 1.0 or (took[10] > 1.0 and not python):
        raise Failure(f"not found within a second: {' '.join(f'{one:.2f}' for one in took)}")
    for player in players:
        player.process.kill()
        player.process.wait()


def discover(lab, how):
    """The toolbox's command, on every interface: two of it and a player find each other."""
    player = Program(lab.ann.enter + [lab.lobby, "ann", "60"], runner=[])
    tools = [Program(host.enter + in_python("-m", "netkit", "discover", "--name", host.name,
                                            "--time", "5"), runner=[])
             for host in (lab.bob, lab.cy)]
    for number, name in ((2, "bob"), (3, "cy")):
        wanted = rf"^{name} is at 10\.[12]\.0\.{number}:5577, by {how}$"
        if not any(re.search(wanted, line) for line in player.lines):
            player.expect(wanted, 20)
    for tool, other, number in zip(tools, ("cy", "bob"), (3, 2)):
        equal(tool.finish(), 0, "exit status")
        for name, host in (("ann", 1), (other, number)):
            found = [line for line in tool.lines if line.startswith(name + " is at ")]
            if len(found) != 1 or not re.search(
                    rf" is at 10\.[12]\.0\.{host}:5577, by {how}$", found[0]):
                raise Failure(f"of {name} it says {found}")
    player.process.kill()
    player.process.wait()


def without_multicast(lab, function, *options):
    """On switches that drop multicast; broadcasts are what is left."""
    lab.carry_multicast(False)
    try:
        function(lab, BY_BROADCAST, *options)
    finally:
        lab.carry_multicast(True)


ADDRESS4, ADDRESS6 = f"{GROUP4}:{PORT}", f"[{GROUP6}]:{PORT}"
NEW4 = (GROUP4, "{}", ("10.3.0.1/24", "10.3.0.2/24", ""))
NEW6 = (GROUP6, "[{}]", ("fd03::1/64", "fd03::2/64", "nodad"))
ROWS = [
    ("an IPv4 group, on both networks", group, GROUP4, ADDRESS4),
    ("an IPv6 group, on both networks", group, GROUP6, ADDRESS6),
    ("an IPv4 group, two sockets", group, GROUP4, ADDRESS4, "two"),
    ("an IPv6 group, two sockets", group, GROUP6, ADDRESS6, "two"),
    ("joined on one card", one_card_joined),
    ("sent by one card", one_card_sent),
    ("sent from one card's address", one_address_sent),
    ("each card's result", each_card),
    ("two programs on one port", two_programs, GROUP4, ADDRESS4, "broadcast too"),
    ("two programs on one port, IPv6", two_programs, GROUP6, ADDRESS6),
    ("one source of an IPv4 group", sources, "232.1.2.3", f"232.1.2.3:{PORT}", "10.1.0.1",
     "fd01::1"),
    ("one source of an IPv6 group", sources, "ff35::99", f"[ff35::99]:{PORT}", "fd01::1",
     "10.1.0.1"),
    ("broadcast on both networks", broadcast),
    ("broadcast on both networks, two sockets", broadcast, "two"),
    ("a card comes while a poller waits", new_card, *NEW4, False),
    ("a card comes while a blocking call waits", new_card, *NEW4, True),
    ("a card comes while a poller waits, IPv6", new_card, *NEW6, False),
    ("a card comes while a blocking call waits, IPv6", new_card, *NEW6, True),
    ("a host without IPv6", without_ipv6),
    ("a host with loopback only", only_loopback),
    ("a host without any network", no_network),
    ("larger than the path takes", path_mtu),
    ("multicast DNS beside avahi-daemon", avahi),
    ("three hosts in the lobby", lobby, BY_EITHER),
    ("three hosts in the lobby, in Python", lobby, BY_EITHER, "ann", "bob", "cy"),
    ("three hosts in the lobby, in both languages", lobby, BY_EITHER, "bob"),
    ("no multicast: the lobby by broadcast", without_multicast, lobby),
    ("no multicast: the lobby by broadcast, in Python", without_multicast, lobby, "ann", "bob",
     "cy"),
    ("python -m netkit discover", discover, BY_EITHER),
    ("no multicast: python -m netkit discover by broadcast", without_multicast, discover),
]


def main():
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
                suite.run(name, row, lab, function, *options)
    finally:
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
