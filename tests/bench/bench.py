#!/usr/bin/env python3
"""Measures netkit beside plain system calls, the C library, libuv and libevent.

    tests/bench/bench.py                all of it; some minutes
    tests/bench/bench.py lines echo     only workloads with this in their name
    tests/bench/bench.py --quick        a few operations of each: that it works, not how fast
    tests/bench/bench.py --rounds 21    more rounds, for a busy machine

Every program (see bench.h) runs once in each round, one after the other on one core, each time
as a new process, in an order that turns; the figures are medians over the rounds. A ratio is
that of a round's two figures, and again the median: what slows a round down slows both. Ratios
are of time, so below 1 is faster than `raw`. The row "raw again" is raw against itself: what it
is off 1 is chance. The wall clock and the processor time of both ends are measured; a target is
held against the one whose "raw again" was steadier. It is met by a ratio that is no further above
it than the quartiles of "raw again" are off 1.

build/bench.tsv gets a row for each figure: workload, implementation, median, min, max, unit,
ratio. A library that is not there is left out, with a row that says what to install.
"""

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD") or "build"))
CC = shlex.split(os.environ.get("CC") or "cc")
CFLAGS = shlex.split(os.environ.get("CFLAGS") or "")
LDFLAGS = shlex.split(os.environ.get("LDFLAGS") or "")
ROUNDS = 15
LIMIT_S = 120

# name: (what its program links, the Debian package)
PROGRAMS = {
    "raw": ([], ""),
    "netkit": (["-pthread"], ""),
    "stdio": ([], ""),
    "libuv": (["-luv"], "libuv1-dev"),
    "libevent": (["-levent"], "libevent-dev"),
}



class Workload:
    """What is measured: for each implementation the program's arguments."""

    def __init__(self, name, unit, args, target, quick, who="raw netkit libuv libevent",
                 beside=None, judge=("netkit", "raw")):
        self.name = name
        self.unit = unit
        self.args = args
        self.target = target        # of judge[0]'s ratio to judge[1], or a figure in bytes
        self.quick = quick          # the arguments for a smoke run
        self.who = who.split()
        self.beside = beside        # more rows: (what is said behind the name, arguments, quick)
        self.judge = judge
        # What the ratios are to, and is measured once more.
        self.base = "raw" if "raw" in self.who else judge[1]
        self.again = self.base + " again"

    def rows(self, quick):
        """(row, program, arguments): the measure first, then the measure again."""
        args = self.quick if quick else self.args
        rows = []
        for who in self.who:
            rows.append((who, who, args))
            if who == self.base:
                rows.append((self.again, who, args))
        if self.beside is not None:
            words, more, more_quick = self.beside
            rows += [(who + words, who, more_quick if quick else more) for who in self.who]
        return rows


