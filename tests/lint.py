#!/usr/bin/env python3
"""The rules of the house that a program can check.

    tests/lint.py               every rule; complaints as file:line: rule: message
    tests/lint.py widths os     these rules only
    tests/lint.py --contents    the manual's CONTENTS, from the MARK lines, to paste

A rule is a function below, marked with @rule, that yields (file, line, message).

Code blocks in README.md (```c) and the manual's example are compiled: one that begins with
"#define NETKIT_IMPLEMENTATION" is a whole program, and is run if it has a main(), with
"localhost:6379" served by something that answers PING as redis does; it has to end well. One
after the line "<!-- runs for ever -->" has to be still at work after a second. Other blocks are
the inside of a function, behind PRELUDE, or a file of their own if they begin with "#include".
```python blocks are checked for syntax.
"""

import ast
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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CC = shlex.split(os.environ.get("CC") or "cc")
BORDER = "//#### IMPLEMENTATION ####"

TOP_LEVEL = {"netkit.h", "examples", "tests", "python", "Makefile", "README.md", "LICENSE"}
OS_MACROS = re.compile(
    r"\b(_WIN32|_WIN64|__CYGWIN__|__MINGW\w*|__linux__|__gnu_linux__|__ANDROID__|__APPLE__|__MACH__"
    r"|__FreeBSD__|__NetBSD__|__OpenBSD__|__DragonFly__|__unix__|__sun|__HAIKU__|__EMSCRIPTEN__"
    r"|NKTI_WINDOWS|NKTI_LINUX|NKTI_BSD|NKTI_EPOLL|NKTI_KQUEUE)\b")
WAITING = re.compile(r"(?<![\w>.])(poll|ppoll|epoll_p?wait2?|kevent|WSAPoll|p?select|Sleep(?:Ex)?"
                     r"|nanosleep|usleep|WaitFor\w+)\s*\(")
BANNED = re.compile(r"(?<![\w>.])(strcpy|strcat|v?sprintf|gets|atoi|strtok|v?sscanf|alloca"
                    r"|inet_ntoa|gethostbyname|rand)\s*\(")
TRIO = re.compile(r"Never blocks(?=[. ])|Waits on a blocking handle(?=[.;])|May block; twin: ")

RULES = []


def rule(name):
    def mark(function):
        RULES.append((name, function))
        return function
    return mark


# --- Reading ------------------------------------------------------------------

def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def lines_of(path):
    return read(path).split("\n")


def files():
    """What is in the repository, or would be after the next commit."""
    try:
        out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        found = out.decode().split("\n")
    except (OSError, subprocess.CalledProcessError):
        found = []
        for folder, folders, names in os.walk(ROOT):
            folders[:] = [name for name in folders
                          if name not in ("build", "__pycache__", ".git")]
            found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names]
    return sorted(path for path in found if path and os.path.isfile(os.path.join(ROOT, path)))


def c_files():
    return [path for path in files() if path.endswith((".c", ".h", ".cc"))]


def examples():
    return [path for path in c_files() if path.startswith("examples/") and path.endswith(".c")]


