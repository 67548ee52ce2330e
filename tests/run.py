#!/usr/bin/env python3
"""Builds and runs the tests, and says how they ended.

    tests/run.py                    what `make test` runs
    tests/run.py --all              what `make test-all` runs
    tests/run.py --config tsan      one configuration (may be repeated)
    tests/run.py unit/ip            only what has this in its name
    tests/run.py --list             what there is

Two tables below say what is run, one line each: CONFIGS, ways to build the C
programs, and STEPS, Python tests and other commands. A C program is a file
tests/SUITE/*.c with a main(); its companions are the .c files beside it whose
headers it includes. One whose name ends in _posix.c is not built for Windows, and one that ends
in _windows.c for nothing else.
Every program and script ends with the line "N passed, N failed[, N skipped]",
and so does this one.

Environment: CC, CFLAGS, LDFLAGS (of the configuration "default"), BUILD,
NKT_TEST_JOBS (how many at a time, 3; with --all 2, and what waits beside),
NKT_TEST_DATA (a folder of third-party vectors), NKT_TEST_NO_SKIP=1 (a skip is a
failure), and for the programs NKT_TEST_ONLY and NKT_TEST_VERBOSE.
"""

import argparse
import collections
import concurrent.futures
import glob
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from nkt_split import split

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD") or "build"))
JOBS = int(os.environ.get("NKT_TEST_JOBS") or (2 if "--all" in sys.argv else 3))
NO_SKIP = os.environ.get("NKT_TEST_NO_SKIP") == "1"

CLOSING = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?")
# A program need not use all that nkt_test.h has; netkit.h is looked at by tests/compile.
WARNINGS = ("-std=c99 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion"
            " -Wno-unused-function")
ASAN = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
PROGRAM_LIMIT_S = 60        # times the configuration's `slow`


class Config:
    """A way to build and run the C programs."""

    def __init__(self, name, cc, flags, suites="unit scenario data fuzz", libs="-pthread", slow=1,
                 needs="", wine=False, prefix="", emulator="", match="", unlike="",
                 unlike_emulated="", in_test=False, later=""):
        self.name = name
        self.cc = shlex.split(cc)
        self.flags = shlex.split(flags)
        self.suites = suites.split()
        self.libs = shlex.split(libs)
        self.slow = slow
        self.needs = needs                      # what to install where it does not work
        self.wine = wine
        self.prefix = shlex.split(prefix)       # put before the program
        self.emulator = shlex.split(emulator)   # its prefix where the kernel does not run it
        self.match = re.compile(match)          # which programs ...
        self.unlike = re.compile(unlike) if unlike else None    # ... and which not
        # ... nor these, where the emulator is what runs them
        self.unlike_emulated = re.compile(unlike_emulated) if unlike_emulated else None
        self.emulated = False                   # known once obstacle() has looked
        self.in_test = in_test                  # part of `make test`, or of test-all only
        # ... of which only there: what takes longest to build and tells a user least
        self.later = re.compile(later) if later and "--all" not in sys.argv else None


# Address randomness of more than 28 bits is more than this age of thread sanitizers bears.
NO_ASLR = "setarch -R" if shutil.which("setarch") else ""
# Debian's gcc-multilib, which makes /usr/include/asm, keeps cross compilers out; gcc-12-multilib
# does not.
M32 = "gcc -m32 -idirafter /usr/include/x86_64-linux-gnu"
# qemu 7.2 hands the control messages of datagrams on in the byte order of this machine, or not at
# all, and knows no MCAST_JOIN_GROUP, IP_MTU and SO_BINDTODEVICE: not the tests of these.
QEMU_NOT = (r"/test_udp(_groups|_many(_impaired)?|_refusals_posix)?\.c|"
            r"/(udp_scenario|fault_udp_posix)\.c")

CHARS = r"data/|scenario/(udp_)?scenario|/test_(addr|net|target|transport|udp\w*)\.c"

