#!/usr/bin/env python3
"""examples/chat_server.c under load: idle thousands, a busy room, and half of them gone.

With NKT_TEST_ALL=1 10,000 clients and 1,000 lines a second to a room of 100 for a minute, and
half of the clients behind a network that is then cut: no packet of theirs comes or goes any more,
and keep-alive has to find out; the system's room for packets is raised meanwhile. Otherwise a few
hundred for some seconds, without root, whose processes are killed. What was measured is printed.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import nkt_programs
from nkt_programs import (EVERYTHING, ROOT, Failure, Program, Suite, build, compile_strictly,
                          equal, need, shared)

CLIENTS, ROOM, RATE, SECONDS = (10000, 100, 1000, 60) if EVERYTHING else (300, 20, 500, 3)
KEEPALIVE_S = 4
RESPONSIVE_MS = 100.0               # the median of 11
IDLE_BYTES = 1024                   # of the server's memory, a connected client
INSIDE, OUTSIDE = "10.213.77.2", "10.213.77.1"
# Packets that wait for a processor. Thousands of keep-alive probes fall due in one tick of the
# kernel's timers; through one machine's loop-back, which has all networks' packets, a thousand are
# too few, and who loses four probes in a row counts as gone.
BACKLOG = "/proc/sys/net/core/netdev_max_backlog"
BACKLOG_PACKETS = 100000


def raise_limit():
    """Server and clients each need a descriptor for every connection."""
    want = CLIENTS + 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < want:
        raise Failure(f"{want} descriptors are needed and {hard} allowed; raise the hard limit: "
                      "ulimit -Hn as root, LimitNOFILE= of the service, or --ulimit nofile= of "
                      "the container")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def memory(pid):
    """Bytes of a process that are its own, not of files."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024


class Cable:
    """A network of one machine more, in a namespace, until it is cut."""

    def __init__(self):
        if os.geteuid() != 0:
            raise nkt_programs.Skip("network namespaces need root")
        for program, package in (("ip", "iproute2"), ("nft", "nftables")):
            need(program, package)
        if not os.access(BACKLOG, os.W_OK):
            raise nkt_programs.Skip(f"{BACKLOG} cannot be written here")
        self.name = f"nkt-load-{os.getpid()}"
        near, far = f"nkl{os.getpid() % 100000}a", f"nkl{os.getpid() % 100000}b"
        self.near = near
        self.run("ip", "netns", "add", self.name)
        self.run("ip", "link", "add", near, "type", "veth", "peer", "name", far,
                 "netns", self.name)
        self.run("ip", "addr", "add", f"{OUTSIDE}/24", "dev", near)
        self.run("ip", "link", "set", near, "up")
        self.inside("ip", "addr", "add", f"{INSIDE}/24", "dev", far)
        self.inside("ip", "link", "set", far, "up")
        # Last, for what fails before it leaves nothing to be put back.
        with open(BACKLOG, encoding="ascii") as file:
            self.backlog = int(file.read())
        self.set_backlog(max(self.backlog, BACKLOG_PACKETS))

    @staticmethod
    def set_backlog(packets):
        with open(BACKLOG, "w", encoding="ascii") as file:
            file.write(str(packets))

    @staticmethod
    def run(*command):
        out = subprocess.run(command, capture_output=True, text=True, check=False)
        if out.returncode != 0:
            raise Failure(f"{' '.join(command)}: {out.stderr.strip()}")

    def wrap(self, command):
        return ["ip", "netns", "exec", self.name] + command

    def inside(self, *command):
        self.run(*self.wrap(list(command)))

    def cut(self):
        """Everything is dropped, both ways, without a word to anybody."""
        self.inside("nft", "add table inet cut; "
                    "add chain inet cut in { type filter hook prerouting priority -300; "
                    "policy drop; }; "
                    "add chain inet cut out { type filter hook output priority -300; "
                    "policy drop; }")

    def close(self):
        self.set_backlog(self.backlog)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.near], capture_output=True, check=False)


def build_driver(folder):
    target = os.path.join(folder, "load")
    built = shared(folder)
    compile_strictly(["-I" + os.path.dirname(built), "-I" + ROOT,
                      os.path.join(HERE, "load_posix.c"), built, "-o", target], ["-pthread"])
    return target


