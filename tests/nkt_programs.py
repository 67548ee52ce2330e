"""What the tests that run programs share: building, running with deadlines, and rows of results.

    suite = Suite("examples")
    with suite.row("the tour"):
        tour = Program([path])
        tour.expect(r"^listening on .*:(\\d+)$")
        equal(tour.finish(), 0)
    sys.exit(suite.finish())

CC and CFLAGS are respected. With a mingw compiler the programs are run by wine. A missing program
is a skip that names its package; with NKT_TEST_NO_SKIP=1 a skip is a failure.
"""

import atexit
import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from nkt_split import split

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EVERYTHING = os.environ.get("NKT_TEST_ALL") == "1"
CC = shlex.split(os.environ.get("CC", "cc"))
STRICT = ("-std=c99 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion "
          "-Werror").split()
DEADLINE = 60.0         # seconds; for what takes far less on any machine

_programs = []


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def compiler_is_mingw():
    out = subprocess.run(CC + ["-dumpmachine"], capture_output=True, text=True, check=False)
    return "mingw" in out.stdout


MINGW = compiler_is_mingw()
RUNNER = ["wine"] if MINGW else []
os.environ.setdefault("WINEDEBUG", "-all")
WINE_SAYS = ("it looks like wine32 is missing", 'as root, please execute "apt-get install wine32')


@atexit.register
def _stop_everything():
    for program in _programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()


def equal(got, want, what="value"):
    if got != want:
        raise Failure(f"{what} is {shorten(got)}, not {shorten(want)}")


def shorten(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}...{text[-60:]} ({len(value)} long)"


def need(program, package):
    """The path of a program, or a skip."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise Skip(f"{program} is not installed: apt-get install {package}")
    return path


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


def free_port():
    """A port that is free in both families now. A server that finds it taken is started again."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            try:
                if has_ipv6():
                    with socket.socket(socket.AF_INET6) as other:
                        other.bind(("::1", port))
                return port
            except OSError:
                continue