CONFIGS = [
    # No -Werror here: this is run with compilers we have not seen.
    Config("default", os.environ.get("CC") or "cc",
           WARNINGS + " " + (os.environ.get("CFLAGS") or "-g"),
           libs=(os.environ.get("LDFLAGS") or "") + " -pthread", in_test=True,
           # Each with an implementation of its own, whose calls of the system are replaced.
           later=r"/test_(lookup_alone|lookup_threads|sys|sys_udp)_posix\.c"),
    # Nor where gcc guesses: under sanitizers it warns of conversions that it sees through without
    # them, at -O2 of what a test might do. netkit.h at -O2 is held to it in tests/compile.
    Config("gcc-asan", "gcc", WARNINGS + " -O1 -g " + ASAN, slow=4, needs="gcc"),
    # The corpora of tests/fuzz meet clang's sanitizers in the step "fuzz", and more than these.
    Config("clang-asan", "clang", WARNINGS + " -Werror -O1 -g " + ASAN, slow=4,
           suites="unit scenario data", needs="clang and its compiler-rt"),
    # Some kernels are made to run no 32-bit programs. Threads under qemu-i386 7.2 share a table of
    # segments, and a signal makes one take another's thread-local memory: not that program.
    Config("m32", M32, WARNINGS + " -O1 -g -D_FILE_OFFSET_BITS=64", slow=4,
           emulator="qemu-i386-static",
           unlike_emulated="lookup_threads|" + QEMU_NOT,
           needs="gcc-12-multilib and qemu-user-static"),
    Config("poll", "gcc", WARNINGS + " -O2 -DNETKIT_USE_POLL", suites="unit scenario data",
           needs="gcc"),
    Config("kqueue", "gcc",
           WARNINGS + " -Werror -O1 -g -DNKTI_KQUEUE_SHIM -Itests/compile/kqueue",
           suites="unit scenario",
           libs="tests/compile/kqueue/kqueue.c -pthread", needs="gcc"),
    # What tests/fuzz looks at asks the C library for nothing that the others have not.
    Config("musl", "musl-gcc", WARNINGS + " -O1 -static", needs="musl-tools",
           suites="unit scenario data", unlike="lookup_threads"),
    # It also closes a library, and a static program can open none.
    Config("musl-shared", "musl-gcc", WARNINGS + " -O1", match="lookup_threads",
           needs="musl-tools"),
    # Big-endian, and its char is unsigned.
    Config("s390x", "s390x-linux-gnu-gcc-12", WARNINGS + " -O1 -g", slow=6,
           prefix="qemu-s390x-static -L /usr/s390x-linux-gnu", unlike=QEMU_NOT,
           needs="gcc-12-s390x-linux-gnu, libc6-dev-s390x-cross and qemu-user-static"),
    # What makes calls fail in turn has its workers and its peers in threads.
    Config("no-threads", "gcc", WARNINGS + " -Werror -O1 -DNETKIT_NO_THREADS",
           suites="unit scenario", unlike=r"_threads|scenario/fault", needs="gcc"),
    Config("tsan", "gcc", WARNINGS + " -O1 -g -fsanitize=thread", slow=6,
           match=r"_threads|^scenario/|/test_(poller|listen|connect|transport|env|lookup|race|"
                 r"refusals|sys_posix|udp\w*|impair\w*|virtual)\.c",
           unlike=r"fault_", prefix=NO_ASLR, needs="gcc and libtsan"),
    # The bugs of other libraries that show in a whole run: descriptors beyond select()'s, and a
    # char that is signed or not.
    Config("bug-25-high-descriptors", "gcc", WARNINGS + " -O1 -g", suites="unit scenario", slow=3,
           prefix="python3 " + os.path.join(ROOT, "tests", "high_fds.py"),
           unlike=r"fault|_posix|lookup|race", needs="gcc"),
    Config("bug-43-signed-char", "gcc", WARNINGS + " -O1 -fsigned-char",
           match=CHARS, needs="gcc"),
    Config("bug-43-unsigned-char", "gcc", WARNINGS + " -O1 -funsigned-char",
           match=CHARS, needs="gcc"),
    # Every call of the system and the allocator fails in turn, over whole tables: some minutes of
    # both cores. The other configurations run a sample of it.
    Config("fault", "gcc", WARNINGS + " -O1 -g -DFAULT_ALL " + ASAN, slow=20, match=r"fault",
           needs="gcc"),
    Config("wine", "x86_64-w64-mingw32-gcc", WARNINGS + " -Werror -O1 -g", slow=3,
           suites="unit scenario data", libs="-lws2_32 -liphlpapi", wine=True,
           needs="mingw-w64 and wine64"),
]