class Load:
    def __init__(self, folder, cable):
        self.cable = cable
        driver = build_driver(folder)
        server = build("chat_server", folder)
        self.server = Program([server, ":0", str(KEEPALIVE_S)])
        port = self.server.port()
        self.before = memory(self.server.process.pid)
        half = CLIENTS // 2
        self.stay = Program([driver, f"localhost:{port}", str(CLIENTS - half), str(ROOM)])
        self.stay.expect(rf"^ready: {CLIENTS - half} connected$")
        going = [driver, f"{OUTSIDE if cable else 'localhost'}:{port}", str(half), "0"]
        self.go = Program(cable.wrap(going) if cable else going)
        self.go.expect(rf"^ready: {half} connected$")

    def idle(self):
        self.server.expect(rf", {CLIENTS} here$")
        # Everybody has been read from and written to, and sleeps.
        after = memory(self.server.process.pid)
        each = (after - self.before) / CLIENTS
        print(f"{CLIENTS} clients: {each:.0f} bytes of the server's memory each "
              f"({self.before} before, {after} after)")
        if EVERYTHING and each > IDLE_BYTES:
            raise Failure(f"an idle connection takes {each:.0f} bytes, more than {IDLE_BYTES}")

    def talk(self):
        self.stay.say(f"talk {RATE} {SECONDS}\n")
        said = self.stay.expect(r"^talked: (\d+) sent in ([\d.]+) s, (\d+) delivered of (\d+), "
                                r"(\d+) wrong, .*$", 240 + 3 * SECONDS)
        print(said.group(0))
        equal(int(said.group(1)), RATE * SECONDS, "lines sent")
        equal(int(said.group(5)), 0, "lines lost, twice or out of order")
        equal(int(said.group(3)), RATE * SECONDS * (ROOM - 1), "lines delivered")

    def ping(self, when):
        self.stay.say("ping 11\n")
        said = self.stay.expect(r"^pinged: median ([\d.]+) ms.*$")
        print(f"{said.group(0)}, {when}")
        if float(said.group(1)) > RESPONSIVE_MS:
            raise Failure(f"a line takes {said.group(1)} ms {when}")

    def still_there(self):
        """What the system knows of connections to those that are gone."""
        out = subprocess.run(["ss", "-Htno", "src", OUTSIDE], capture_output=True, text=True,
                             check=False)
        lines = out.stdout.splitlines()
        return f"{len(lines)} connections to them are there, such as {lines[:3]}"

    def vanish(self):
        left = CLIENTS - CLIENTS // 2
        self.ping("with everybody there")
        start = time.monotonic()
        if self.cable:
            self.cable.cut()
        self.go.process.kill()
        self.ping("when half of them are gone")
        # Idle, then probes: nothing answers. While they are sent home, too.
        deadline = time.monotonic() + 20 * KEEPALIVE_S
        pings = 0
        while time.monotonic() < deadline and f", {left} here" not in self.server.lines[-1]:
            self.ping("meanwhile")
            pings += 1
            time.sleep(0.5)
        if f", {left} here" not in self.server.lines[-1]:
            raise Failure(f"{self.server.lines[-1]!r} is the last of them after "
                          f"{time.monotonic() - start:.0f} s; {self.still_there()}")
        self.server.expect(rf"^guest\d+ left \(.*\), {left} here$")
        took = time.monotonic() - start
        why = {re.search(r"\((.*)\)", line).group(1) for line in self.server.lines[-50:]
               if " left (" in line}
        print(f"the other half was found gone after {took:.1f} s: {', '.join(sorted(why))}")
        if self.cable and took < KEEPALIVE_S:
            raise Failure("they were found gone before keep-alive could: they had not vanished")
        if self.cable:
            equal(why, {"timed out"}, "why they left")
        self.stay.say("check\n")
        self.stay.expect(rf"^alive: {left}$")
        self.ping("afterwards")
        self.server.stop()


def main():
    suite = Suite("load")
    top = os.path.join(ROOT, os.environ.get("BUILD") or "build")
    os.makedirs(top, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="load-", dir=top)
    cable = load = None
    try:
        def begin():
            nonlocal cable, load
            raise_limit()
            cable = Cable() if EVERYTHING else None
            load = Load(folder, cable)
            load.idle()
        suite.run(f"load: {CLIENTS} clients, and what an idle one takes", begin)
        if load is not None:
            suite.run(f"load: {RATE} lines a second to a room of {ROOM} for {SECONDS} s", load.talk)
            suite.run("load: half of the clients vanish, and the room goes on", load.vanish)
    finally:
        if cable is not None:
            cable.close()
        shutil.rmtree(folder, ignore_errors=True)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