def blanked(text):
    """C code with comments, strings and characters as blanks: every place stays where it is."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'", blank, text,
                  flags=re.S)


def functions(code):
    """(name, first line, line of the opening brace, last line) of the functions in blanked C."""
    at = 0
    while at < len(code):
        head, opening = code[at], at
        at += 1
        if not re.match(r"[A-Za-z]", head) or head.startswith(("typedef ", "enum ", "extern ")):
            continue
        # The head may take several lines.
        while not head.rstrip().endswith(("{", ";", "}", ":")) and opening + 1 < len(code):
            opening += 1
            head += " " + code[opening]
        name = re.search(r"(\w+)\s*\(", head)
        if not name or not head.rstrip().endswith("{") or "=" in head.split("(")[0]:
            continue
        end = opening
        while end + 1 < len(code) and not code[end].startswith("}"):
            end += 1
        yield name.group(1), at - 1, opening, end
        at = end + 1


class Section:
    def __init__(self, mark, title, line):
        self.mark = mark
        self.title = title
        self.line = line


class Header:
    """netkit.h, taken apart."""

    def __init__(self):
        self.text = read("netkit.h")
        self.lines = self.text.split("\n")
        self.code = blanked(self.text).split("\n")
        self.border = self.lines.index(BORDER) if BORDER in self.lines else len(self.lines)
        self.sections = []
        for at, line in enumerate(self.lines):
            match = re.match(r"// MARK: @(\S+) - (.*\S)", line)
            if match:
                self.sections.append(Section(match.group(1), match.group(2), at))
        self.declared = [s for s in self.sections if s.line < self.border]
        self.implemented = [s for s in self.sections if s.line > self.border]

    def section_at(self, line):
        found = ""
        for section in self.sections:
            if section.line <= line + 1:        # its rule is the line above the mark
                found = section.mark
        return found

    def end_of(self, section):
        later = [s.line for s in self.sections if s.line > section.line] + [len(self.lines)]
        return min(later + ([self.border] if section.line < self.border else []))

    def api(self, begin=0, end=None):
        """(line, name) of the public functions that are declared or defined there."""
        found = []
        for at in range(begin, self.border if end is None else end):
            if self.code[at].startswith("NKT_API"):
                head = " ".join(self.code[at:at + 3])
                found.append((at, re.search(r"\b(nkt_\w+)\s*\(", head).group(1)))
        return found

    def manual_section(self, number):
        """(first line, lines) of one of the manual's numbered sections."""
        begin = next(i for i, line in enumerate(self.lines) if line.startswith("%d. " % number))
        end = begin + 1
        while not re.match(r"\d+\. |\*/", self.lines[end]):
            end += 1
        return begin, self.lines[begin:end]


# --- The file -----------------------------------------------------------------

@rule("version")
def version(header):
    first = re.fullmatch(r"// netkit\.h - v(\d+)\.(\d+)\.(\d+) - .+ - "
                         r"SPDX-License-Identifier: MIT-0 OR Unlicense", header.lines[0])
    if not first:
        yield "netkit.h", 1, "it does not begin with name, version, purpose and licence"
        return
    text = ".".join(first.groups())
    for name, want in [("", '"%s"' % text)] + list(zip(("_MAJOR", "_MINOR", "_PATCH"),
                                                       first.groups())):
        pattern = re.compile(r"#define NKT_VERSION%s (.*)" % name)
        for at, line in enumerate(header.lines):
            match = pattern.match(line)
            if match and match.group(1) != want:
                yield "netkit.h", at + 1, "NKT_VERSION%s is not %s of line 1" % (name, want)
    elsewhere = {
        "README.md": r"netkit(?:\.h)? v?(\d+\.\d+\.\d+)",
        "python/pyproject.toml": r'^version\s*=\s*"([^"]+)"',
        "python/netkit/__init__.py": r'^__version__\s*=\s*"([^"]+)"',
    }
    for path, pattern in elsewhere.items():
        if os.path.exists(os.path.join(ROOT, path)):
            for at, line in enumerate(lines_of(path)):
                for found in re.findall(pattern, line):
                    if found != text:
                        yield path, at + 1, "it says %s, and netkit.h %s" % (found, text)


def contents(header):
    """The lines of the manual's CONTENTS."""
    both = {s.mark for s in header.declared}
    own = [s for s in header.implemented if s.mark not in both]
    width = max(len(s.mark) for s in header.declared + own) + 3
    out = ["   @" + s.mark.ljust(width) + s.title for s in header.declared]
    if own:
        out += ["", "   In the implementation only:", ""]
        out += ["   @" + s.mark.ljust(width) + s.title for s in own]
    return out