class Step:
    """Something else to run: the scripts tests/NAME/test_*.py, each by itself, or one command."""

    def __init__(self, name, command="", in_test=False, waits=False, times=False, counts=True,
                 limit_s=900, needs="", each=()):
        self.name = name
        self.command = shlex.split(command)     # in the top folder; "python3" is this Python
        self.each = each                        # words: it is run once with each at its end
        self.in_test = in_test                  # part of `make test`, or of test-all only
        self.waits = waits                      # mostly: one of these is run beside the others
        self.times = times                      # it measures: it goes first, where root may say so
        self.counts = counts                    # whether it ends with a closing line
        self.limit_s = limit_s
        self.needs = needs                      # what to install where the program is missing

    def commands(self):
        """Gives (name, command) of everything it runs."""
        if self.command:
            python = [sys.executable] if self.command[0] == "python3" else self.command[:1]
            command = python + self.command[1:]
            return [(self.name + "/" + word, command + [word]) for word in self.each] or [
                (self.name, command)]
        found = sorted(glob.glob(os.path.join(ROOT, "tests", self.name, "test_*.py")))
        return [(self.name + "/" + os.path.basename(source), [sys.executable, source])
                for source in found]


FUZZ_TARGETS = sorted(os.path.basename(path)[5:-2] for path in
                      glob.glob(os.path.join(ROOT, "tests", "fuzz", "fuzz_*.c")))

# They are told by NKT_TEST_ALL=1 that all is wanted. Longest first, so that the other worker has
# something to do beside it.
STEPS = [
    Step("platforms", limit_s=1500),
    Step("compile", in_test=True, limit_s=1500),
    Step("python", in_test=True),
    Step("pythons", limit_s=1800),
    Step("examples", in_test=True),
    Step("fuzz", "python3 tests/fuzz/test_fuzz.py 30", each=FUZZ_TARGETS),
    Step("analyze"),
    Step("coverage"),
    Step("interop"),
    Step("load", in_test=True, waits="--all" in sys.argv),
    Step("lint", "python3 tests/lint.py"),
    Step("bench"),
    Step("lab", waits=True, times=True),
]


class Result:
    def __init__(self, step, name):
        self.step = step
        self.name = name
        self.passed = self.failed = self.skipped = 0
        self.seconds = 0.0
        self.notes = []             # what went wrong, besides the tests' own words
        self.output = ""

    def fail(self, note):
        self.failed += 1
        self.notes.append(note)

    def skip(self, note):
        if NO_SKIP:
            self.fail("a skip is a failure here: " + note)
        else:
            self.skipped += 1
            self.notes.append("skipped: " + note)

    def counts(self):
        text = "%d passed, %d failed" % (self.passed, self.failed)
        return text + (", %d skipped" % self.skipped if self.skipped else "")


running = set()
running_lock = threading.Lock()


