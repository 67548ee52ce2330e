#!/usr/bin/env python3
"""Windows' library, looked at by a C program under Wine: every export that the Python package
wants, and the layout of every structure as the package has written it down.
"""

import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(ROOT, "python")]

from netkit import _lib                                                 # noqa: E402
from nkt_programs import Failure, Skip, Suite                           # noqa: E402

CC = "x86_64-w64-mingw32-gcc"
WARNINGS = "-std=c99 -Wall -Wextra -Werror -Wno-cast-function-type".split()
PROGRAM = r"""
#include <windows.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct place { const char *name; unsigned offset, size; } place;
static const char *const exports[] = { %s };
static const place places[] = { %s };

static int wrong_exports(HMODULE dll) {
    int wrong = 0;
    for (size_t i = 0; i < sizeof exports / sizeof exports[0]; i++) {
        if (GetProcAddress(dll, exports[i]) != NULL) continue;
        printf("there is no %%s\n", exports[i]);
        wrong++;
    }
    return wrong;
}

static int wrong_place(const char *name, unsigned offset, unsigned size, unsigned *seen) {
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (strcmp(places[i].name, name) != 0) continue;
        ++*seen;
        if (places[i].offset == offset && places[i].size == size) return 0;
        printf("%%s is at %%u, %%u bytes; Python has %%u, %%u\n", name, offset, size,
               places[i].offset, places[i].size);
        return 1;
    }
    return 0;
}

static int wrong_places(HMODULE dll) {
    FARPROC found = GetProcAddress(dll, "nkt_layout");
    size_t (*layout)(const char **, const uint16_t **);
    const char *names;
    const uint16_t *numbers;
    char full[256], structure[128] = "";
    unsigned seen = 0;
    int wrong = 0;
    memcpy(&layout, &found, sizeof layout);
    size_t count = layout(&names, &numbers);
    for (size_t i = 0; i < count; i++) {
        if (names[0] != '.') snprintf(structure, sizeof structure, "%%s", names);
        snprintf(full, sizeof full, "%%s%%s", structure, names[0] == '.' ? names : "");
        wrong += wrong_place(full, numbers[2 * i], numbers[2 * i + 1], &seen);
        names += strlen(names) + 1;
    }
    printf("%%u of %%u places\n", seen, (unsigned)(sizeof places / sizeof places[0]));
    return wrong + (seen != sizeof places / sizeof places[0]);
}

int main(int argc, char **argv) {
    HMODULE dll = argc == 2 ? LoadLibraryA(argv[1]) : NULL;
    if (dll == NULL) return puts("the library does not load"), 1;
    int wrong = wrong_exports(dll);
    printf("%%u exports\n", (unsigned)(sizeof exports / sizeof exports[0]));
    if (wrong == 0) wrong = wrong_places(dll);
    return wrong != 0;
}
"""


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240,
                          check=False, **options)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise Failure(f"{' '.join(command[:3])} ... ended with {done.returncode}:\n{text[-3000:]}")
    return text


def look(folder):
    if not shutil.which(CC) or not shutil.which("wine"):
        raise Skip("there is no %s or no wine; install mingw-w64 and wine64" % CC)
    dll, program = os.path.join(folder, "_netkit.dll"), os.path.join(folder, "look.exe")
    run([CC, "-std=c99", "-Os", "-DNETKIT_SHARED", "-I", ROOT, "-x", "c", "-", "-shared", "-o",
         dll, "-lws2_32", "-liphlpapi"], cwd=folder,
        input=b'#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n')
    exports = ", ".join('"%s"' % name for name in _lib.PROTOTYPES)
    places = ", ".join('{ "%s", %d, %d }' % (name, offset, size)
                       for name, (offset, size) in _lib.expected_layout().items())
    run([CC] + WARNINGS + ["-x", "c", "-", "-o", program],
        input=(PROGRAM % (exports, places)).encode())
    env = dict(os.environ, WINEDEBUG="-all", WINEDLLOVERRIDES="mscoree,mshtml=")
    env.setdefault("WINEPREFIX", os.path.join(folder, "wine"))
    env.pop("DISPLAY", None)
    said = run(["wine", program, "_netkit.dll"], cwd=folder, env=env)
    for want in ("%d exports" % len(_lib.PROTOTYPES),
                 "%d of %d places" % ((len(_lib.expected_layout()),) * 2)):
        if want not in said:
            raise Failure(f"{want!r} is not in {said}")


def main():
    suite = Suite("python dll")
    # Wine's last processes may still write there when the program has ended.
    folder = tempfile.mkdtemp()
    try:
        suite.run("exports and layout under Wine", look, folder)
    finally:
        subprocess.run(["wineserver", "-k"], check=False,
                       env=dict(os.environ, WINEPREFIX=os.path.join(folder, "wine"))
                       ) if shutil.which("wineserver") else None
        shutil.rmtree(folder, ignore_errors=True)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