@rule("contents")
def contents_match(header):
    begin, lines = header.manual_section(3)
    given = [(begin + at, line) for at, line in enumerate(lines) if line.startswith("   @")]
    wanted = [line for line in contents(header) if line.startswith("   @")]
    for (at, line), want in zip(given, wanted):
        if line.split() != want.split():
            yield "netkit.h", at + 1, "CONTENTS has %r where the marks have %r" % (
                line.strip(), want.strip())
            return
    if len(given) != len(wanted):
        yield "netkit.h", begin + 1, "CONTENTS has %d marks, the file %d; see --contents" % (
            len(given), len(wanted))


@rule("order")
def order(header):
    if header.border == len(header.lines):
        yield "netkit.h", 1, "there is no border line %s" % BORDER
        return
    if header.lines.count(BORDER) != 1:
        yield "netkit.h", header.border + 1, "there is more than one border line"
    declared = [s.mark for s in header.declared]
    both = [s for s in header.implemented if s.mark in declared]
    ranks = [declared.index(s.mark) for s in both]
    for section, rank, before in zip(both[1:], ranks[1:], ranks):
        if rank <= before:
            yield "netkit.h", section.line + 1, "@%s stands elsewhere in the declarations" % (
                section.mark)
    implemented = {s.mark for s in header.implemented}
    for section in header.declared:
        if section.mark not in implemented and header.api(section.line, header.end_of(section)):
            yield "netkit.h", section.line + 1, "@%s is not in the implementation" % section.mark
    # A function is defined in the section that declares it, or in a later one that it needs.
    homes = {name: header.section_at(at) for at, name in header.api()}
    for at, name in header.api(header.border, len(header.lines)):
        here = header.section_at(at)
        if name not in homes:
            yield "netkit.h", at + 1, "%s is not declared" % name
        elif here in declared and declared.index(here) < declared.index(homes[name]):
            yield "netkit.h", at + 1, "%s is declared in @%s and defined before, in @%s" % (
                name, homes[name], here)


@rule("banner")
def banner(header):
    for section in header.sections:
        rule_line = "//" + "=" * 78
        end = section.line + 1
        while header.lines[end].startswith("//") and header.lines[end] != rule_line:
            end += 1
        if header.lines[section.line - 1] != rule_line or header.lines[end] != rule_line:
            yield "netkit.h", section.line + 1, "@%s stands not between two lines of ===" % (
                section.mark)
        elif end - section.line < (4 if section.line < header.border else 3):
            yield "netkit.h", section.line + 1, "@%s does not explain itself" % section.mark


@rule("os")
def os_conditionals(header):
    first_mark = header.sections[0].line
    for at, line in enumerate(header.code):
        if not re.match(r"\s*#\s*(if|elif|ifdef|ifndef)\b", line):
            continue
        whole, end = line, at
        while whole.rstrip().endswith("\\"):
            end += 1
            whole = whole.rstrip()[:-1] + header.code[end]
        mark = header.section_at(at)
        if at > first_mark and OS_MACROS.search(whole) and mark != "config" and (
                not mark.startswith("sys")):
            yield "netkit.h", at + 1, "%s in @%s; it belongs in @sys" % (
                OS_MACROS.search(whole).group(1), mark)


@rule("waits")
def waiting_calls(header):
    for at, line in enumerate(header.code):
        match = WAITING.search(line)
        if match and not header.section_at(at).startswith("sys"):
            yield "netkit.h", at + 1, "%s() in @%s; only @sys waits" % (
                match.group(1), header.section_at(at))


def contract_of(header, at):
    """The comment that belongs to a declaration, in one line."""
    above = at - 1
    # Declarations that stand together share what is said above the first.
    while header.lines[above].strip() and not header.lines[above].startswith(("//", "#", "}")):
        above -= 1
    comment = []
    while header.lines[above].startswith("//"):
        comment.insert(0, header.lines[above][2:].strip())
        above -= 1
    return " ".join(comment)


