"""The warnings that are errors here, for gcc and clang, C and C++."""

BASIC = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion",
         "-Werror"]
GCC_BOTH = BASIC + ["-Wundef", "-Wcast-qual", "-Wwrite-strings", "-Wpointer-arith", "-Wformat=2",
                    "-Wvla", "-Wdouble-promotion", "-Wnull-dereference"]
GCC_C = GCC_BOTH + ["-Wstrict-prototypes", "-Wmissing-prototypes", "-Wold-style-definition",
                    "-Wc++-compat"]
CLANG_BOTH = [
    "-Weverything", "-Werror",
    "-Wno-unknown-warning-option",      # the names below come and go
    "-Wno-padded",                      # the structures are laid out for their readers
    "-Wno-disabled-macro-expansion",    # the C library's own macros
    "-Wno-reserved-macro-identifier",   # _GNU_SOURCE has to be called that
    "-Wno-reserved-id-macro",           # the same, in older ones
    "-Wno-unused-macros",               # constants for the user, and for other systems
    "-Wno-switch-enum",                 # a `default` stands for the rest, and says so
    "-Wno-covered-switch-default",      # and an int from outside may be none of them
    "-Wno-unsafe-buffer-usage",         # there is no std::span in C
    "-Wno-pre-c11-compat",
    "-Wno-nrvo",                        # an address is 24 bytes: copied, not elided
]
CLANG_C = CLANG_BOTH + [
    "-Wno-declaration-after-statement",     # C99
]
CLANG_CXX = CLANG_BOTH + [
    "-Wno-c++98-compat", "-Wno-c++98-compat-pedantic",      # C++11 and later
    "-Wno-old-style-cast",              # C has only these
    "-Wno-zero-as-null-pointer-constant",   # NULL is what C has
]