WORKLOADS = [
    Workload("lines of 8 B", "ns/line", "lines 8 60", 0.60, "lines 8 2",
             "raw netkit stdio libuv libevent"),
    Workload("lines of 64 B", "ns/line", "lines 64 300", 0.80, "lines 64 2",
             "raw netkit stdio libuv libevent"),
    Workload("lines of 1,000 B", "ns/line", "lines 1000 300", 1.00, "lines 1000 2",
             "raw netkit stdio libuv libevent"),
    Workload("round trip of 1 B, blocking", "ns", "echo 1 2000 block", 1.03, "echo 1 20 block",
             "raw netkit"),
    Workload("round trip of 1 KiB, blocking", "ns", "echo 1024 2000 block", 1.03,
             "echo 1024 20 block", "raw netkit"),
    Workload("round trip of 1 B, deadline", "ns", "echo 1 2000 deadline", 1.15,
             "echo 1 20 deadline", "raw netkit"),
    Workload("round trip of 1 KiB, deadline", "ns", "echo 1024 2000 deadline", 1.15,
             "echo 1024 20 deadline", "raw netkit"),
    Workload("round trip of 1 B, poller", "ns", "echo 1 2000 poll", 1.15, "echo 1 20 poll"),
    Workload("round trip of 1 KiB, poller", "ns", "echo 1024 2000 poll", 1.15,
             "echo 1024 20 poll"),
    Workload("one way, 64 KiB writes", "ns/write", "oneway 1500", 1.00, "oneway 20"),
    Workload("connect, accept, close", "ns", "connect 1000", 1 / 0.97, "connect 10"),
    Workload("the same by \"localhost\"", "ns", "connect-name 800", 1 / 1.3, "connect-name 10"),
    Workload("round trip, many connections", "ns", "room 0 2000", 1.03, "room 0 20",
             beside=(" beside 8,000 idle", "room 8000 2000", "room 50 20"),
             judge=("netkit beside 8,000 idle", "netkit")),
    Workload("memory of an idle connection", "bytes", "memory 8000", 256, "memory 50",
             "netkit libuv libevent"),
    Workload("memory with one byte pending", "bytes", "pending 10000", 512, "pending 50",
             "netkit libevent"),
    Workload("reading an address", "ns", "parse 6", 0.45, "parse 1"),
    Workload("writing an address", "ns", "format 3", 0.20, "format 1"),
    Workload("datagrams of 64 B, one by one", "ns", "datagrams 300 one", 1.00, "datagrams 3 one",
             "raw netkit libuv"),
    Workload("the same, connected", "ns", "datagrams 300 connected", 1 / 1.08,
             "datagrams 3 connected", "raw netkit libuv"),
    Workload("datagrams of 64 B, in lists", "ns", "datagrams 300 many", 1 / 40,
             "datagrams 3 many", "raw netkit libuv"),
    Workload("the same, without offload", "ns", "datagrams 300 loop", 1 / 1.1,
             "datagrams 3 loop", "raw netkit"),
    Workload("eight calls in memory", "ns", "exchange 300000 bare", 1.05, "exchange 100 bare",
             "netkit", beside=(" wrapped", "exchange 300000 wrapped", "exchange 100 wrapped"),
             judge=("netkit wrapped", "netkit")),
    Workload("datagrams in virtual time", "ns", "virtual 500000", 500, "virtual 1000", "netkit",
             judge=("netkit", "none")),
]


class Missing(Exception):
    pass


def build(name):
    """Builds a program; its path. Missing says what to install."""
    libs, package = PROGRAMS[name]
    path = os.path.join(BUILD, "bench_" + name)
    command = (CC + ["-O2"] + CFLAGS + ["-I.", f"tests/bench/bench_{name}.c", "-o", path] +
               LDFLAGS + libs)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return path
    if package:
        raise Missing(f"not there: apt-get install {package}")
    sys.exit(f"{' '.join(command)}\n{done.stderr}")