@rule("contracts")
def contracts(header):
    names = {name for _, name in header.api()}
    for at, name in header.api():
        text = contract_of(header, at)
        kinds = set(TRIO.findall(text))
        if not text:
            yield "netkit.h", at + 1, "%s has no contract" % name
        elif len(kinds) != 1:
            yield "netkit.h", at + 1, "%s says %s whether it blocks" % (
                name, "twice" if kinds else "nothing about")
        for twin in re.findall(r"May block; twin: (.{12}\S*)", text):
            if not twin.startswith("itself with") and (
                    re.split(r"\W", twin)[0] not in names):
                yield "netkit.h", at + 1, "%s names no twin that there is: %s" % (name, twin)


def declared_fields(header, structure):
    """The names of a structure's fields in the declarations, in order."""
    text = "\n".join(header.code[:header.border])
    body = re.search(r"\bstruct %s \{(.*?)\n\}" % structure, text, re.S)
    if not body:
        return []
    found = []
    for piece in body.group(1).split(";"):
        pointer = re.search(r"\(\*(\w+)\)\s*\(", piece)
        if pointer:
            found.append(pointer.group(1))
        elif piece.strip():
            found += [re.search(r"(\w+)\s*(\[[^\]]*\])?\s*$", name).group(1)
                      for name in piece.split(",")]
    return found


@rule("python bindings")
def python_bindings(header):
    """Every public function has a prototype in Python or a reason why not; structures are those
    of the header. (That their sizes fit is looked at when the library is loaded.)"""
    where = "python/netkit/_lib.py"
    sys.path.insert(0, os.path.join(ROOT, "python"))
    try:
        from netkit import _lib
    finally:
        del sys.path[0]
    names = [name for _, name in header.api()]
    text = "\n".join(header.code[:header.border])
    for name in names:
        patterns = [p for p in _lib.UNBOUND if re.fullmatch(p.replace("*", ".*"), name)]
        if name in _lib.PROTOTYPES and patterns or name not in _lib.PROTOTYPES and not patterns:
            yield where, 1, "%s needs a prototype or a reason why not, and not both" % name
        if name in _lib.PROTOTYPES:
            arguments = re.search(r"\b%s\s*\((.*?)\);" % name, text, re.S).group(1)
            arguments = re.sub(r"\([^()]*\)", "", arguments)
            want = 0 if arguments.strip() == "void" else arguments.count(",") + 1
            if len(_lib.PROTOTYPES[name].split(":")[1]) != want:
                yield where, 1, "the prototype of %s has not %d arguments" % (name, want)
    for name in set(_lib.PROTOTYPES) - set(names):
        yield where, 1, "there is no %s" % name
    for pattern in _lib.UNBOUND:
        if not any(re.fullmatch(pattern.replace("*", ".*"), name) for name in names):
            yield where, 1, "no function is %s" % pattern
    for structure in _lib.STRUCTURES:
        want = declared_fields(header, structure.__name__)
        if want != [field[0] for field in structure._fields_]:
            yield where, 1, "%s has the fields %s" % (structure.__name__, ", ".join(want))


@rule("blocking")
def blocking(header):
    """Whether code that waits can be reached from a function is what its contract says."""
    bodies, direct = {}, set()
    for name, begin, opening, end in functions(header.code):
        if begin > header.border:
            # One name may have a body for each system.
            bodies[name] = bodies.get(name, "") + "\n".join(header.code[opening + 1:end])
    for name, body in bodies.items():
        if re.search(r"(?:->|\.)(?:wait|recv_wait)\s*\(", body):
            direct.add(name)
    if not direct:
        yield "netkit.h", header.border + 1, "nothing waits, which cannot be"
    reaching, found = set(), direct
    while found:
        reaching |= found
        found = {name for name, body in bodies.items() if name not in reaching and
                 reaching.intersection(re.findall(r"\b(nkti?_\w+)\s*\(", body))}
    for at, name in header.api():
        says_never = "Never blocks" in contract_of(header, at)
        if says_never == (name in reaching) and name in bodies:
            yield "netkit.h", at + 1, "%s %s" % (
                name, "says that it never blocks, and reaches code that waits" if says_never
                else "says that it may wait, and reaches no code that does")


