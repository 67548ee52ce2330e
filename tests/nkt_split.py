"""netkit.h in two, for what is built against one implementation instead of having its own each.

    source = split("build/one")         # and -Ibuild/one before any other -I
    cc -c build/one/netkit.c -o build/one/netkit.o

A program then compiles in a tenth of the time. Its netkit.h ends where the implementation has
included the system's headers: that is what a program sees that has one. Warnings about it are for
those who compile all of it. `more` is what else the second file includes.
"""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BORDER = "\n//#### IMPLEMENTATION ####\n"
SECTION = "\n//" + "=" * 78 + "\n// MARK: "


def split(folder, more=()):
    """Writes netkit.h and netkit.c into a folder; gives the path of the second."""
    with open(os.path.join(ROOT, "netkit.h"), encoding="utf-8") as file:
        declared, implemented = file.read().split(BORDER)
    guards, headers = implemented.split(SECTION)[:2]
    _put(os.path.join(folder, "netkit.h"),
         "#pragma GCC system_header\n#define NKT_TEST_SHARED\n" + declared + "\n" + guards +
         SECTION + headers + "\n#endif\n#endif\n")
    source = os.path.join(folder, "netkit.c")
    _put(source, "#define NETKIT_IMPLEMENTATION\n" + "".join(
        '#include "%s"\n' % path for path in (os.path.join(ROOT, "netkit.h"),) + tuple(more)))
    return source


def _put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = "%s.%d" % (path, os.getpid())
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)