def run(path, args):
    """(wall, processor time) of one operation in ns. Missing says what the system refuses."""
    try:
        done = subprocess.run([path] + args.split(), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        sys.exit(f"{path} {args}: did not end within {LIMIT_S} s")
    words = done.stdout.split()
    if done.returncode in (3, 4):
        raise Missing(done.stdout.strip())
    if done.returncode != 0 or len(words) != 2:
        sys.exit(f"{path} {args}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return float(words[0]), float(words[1])


def pin():
    """This and all children on one core: the last one we may use, where interrupts are fewest."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(workload, programs, rounds, quick):
    """({row: [(wall, cpu) of each round]}, {row: why there is none})."""
    figures, reasons = {}, {}
    rows = workload.rows(quick)
    for turn in range(rounds):
        shift = turn % len(rows)
        for row, program, args in rows[shift:] + rows[:shift]:
            if row in reasons:
                continue
            try:
                if isinstance(programs[program], Missing):
                    raise programs[program]
                figures.setdefault(row, []).append(run(programs[program], args))
            except Missing as why:
                reasons[row] = str(why)
                figures.pop(row, None)
    return figures, reasons


def ratios(figures, row, clock, base="raw"):
    """A row's ratio to another in each round."""
    return [mine[clock] / other[clock] for mine, other in zip(figures[row], figures[base])]


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    cuts = statistics.quantiles(values, n=4, method="inclusive")
    return cuts[0], cuts[2]


def verdict(workload, figures):
    """(met or not, how) of the row that the target is for."""
    row, base = workload.judge
    if base not in figures:
        value = statistics.median(cpu if workload.unit == "ns" else wall
                                  for wall, cpu in figures[row])
        return value <= workload.target, f"{value:.0f} of {workload.target}"
    spreads = [quartiles(ratios(figures, workload.again, clock, workload.base))
               for clock in (0, 1)]
    clock = min((0, 1), key=lambda k: spreads[k][1] - spreads[k][0])
    ratio = statistics.median(ratios(figures, row, clock, base))
    spread = max(abs(1 - quartile) for quartile in spreads[clock])
    how = f"{ratio:.2f} {('wall', 'CPU')[clock]}, at most {workload.target:.2f}"
    if ratio > workload.target:
        how += f", spread {100 * spread:.1f} %"
    return ratio <= workload.target * (1 + spread), how


class Table:
    """What is printed, and build/bench.tsv."""

    def __init__(self):
        self.tsv = [("workload", "implementation", "median", "min", "max", "unit",
                     "ratio to raw")]
        self.missed = []
        self.count = 0

    def heading(self):
        print(f"{'':35}{'wall':>12}{'min':>12}{'max':>12}{'CPU':>12}   wall   CPU  target")

    def add(self, workload, figures, reasons, quick):
        print(f"{workload.name}, {workload.unit}")
        for row, _, _ in workload.rows(quick):
            if row in reasons:
                if reasons[row] != "unsupported":
                    print(f"    {row:31}{reasons[row]}")
                    self.tsv.append((workload.name, row, reasons[row], "", "", "", ""))
                continue
            self.count += 1
            self.add_row(workload, figures, row, quick)
        sys.stdout.flush()

    def add_row(self, workload, figures, row, quick):
        text = f"    {row:31}"
        ratio_text = ""
        medians = []
        for clock in (0, 1):
            values = [both[clock] for both in figures[row]]
            if clock == 1 and workload.unit == "bytes":
                continue
            medians.append(statistics.median(values))
            ratio = ""
            if workload.base in figures:
                to = ratios(figures, row, clock, workload.base)
                ratio = f"{statistics.median(to):.3f}"
                ratio_text += f"{ratio:>7}"[:-1]
            unit = workload.unit + ("", " of CPU")[clock]
            self.tsv.append((workload.name, row, f"{medians[-1]:.1f}", f"{min(values):.1f}",
                             f"{max(values):.1f}", unit, ratio))
            if clock == 0:
                text += f"{medians[0]:12.1f}{min(values):12.1f}{max(values):12.1f}"
            else:
                text += f"{medians[1]:12.1f}"
        text += f" {ratio_text}"
        if row == workload.judge[0] and not quick:
            met, how = verdict(workload, figures)
            text += f"  {'met' if met else 'NOT MET'}: {how}"
            if not met:
                self.missed.append(f"{workload.name}: {how}")
        print(text)

    def sizes(self, quick):
        """What `make sizes` says: bytes, netkit's against their bounds."""
        make = shutil.which("make")
        if make is None:
            print("sizes: not there: apt-get install make")
            return
        done = subprocess.run([make, "-s", "sizes", "BUILD=" + BUILD], cwd=ROOT,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"make sizes: {done.stdout}{done.stderr}")
        print("sizes, bytes")
        for line in done.stdout.splitlines():
            if line.count("\t") != 2:
                continue
            size, what, bound = line.split("\t")
            self.count += 1
            self.tsv.append((what, "netkit" if bound else what.split()[0], size, size, size,
                             "bytes", ""))
            text = f"    {what:31}{int(size):12}"
            if bound:
                met = int(size) <= int(bound)
                text += f"{'':46}{'met' if met else 'NOT MET'}: at most {bound}"
                if not met and not quick:
                    self.missed.append(f"{what}: {size} of {bound}")
            print(text)

    def save(self):
        path = os.path.join(BUILD, "bench.tsv")
        with open(path, "w", encoding="ascii") as file:
            for row in self.tsv:
                file.write("\t".join(row) + "\n")
        print(f"\nwritten to {os.path.relpath(path, ROOT)}")


def main():
    parser = argparse.ArgumentParser(description="Measures netkit beside others.")
    parser.add_argument("words", nargs="*", help="only workloads with this in their name")
    parser.add_argument("--quick", action="store_true", help="a few operations of each")
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    os.makedirs(BUILD, exist_ok=True)
    programs = {}
    for name in PROGRAMS:
        try:
            programs[name] = build(name)
        except Missing as why:
            programs[name] = why
    table = Table()
    wanted = [one for one in WORKLOADS
              if not options.words or any(word in one.name for word in options.words)]
    table.heading()
    if not options.words or "sizes" in options.words:
        table.sizes(options.quick)
    pin()
    for workload in wanted:
        table.add(workload, *measure(workload, programs, rounds, options.quick), options.quick)
    table.save()
    if not options.quick:
        print(f"{len(table.missed)} targets not met")
        for line in table.missed:
            print("    " + line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