# --- Every C file -------------------------------------------------------------

@rule("tests")
def every_function_is_called(header):
    text = "\n".join(blanked(read(path)) for path in c_files()
                     if path.startswith("tests/") and not path.startswith("tests/bench/"))
    called = set(re.findall(r"\b(nkt_\w+)\b", text))
    for at, name in header.api():
        if name not in called:
            yield "netkit.h", at + 1, "no test calls %s" % name


@rule("layout")
def layout_is_complete(header):
    """nkt_layout names every field of every public structure, in the order of declaration."""
    text = read("netkit.h")
    public = text[:text.index(BORDER)]
    declared = []
    pattern = r"typedef struct (nkt_\w+) \{(.*?)\n\} \1;|^struct (nkt_\w+) \{(.*?)\n\};"
    for match in re.finditer(pattern, public, re.S | re.M):
        name, body = match.group(1) or match.group(3), match.group(2) or match.group(4)
        declared.append(name)
        for statement in re.sub(r"//[^\n]*", "", body).split(";"):
            statement = " ".join(statement.split())
            function = re.search(r"\(\*(\w+)\)\(", statement)
            parts = [function.group(1)] if function else statement.split(",")
            declared += ["%s.%s" % (name, re.search(r"(\w+)(\[\w+\])*$", part.strip()).group(1))
                         for part in parts if part.strip()]
    table = text[text.index("#define NKTI_LAYOUT(T, F)"):text.index("#define NKTI_TYPE_NAME")]
    for part in ("NKTI_LAYOUT_NET", "NKTI_LAYOUT_UDP", "NKTI_LAYOUT_SIM"):
        rows = re.search(r"#define %s\(T, F\) +\\\n((?:.*\\\n)*.*)" % part, text).group(1)
        table = table.replace(part + "(T, F)", rows)
    listed = [".".join(filter(None, row)) for row in
              re.findall(r"\b[TF]\((nkt_\w+)(?:, (\w+))?\)", table)]
    for name in declared:
        if name not in listed:
            yield "netkit.h", 0, "@layout lacks %s" % name
    if listed != declared and set(listed) == set(declared):
        yield "netkit.h", 0, "@layout is not in the order of declaration"
    for name in set(listed) - set(declared):
        yield "netkit.h", 0, "@layout has %s, which is not declared" % name


@rule("banned")
def banned_calls(header):
    for path in c_files():
        for at, line in enumerate(blanked(read(path)).split("\n")):
            match = BANNED.search(line)
            if match:
                yield path, at + 1, "%s()" % match.group(1)


@rule("text")
def plain_text(header):
    for path in files():
        # Inputs for fuzzers are any bytes.
        if path.startswith("tests/fuzz/corpus/"):
            continue
        text = read(path)
        if not text.endswith("\n") or text.endswith("\n\n"):
            yield path, text.count("\n") + 1, "it does not end with one line end"
        for at, line in enumerate(text.split("\n")):
            if not line.isascii():
                yield path, at + 1, "not ASCII: %r" % re.search(r"[^\0-\x7f]", line).group(0)
            if "\r" in line:
                yield path, at + 1, "a carriage return"
            if line != line.rstrip():
                yield path, at + 1, "blanks at the end of the line"
            if "\t" in line and os.path.basename(path) != "Makefile":
                yield path, at + 1, "a tab"