def execute(command, limit_s, env=None):
    """Runs a command in a process group of its own. Gives (exit status or None, output)."""
    # A file and not a pipe: Wine's services live on and would hold the pipe open.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        with running_lock:
            running.add(process)
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            kill_group(process)
            process.wait()
            status = None
        finally:
            if env is None or "WINEPREFIX" not in env:
                kill_group(process)         # also what a program has left behind
            with running_lock:
                running.discard(process)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    return status, text.replace("\r\n", "\n")


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def read_closing(result, status, output, limit_s):
    """Takes the counts from the last line, and distrusts them."""
    result.output = output
    lines = output.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    closing = CLOSING.fullmatch(lines[-1].strip()) if lines else None
    if closing:
        result.passed += int(closing.group(1))
        result.failed += int(closing.group(2))
        skipped = int(closing.group(3) or 0)
        if NO_SKIP:
            result.failed += skipped
            if skipped:
                result.notes.append("%d skipped, and a skip is a failure here" % skipped)
        else:
            result.skipped += skipped
        if not any(int(count or 0) for count in closing.groups()):
            result.fail("it ran no test")
    if status is None:
        result.fail("killed after %g s" % limit_s)
    elif not closing:
        result.fail("ended without a closing line, with status %d" % status)
    elif status != 0 and int(closing.group(2)) == 0:
        result.fail("says that all is well, but ended with status %d" % status)
    elif status == 0 and int(closing.group(2)) != 0:
        result.fail("has failures, but ended with status 0")


def companions(source):
    """The .c files beside `source` that belong to headers it includes, also through others."""
    folder = os.path.dirname(source)
    found, seen, queue = [], set(), [source]
    while queue:
        with open(queue.pop(), encoding="utf-8") as file:
            names = re.findall(r'^\s*#\s*include\s+"([^"/]+)\.h"', file.read(), re.M)
        for name in names:
            header = os.path.join(folder, name + ".h")
            code = os.path.join(folder, name + ".c")
            if name in seen or not os.path.exists(header):
                continue
            seen.add(name)
            queue.append(header)
            if os.path.exists(code) and code != source and not has_main(code):
                found.append(code)
    return found


# What makes a program need an implementation of its own: it looks inside other than through
# inside.h, or changes what the implementation is made of.
INSIDE = re.compile(r"\bnkti_|\bNKTI_(?!LISTEN_INTERFACE|CONNECT_RECHECK)|->handle\.|"
                    r"^#define NETKIT_(?!IMPLEMENTATION\b)|^\s*#define [a-z]\w* [a-z]\w*$", re.M)
WINDOW = os.path.join(ROOT, "tests", "inside.h")


def is_inside(sources):
    """Whether one of the sources, or a header of theirs, matches INSIDE."""
    seen, queue = {WINDOW}, list(sources)
    while queue:
        path = queue.pop()
        seen.add(path)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if INSIDE.search(text):
            return True
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M):
            header = os.path.normpath(os.path.join(os.path.dirname(path), name))
            if os.path.exists(header) and header not in seen:
                queue.append(header)
    return False


def has_main(source):
    with open(source, encoding="utf-8") as file:
        return re.search(r"^(int main|FUZZ_TARGET)\(", file.read(), re.M) is not None


def stamp_of(command, sources):
    """A hash of everything the program is made of, so that it is built only when that changed."""
    digest = hashlib.sha256("\0".join(command).encode())
    headers = glob.glob(os.path.join(ROOT, "tests", "*.h"))
    headers += glob.glob(os.path.join(ROOT, "tests", "*", "*.h"))
    for path in [os.path.join(ROOT, "netkit.h")] + sorted(headers) + sources:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_fresh(target, stamp):
    if not os.path.exists(target) or not os.path.exists(target + ".stamp"):
        return False
    with open(target + ".stamp", encoding="ascii") as file:
        return file.read() == stamp