class Program:
    """A running program whose output is waited for, line by line."""

    def __init__(self, command, stdin=subprocess.PIPE, runner=None, **more):
        self.command = (RUNNER if runner is None else runner) + command
        self.name = os.path.basename(command[0])
        self.lines = []             # stdout and stderr, as they came
        self.seen = 0
        self.changed = threading.Condition()
        self.ended = False
        self.process = subprocess.Popen(self.command, stdin=stdin, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, **more)
        _programs.append(self)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for raw in self.process.stdout:
            if MINGW and raw.decode("utf-8", "replace").startswith(WINE_SAYS):
                continue
            with self.changed:
                self.lines.append(raw.decode("utf-8", "replace").rstrip("\r\n"))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def expect(self, pattern, seconds=DEADLINE):
        """The first line from here on that matches; what is before it is passed over."""
        end = time.monotonic() + seconds
        with self.changed:
            start = self.seen
            while True:
                while self.seen < len(self.lines):
                    line = self.lines[self.seen]
                    self.seen += 1
                    match = re.search(pattern, line)
                    if match:
                        return match
                left = end - time.monotonic()
                if left <= 0 or self.ended:
                    why = "it ended" if self.ended else f"after {seconds} s"
                    raise Failure(f"{self.name} did not print {pattern!r} ({why}); it printed "
                                  f"{shorten(self.lines[start:])}")
                self.changed.wait(left)

    def say(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def end_input(self):
        self.process.stdin.close()

    def finish(self, seconds=DEADLINE):
        """Waits for the end of the program and of its output; its exit code."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not end within {seconds} s; it printed "
                          f"{shorten(self.lines)}") from None
        with self.changed:
            while not self.ended:
                if not self.changed.wait(seconds):
                    raise Failure(f"the output of {self.name} did not end")
        return code

    def stop(self):
        """Ends a server; it must have been alive until now."""
        code = self.process.poll()
        self.process.kill()
        self.process.wait()
        if code is not None:
            raise Failure(f"{self.name} had ended by itself with {code}; it printed "
                          f"{shorten(self.lines)}")

    def port(self):
        """Where a server that was told port 0 listens."""
        return int(self.expect(r"listening on .*:(\d+)$").group(1))


def show_programs(programs):
    """After a failure: what became of everything that the row had started, and what it said."""
    time.sleep(0.2)         # a crash takes a moment to be seen
    for program in programs:
        code = program.process.poll()
        state = "runs" if code is None else f"ended with {code}"
        print(f"    {' '.join(program.command)[:200]}: {state}")
        for line in program.lines[:3] + ["..."] * (len(program.lines) > 23) + \
                program.lines[3:][-20:]:
            print(f"      | {shorten(line)}")


class Suite:
    def __init__(self, name):
        self.name = name
        self.passed = self.failed = self.skipped = 0
        self.only = os.environ.get("NKT_TEST_ONLY", "")

    @contextlib.contextmanager
    def _row(self, name):
        start = time.monotonic()
        before = len(_programs)
        try:
            yield
            self.passed += 1
            print(f"ok {name} ({time.monotonic() - start:.1f} s)")
        except Skip as why:
            if os.environ.get("NKT_TEST_NO_SKIP") == "1":
                self.failed += 1
                print(f"FAILED {name}: a skip is a failure here: {why}")
            else:
                self.skipped += 1
                print(f"skipped {name}: {why}")
        except Failure as why:
            self.failed += 1
            print(f"FAILED {name}: {why}")
            show_programs(_programs[before:])
        except Exception:
            self.failed += 1
            print(f"FAILED {name}: {traceback.format_exc()}")
            show_programs(_programs[before:])
        sys.stdout.flush()

    def run(self, name, function, *args):
        """One row: a function that raises when something is not as it should be."""
        if self.only not in name:
            return
        with self._row(name):
            function(*args)

    def finish(self):
        more = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {self.failed} failed{more}")
        if self.passed + self.failed + self.skipped == 0:
            print("no test was run")
            return 1
        return 1 if self.failed else 0


def head_comment(path):
    """The comment a C file begins with, without its slashes."""
    lines = []
    with open(path, encoding="ascii") as file:
        for line in file:
            if not line.startswith("//"):
                break
            lines.append(line[3:].rstrip("\n"))
    return lines


def build_line(path):
    """The build command that a program's first lines give, as words."""
    text = "\n".join(head_comment(path))
    match = re.search(r"^    (cc .*?)(?: && .*)?$", text, re.M)
    if match is None:
        raise Failure(f"{path} does not say how to build it")
    command = match.group(1)
    for asked in re.findall(r"^    flags=\$\(pkg-config --cflags --libs (\S+)\)$", text, re.M):
        out = subprocess.run([need("pkg-config", "pkg-config"), "--cflags", "--libs", asked],
                             capture_output=True, text=True, check=False)
        if out.returncode != 0:
            package = {"glib-2.0": "libglib2.0-dev", "libuv": "libuv1-dev"}.get(asked, asked)
            raise Skip(f"{asked} is not installed: apt-get install {package}")
        # Other people's headers are not held to our warnings.
        command = command.replace("$flags", out.stdout.replace("-I", "-isystem "))
    return shlex.split(command)[1:]


def build_folder():
    """A folder for this run alone: another one may be under way, with other flags."""
    top = os.path.join(ROOT, os.environ.get("BUILD") or "build")
    os.makedirs(top, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="examples-", dir=top)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_shared_lock = threading.Lock()


def shared(folder):
    """The object that programs are linked with where not each has to have an implementation."""
    target = os.path.join(folder, "netkit", "netkit.o")
    with _shared_lock:
        if not os.path.exists(target):
            source = split(os.path.dirname(target))
            compile_strictly([source, "-c", "-o", target])
    return target


def compile_strictly(words, libs=()):
    command = (CC + STRICT + shlex.split(os.environ.get("CFLAGS", "")) + list(words) + list(libs) +
               shlex.split(os.environ.get("LDFLAGS", "")))
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if out.returncode != 0 or out.stderr:
        raise Failure(f"{' '.join(command)}\n{out.stderr[:3000]}")


def build(name, folder):
    """Builds an example, strictly; the path of the program.

    As its first lines say where NKT_TEST_ALL=1, otherwise with an implementation that all share.
    """
    words = build_line(os.path.join(ROOT, "examples", name + ".c"))
    is_program = "-c" not in words
    target = os.path.join(folder, name + (".exe" if MINGW else "" if is_program else ".o"))
    if "-o" in words:
        at = words.index("-o")
        equal(words[at + 1], name, "the name of the program in the build line")
        del words[at:at + 2]
    if not EVERYTHING:
        built = shared(folder)
        words.insert(0, "-I" + os.path.dirname(built))
        if is_program:
            words.append(built)
    compile_strictly(words + ["-o", target],
                     ["-lws2_32", "-liphlpapi"] if MINGW and is_program else [])
    return target