@rule("widths")
def widths(header):
    for path in files():
        is_c = path.endswith((".c", ".h", ".cc"))
        if not is_c and not path.endswith((".py", "Makefile", "run")):
            continue
        in_comment = False
        for at, line in enumerate(lines_of(path)):
            begins = line.lstrip().startswith("/*")
            comment = is_c and (in_comment or begins or line.lstrip().startswith("//"))
            if is_c and (begins or in_comment):
                in_comment = "*/" not in line
            # Line 1 is for tools, which want all of it in one line.
            limit = 80 if comment else 100
            if len(line) > limit and not (at == 0 and line.startswith("// ")):
                yield path, at + 1, "%d columns; %s has %d" % (
                    len(line), "a comment" if comment else "code", limit)


@rule("lengths")
def lengths(header):
    if len(header.lines) >= 20000:
        yield "netkit.h", len(header.lines), "it has 20,000 lines or more"
    for path in c_files():
        for name, begin, _, end in functions(blanked(read(path)).split("\n")):
            if end - begin + 1 > 70:
                yield path, begin + 1, "%s has %d lines; 70 are allowed" % (name, end - begin + 1)


@rule("later")
def later(header):
    word = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    for path in files():
        for at, line in enumerate(lines_of(path)):
            if word.search(line):
                yield path, at + 1, word.search(line).group(1)


# --- The rest of the repository -----------------------------------------------

@rule("switches")
def switches(header):
    begin, lines = header.manual_section(5)
    listed = {}
    for at, line in enumerate(lines):
        match = re.match(r"   (NETKIT_\w+)", line)
        if match:
            listed[match.group(1)] = begin + at + 1
    used = {}
    end_of_manual = next(i for i, line in enumerate(header.lines) if line == "*/")
    for at, line in enumerate(header.code):
        if at > end_of_manual:
            for name in re.findall(r"\bNETKIT_\w+", line):
                used.setdefault(name, at + 1)
    for name in sorted(set(used) - set(listed) - {"NETKIT_H", "NETKIT_IMPLEMENTED"}):
        yield "netkit.h", used[name], "%s is not in the manual's section 5" % name
    for name in sorted(set(listed) - set(used)):
        yield "netkit.h", listed[name], "nothing in the code looks at %s" % name


@rule("examples")
def examples_say_how(header):
    for path in examples():
        head = []
        for line in lines_of(path):
            if not line.startswith("//"):
                break
            head.append(line)
        if not head or not head[0].startswith("// %s - " % os.path.basename(path)):
            yield path, 1, "it does not begin with its name and what it shows"
        if not any(re.match(r"//     cc ", line) for line in head):
            yield path, 1, "its first lines do not say how to build it"


@rule("top level")
def top_level(header):
    for entry in sorted({path.split("/")[0] for path in files()}):
        if entry not in TOP_LEVEL and not entry.startswith("."):
            yield entry, 1, "it has no place at the top"


# --- Code in the documentation ------------------------------------------------

# What a piece of code in the README may take for granted.
PRELUDE = """
#include "netkit.h"
#include <stdio.h>
#include <string.h>
static nkt_conn *conn;
static nkt_listener *listener;
static nkt_poller *poller;
static nkt_str line;
static int err;
"""


class Block:
    def __init__(self, path, line, language, text, forever=False):
        self.path = path
        self.line = line
        self.language = language
        self.text = text
        self.forever = forever


def blocks(header):
    found = []
    begin, lines = header.manual_section(2)
    indent = min(len(line) - len(line.lstrip()) for line in lines[1:] if line.strip())
    text = "\n".join(line[indent:] for line in lines[1:])
    found.append(Block("netkit.h", begin + 1, "c", text.strip() + "\n"))
    for path in ("README.md", "python/README.md"):
        if not os.path.exists(os.path.join(ROOT, path)):
            continue
        readme = lines_of(path)
        at = 0
        while at < len(readme):
            opening = re.match(r"```(\w+)", readme[at])
            if opening:
                end = readme.index("```", at + 1)
                found.append(Block(path, at + 1, opening.group(1),
                                   "\n".join(readme[at + 1:end]) + "\n",
                                   "<!-- runs for ever -->" in readme[max(0, at - 2):at]))
                at = end
            at += 1
    return found