def compile_to(target, command, sources, suffix=""):
    """Runs a compiler where something has changed; gives "" or its complaint."""
    stamp = stamp_of(command, sources)
    if is_fresh(target, stamp):
        return ""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    # Made beside and moved into place, for who runs the tests twice at the same time.
    fresh = "%s.%d%s" % (target, os.getpid(), suffix)
    status, output = execute(command + ["-o", fresh], 300)
    if status != 0:
        return " ".join(command + ["-o", target]) + "\n" + output
    os.replace(fresh, target)
    with open(target + ".stamp", "w", encoding="ascii") as file:
        file.write(stamp)
    return ""


building = collections.defaultdict(threading.Lock)      # an implementation, by its configuration


def implementation(config):
    """What the programs of a configuration share: gives a complaint or "", the object, and the
    folder of its netkit.h."""
    folder = os.path.join(BUILD, "tests", config.name, "netkit")
    target = os.path.join(folder, "netkit.o")
    with building[config.name]:
        source = split(folder, [WINDOW])
        complaint = compile_to(target, config.cc + config.flags + ["-c", source], [source])
    return complaint, target, folder


def build(config, source, target):
    """Gives "" or the compiler's complaint."""
    sources = [source] + companions(source)
    own = [os.path.join(ROOT, word) for word in config.libs if word.endswith(".c")]
    paths = ["-I" + ROOT, "-I" + os.path.join(ROOT, "tests")]
    objects = []
    if not is_inside(sources):
        complaint, built, folder = implementation(config)
        if complaint:
            return complaint
        paths.insert(0, "-I" + folder)
        objects = [built]
    command = config.cc + config.flags + paths + sources + objects + config.libs
    return compile_to(target, command, sources + own, ".exe" if config.wine else "")


def environment(config=None):
    env = dict(os.environ)
    env["NKT_TEST_BUILD"] = BUILD
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    env["PYTHONPYCACHEPREFIX"] = os.path.join(BUILD, "pycache")     # not into the tree
    if config is not None:
        # How a test builds and runs something itself.
        env["NKT_TEST_CC"] = " ".join(config.cc)
        env["NKT_TEST_PREFIX"] = " ".join(config.prefix)
        # The long way of a program is gone once.
        env.pop("NKT_TEST_ALL", None)
        if config.name == "default" and "--all" in sys.argv:
            env["NKT_TEST_ALL"] = "1"
    if config is not None and config.wine:
        env["WINEDEBUG"] = "-all"
        env["WINEPREFIX"] = os.path.join(BUILD, "wine")
        env["WINEDLLOVERRIDES"] = "mscoree,mshtml="     # or it asks to download them
        env.pop("DISPLAY", None)
    return env


def run_program(config, source):
    name = os.path.relpath(source, os.path.join(ROOT, "tests"))
    result = Result("%s: %s" % (config.name, name.split(os.sep)[0]), name)
    begin = time.monotonic()
    target = os.path.join(BUILD, "tests", config.name, name[:-2])
    if config.wine:
        target += ".exe"
    complaint = build(config, source, target)
    if complaint:
        result.fail("does not build")
        result.output = complaint
    else:
        env = environment(config)
        limit_s = PROGRAM_LIMIT_S * config.slow * (4 if "NKT_TEST_ALL" in env else 1)
        command = config.prefix + (["wine"] if config.wine else []) + [target]
        status, output = execute(command, limit_s, env)
        read_closing(result, status, output, limit_s)
    result.seconds = time.monotonic() - begin
    return result


def run_step(step, name, command, everything):
    result = Result("step: " + step.name, name)
    begin = time.monotonic()
    env = environment()
    if everything:
        env["NKT_TEST_ALL"] = "1"
        if os.path.realpath(sys.executable).startswith("/usr/bin/python3"):
            env["NKT_TEST_UVLOOP"] = "1"        # Debian's uvloop is for Debian's Python
    else:
        env.pop("NKT_TEST_ALL", None)
    if not shutil.which(command[0]):
        result.skip("there is no %s; install %s" % (command[0], step.needs or command[0]))
        return result
    if step.times and shutil.which("chrt") and execute(["chrt", "-r", "1", "true"], 20)[0] == 0:
        command = ["chrt", "-r", "1"] + command
    status, output = execute(command, step.limit_s, env)
    if step.counts:
        read_closing(result, status, output, step.limit_s)
    else:
        result.output = output
        if status == 0:
            result.passed += 1
        else:
            result.fail("killed after %g s" % step.limit_s if status is None
                        else "ended with status %d" % status)
    result.seconds = time.monotonic() - begin
    return result