def serve_pong():
    """A server that answers every line as redis answers PING; gives its port."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(5)

    def answer(peer):
        with peer, peer.makefile("rwb") as stream:
            for _ in stream:
                stream.write(b"+PONG\r\n")
                stream.flush()

    def accept():
        while True:
            try:
                peer = listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listening, listening.getsockname()[1]


def try_program(block, target):
    """Runs a block's program; gives what is wrong with how it went."""
    process = subprocess.Popen([target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    begin = time.monotonic()
    try:
        output = process.communicate(timeout=1 if block.forever else 20)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "" if block.forever else "the program did not end"
    if block.forever:
        return "the program ended after %.1f s" % (time.monotonic() - begin)
    if process.returncode != 0:
        return "the program ended with %d: %s" % (process.returncode,
                                                  output.decode("utf-8", "replace"))
    if "localhost:6379" in block.text and b"+PONG" not in output:
        return "the program printed %r" % output
    return ""


def try_c(block, folder, port):
    text = block.text.replace("localhost:6379", "localhost:%d" % port)
    if block.forever:
        text = re.sub(r'":\d+"', '":0"', text)      # a port that is free
    whole = text.startswith("#define NETKIT_IMPLEMENTATION")
    if not whole and not text.startswith("#include"):
        text = PRELUDE + "void block(void);\nvoid block(void) {\n" + text + "}\n"
    source = os.path.join(folder, "block.c")
    target = os.path.join(folder, "block")
    with open(source, "w", encoding="utf-8") as file:
        file.write(text)
    command = CC + ["-std=c99", "-Wall", "-Wextra", "-Werror", "-I" + ROOT, source, "-o", target]
    if not whole:
        command[1:1] = ["-Wno-unused", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    is_program = whole and "int main(" in text
    command += ["-pthread"] if is_program else ["-c"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode != 0:
        return "it does not compile\n" + done.stdout.decode("utf-8", "replace")
    return try_program(block, target) if is_program else ""


@rule("blocks")
def code_blocks(header):
    listening, port = serve_pong()
    folder = tempfile.mkdtemp()
    try:
        for block in blocks(header):
            problem = ""
            if block.language == "c":
                problem = try_c(block, folder, port)
            elif block.language == "python":
                try:
                    compile(block.text, block.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                except SyntaxError as error:
                    problem = str(error)
            if problem:
                yield block.path, block.line, problem
    finally:
        listening.close()
        shutil.rmtree(folder, ignore_errors=True)


def statistics(header):
    """What has no limit but should be known."""
    comments = in_comment = 0
    for line, code in zip(header.lines, header.code):
        begins = line.lstrip().startswith("/*")
        comments += bool(in_comment or begins or "//" in line and "//" not in code)
        if begins or in_comment:
            in_comment = "*/" not in line
    written = sum(1 for line in header.lines if line.strip())
    return "netkit.h: %d lines, %d public functions, comments on %.0f %% of the lines" % (
        len(header.lines) - 1, len(header.api()), 100.0 * comments / written)


def main():
    header = Header()
    words = sys.argv[1:]
    if "--contents" in words:
        print("\n".join(contents(header)))
        return 0
    passed = failed = 0
    for name, function in RULES:
        if words and not any(word in name for word in words):
            continue
        complaints = list(function(header))
        for path, line, message in complaints[:25]:
            print("%s:%d: %s: %s" % (path, line, name, message.rstrip().replace("\n", "\n    ")))
        if len(complaints) > 25:
            print("%s: and %d more" % (name, len(complaints) - 25))
        if complaints:
            failed += 1
        else:
            passed += 1
    if passed + failed == 0:
        print("there is no such rule; there are: " + ", ".join(name for name, _ in RULES))
        return 1
    print(statistics(header))
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