def obstacle(config):
    """Why a configuration cannot be used on this machine, or ""."""
    for tool in config.cc[:1] + config.prefix[:1]:
        if not shutil.which(tool):
            return "there is no %s; install %s" % (tool, config.needs)
    folder = os.path.join(BUILD, "tests", config.name)
    os.makedirs(folder, exist_ok=True)
    source = os.path.join(folder, "probe.c")
    target = os.path.join(folder, "probe.exe")
    with open(source, "w") as file:
        file.write("#include <stdio.h>\nint main(void) { return puts(\"probe\") < 0; }\n")
    status, output = execute(config.cc + config.flags + [source, "-o", target] + config.libs, 60)
    if status != 0:
        return "%s does not build a program; install %s\n%s" % (
            " ".join(config.cc), config.needs, output)
    env = environment(config)
    if config.wine:
        if not shutil.which("wine"):
            return "there is no wine; install " + config.needs
        # A server of our own that stays, so that no program pays for its start.
        execute(["wineserver", "-p"], 20, env)
        if not os.path.exists(os.path.join(BUILD, "wine", "system.reg")):
            execute(["wine", "wineboot", "-i"], 180, env)
    for prefix in [config.prefix] + [[word] for word in config.emulator if shutil.which(word)]:
        command = prefix + (["wine"] if config.wine else []) + [target]
        try:
            status, output = execute(command, 60, env)
        except OSError as error:
            status, output = 126, str(error)
        if status == 0 and output.strip() == "probe":
            config.emulated = prefix != config.prefix
            config.prefix = prefix
            return ""
    return "%s builds programs that do not run; install %s\n%s" % (
        " ".join(config.cc), config.needs, output)


def programs_of(config, words):
    found = []
    for suite in config.suites:
        for source in sorted(glob.glob(os.path.join(ROOT, "tests", suite, "*.c"))):
            name = suite + "/" + os.path.basename(source)
            wanted = config.match.search(name) and not (config.unlike and
                                                        config.unlike.search(name))
            if name.endswith("_posix.c" if config.wine else "_windows.c"):
                wanted = False
            if config.emulated and config.unlike_emulated.search(name):
                wanted = False
            if wanted and has_main(source) and any(word in name for word in words):
                found.append(source)
    return found


def ordered(sources):
    """The first makes what they share; those that have an implementation of their own come next,
    so that no worker waits for it; then those that take long, which should not be the last."""
    own = [source for source in sources if is_inside([source] + companions(source))]
    shared = [source for source in sources if source not in own]
    long = [source for source in shared[1:] if source.endswith("scenario.c")]
    return shared[:1] + own + long + [source for source in shared[1:] if source not in long]


def plan(options):
    """Gives the jobs to do: (name, function, whether it mostly waits)."""
    jobs = []
    words = options.words or [""]
    brief = not (options.words or options.config)
    chosen = [config for config in CONFIGS
              if (config.name in options.config if options.config
                  else options.all or config.in_test)]
    for step in STEPS:
        if options.config or not (options.all or step.in_test):
            continue
        for name, command in step.commands():
            if any(word in name for word in words):
                jobs.append((name, lambda s=step, n=name, c=command:
                             run_step(s, n, c, options.all), step.waits))
    chosen = [config for config in chosen if programs_of(config, words)]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        reasons = list(pool.map(lambda config: "" if options.list else obstacle(config), chosen))
    for config, why in zip(chosen, reasons):
        if why:
            jobs.append((config.name, lambda c=config, w=why: refused(c, w), False))
            continue
        # Fewer, if only an emulator runs them.
        sources = [source for source in programs_of(config, words)
                   if not (brief and config.later and config.later.search(source))]
        for source in ordered(sources):
            name = config.name + ": " + os.path.relpath(source, os.path.join(ROOT, "tests"))
            # The table of scenarios waits for time-outs half of its time.
            waits = options.all and name.endswith("scenario.c")
            jobs.append((name, lambda c=config, s=source: run_program(c, s), waits))
    return jobs


def refused(config, why):
    result = Result(config.name + ": (all)", config.name)
    result.skip(why)
    return result


def say(result):
    """One line for a program; all it said where something is wrong, set off from our words."""
    word = "FAILED" if result.failed else "ok"
    print("%-6s %-44s %-30s %6.1f s" % (word, result.step.split(":")[0] + ": " + result.name,
                                        result.counts(), result.seconds))
    for note in result.notes:
        print("       " + note.replace("\n", "\n       "))
    lines = result.output.rstrip().split("\n")
    if not result.failed:
        lines = [line for line in lines if line.startswith("skipped ")]
    for line in lines:
        if line:
            print("     | " + line)
    sys.stdout.flush()


def summary(results, elapsed_s):
    steps = {}
    for result in results:
        total = steps.setdefault(result.step, Result(result.step, ""))
        total.passed += result.passed
        total.failed += result.failed
        total.skipped += result.skipped
        total.seconds += result.seconds
    print("\n%-30s %-36s %s" % ("step", "result", "time"))
    for step in sorted(steps):
        total = steps[step]
        print("%-30s %-36s %6.1f s" % (step, total.counts(), total.seconds))
    print("%-30s %-36s %6.1f s\n" % ("all of it", "%d at a time" % JOBS, elapsed_s))


def say_failures(results):
    """Once more at the end, where they are looked for: what failed, a line each."""
    for result in results:
        if not result.failed:
            continue
        lines = [line for line in result.output.split("\n") if line.startswith("FAILED")]
        for line in result.notes + lines or result.output.rstrip().split("\n")[-3:]:
            print("FAILED %s: %s" % (result.step.split(":")[0] + ": " + result.name,
                                     line.split("\n")[0][:300]))


def stop_wine():
    prefix = os.path.join(BUILD, "wine")
    if shutil.which("wineserver") and os.path.isdir(prefix):
        execute(["wineserver", "-k"], 20, dict(os.environ, WINEPREFIX=prefix))


def main():
    parser = argparse.ArgumentParser(description="Builds and runs the tests.")
    parser.add_argument("words", nargs="*", help="only what has this in its name")
    parser.add_argument("--all", action="store_true", help="every configuration and script")
    parser.add_argument("--config", action="append", choices=[c.name for c in CONFIGS])
    parser.add_argument("--list", action="store_true", help="say what would be run")
    options = parser.parse_args()
    begin = time.monotonic()
    results = []
    jobs = plan(options)
    if options.list:
        for name, _, _ in jobs:
            print(name)
        return 0
    try:
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool, \
                concurrent.futures.ThreadPoolExecutor(1) as beside:
            futures = [(beside if waits else pool).submit(job) for _, job, waits in jobs]
            for future in concurrent.futures.as_completed(futures):
                results.append(future.result())
                say(results[-1])
    except BaseException:
        with running_lock:
            for process in running:
                kill_group(process)
        raise
    finally:
        if any(name.startswith("wine") for name, _, _ in jobs):
            stop_wine()
    summary(results, time.monotonic() - begin)
    say_failures(results)
    total = Result("", "")
    for result in results:
        total.passed += result.passed
        total.failed += result.failed
        total.skipped += result.skipped
    if total.passed + total.failed == 0:
        total.fail("nothing was run")
        print("nothing was run")
    print(total.counts())
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
