# netkit is one header: there is nothing to build before it is used. This file builds what
# stands around it. `make help` lists the targets; make and a C compiler do for most.
#
#     make run                              see the library at work
#     make install PREFIX=/usr/local        or just copy netkit.h
#     make test CC=clang CFLAGS="-O2 -g"

CC ?= cc
CFLAGS ?=
LDFLAGS ?=
PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
PYTHON ?= python3
SECONDS ?= 30

COMPILE = $(CC) -std=c99 -O2 -Wall -Wextra $(CFLAGS)
# The tests take their own flags where CFLAGS is empty.
ENV = CC="$(CC)" CFLAGS="$(CFLAGS)" LDFLAGS="$(LDFLAGS)" BUILD="$(BUILD)"

help:
	@echo 'make run        builds the tour and runs it: the library at work in some seconds'
	@echo 'make examples   builds examples/*.c, each as its first lines say, into $(BUILD)/'
	@echo 'make test       the tests that need cc, make and python3, in a minute or two'
	@echo 'make test-all   every test: sanitizers, other compilers, Wine, real servers, lint'
	@echo 'make fuzz       libFuzzer at each parser and the readers, SECONDS=30 each'
	@echo 'make analyze    what gcc, clang, clang-tidy and cppcheck say without running it'
	@echo 'make coverage   which lines and branches of netkit.h the tests run'
	@echo 'make lint       the rules of the house, checked by a program'
	@echo 'make split      $(BUILD)/split/netkit.h and netkit.c, for who wants a pair'
	@echo 'make shared     $(BUILD)/libnetkit.so, for bindings, and its size'
	@echo 'make bench      beside plain system calls, libuv and libevent; some minutes'
	@echo 'make bench-quick    that this works, in seconds; make sizes  what is promised of size'
	@echo 'make bench-python   beside socket and asyncio, in Python; some minutes'
	@echo 'make install    netkit.h to $(DESTDIR)$(PREFIX)/include; make uninstall removes it'
	@echo 'make clean      removes $(BUILD)/'
	@echo 'Variables: CC CFLAGS LDFLAGS PREFIX DESTDIR BUILD PYTHON SECONDS'

run: $(BUILD)/tour
	@$(BUILD)/tour

$(BUILD)/tour: examples/tour.c netkit.h
	@mkdir -p $(BUILD)
	$(COMPILE) -I. examples/tour.c -o $@ $(LDFLAGS) -pthread

# An example says in its first lines how it is built, "//     cc -I. ... -o name ...", and that
# is what is done here. One whose library is not there is left out, and we say so.
examples:
	@mkdir -p $(BUILD)
	@for file in examples/*.c; do \
	    line=$$(sed -n 's|^//     cc ||p' $$file | sed -n '1s| *&&.*||; 1s|-o |-o $(BUILD)/|p'); \
	    lib=$$(sed -n 's|^//     flags=.*--libs \(.*\))|\1|p' $$file); \
	    [ -n "$$line" ] || continue; \
	    flags=; \
	    [ -z "$$lib" ] || flags=$$(pkg-config --cflags --libs $$lib 2>/dev/null) || \
	        { echo "$$file is left out: there is no $$lib"; continue; }; \
	    echo "$(CC) $$line"; \
	    eval "$(COMPILE) $(LDFLAGS) $$line" || exit 1; \
	done

test:
	@$(ENV) $(PYTHON) tests/run.py

test-all:
	@$(ENV) $(PYTHON) tests/run.py --all

fuzz:
	@$(ENV) $(PYTHON) tests/fuzz/test_fuzz.py $(SECONDS)

analyze:
	@$(ENV) $(PYTHON) tests/analyze/test_analyze.py

coverage:
	@$(ENV) $(PYTHON) tests/coverage/test_coverage.py

lint:
	@$(ENV) $(PYTHON) tests/lint.py

# Everything above the border and everything from it on: the one cut there is.
split: $(BUILD)/split/netkit.c

$(BUILD)/split/netkit.c: netkit.h LICENSE
	@mkdir -p $(BUILD)/split
	sed '/^\/\/#### IMPLEMENTATION ####/,$$d' netkit.h > $(BUILD)/split/netkit.h
	{ echo '/*'; cat LICENSE; echo '*/'; } >> $(BUILD)/split/netkit.h
	{ printf '#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n\n'; \
	    sed -n '/^\/\/#### IMPLEMENTATION ####/,$$p' netkit.h; } > $@

# Without these a shared object is 20 % larger. No tables for unwinding, which C code does not
# need; calls inside the library go straight to their function; code and constants share pages;
# one table of symbols, the one that every loader since 2006 reads; calls to the C library are
# bound while loading, after which their table is write-protected. -Wl,-z,norelro would save 2 KiB
# and that protection; -Wl,-z,pack-relative-relocs 2 KiB where glibc is 2.36 or later.
LEAN = -fno-asynchronous-unwind-tables -fno-semantic-interposition -fno-plt \
    -Wl,-z,noseparate-code -Wl,--hash-style=gnu -Wl,--build-id=none -Wl,-z,now
# Nothing where the compiler or the linker does not know them.
IF_LEAN = mkdir -p $(BUILD); lean=; \
    ! $(CC) $(LEAN) -fPIC -shared -x c /dev/null -o $(BUILD)/lean.so 2>/dev/null || lean="$(LEAN)"
SHARED = printf '\#define NETKIT_IMPLEMENTATION\n\#include "netkit.h"\n' | \
    $(CC) -std=c99 -Os $(CFLAGS) $$lean -fPIC -fvisibility=hidden -DNETKIT_SHARED -I. -x c - \
    -shared -s $(LDFLAGS) -pthread

shared: $(BUILD)/libnetkit.so

$(BUILD)/libnetkit.so: netkit.h Makefile
	@$(IF_LEAN); $(SHARED) -o $@
	@wc -c $@

bench:
	@$(ENV) $(PYTHON) tests/bench/bench.py

bench-quick:
	@$(ENV) $(PYTHON) tests/bench/bench.py --quick

# Bytes, what, and at most how many; stripped, and built for size. The heart is streams, without
# datagrams; the programs connect by name and print lines, and are linked to a fixed address.
SMALL = $(CC) -std=c99 -Os -DNDEBUG $(CFLAGS) $${lean:+$$lean -fno-pie -no-pie} -s -I. \
    $(LDFLAGS) -pthread

sizes:
	@$(IF_LEAN); set -e; $(SHARED) -o $(BUILD)/all.so; \
	$(SHARED) -DNETKIT_NO_UDP -DNETKIT_NO_SIM -o $(BUILD)/heart.so; \
	$(SMALL) tests/bench/small_netkit.c -o $(BUILD)/small_netkit; \
	$(SMALL) tests/bench/small_raw.c -o $(BUILD)/small_raw
	@printf '%d\tnetkit as a shared object\t65536\n' $$(wc -c < $(BUILD)/heart.so)
	@printf '%d\tnetkit with datagrams\t\n' $$(wc -c < $(BUILD)/all.so)
	@printf '%d\tnetkit in a small program\t40960\n' $$(wc -c < $(BUILD)/small_netkit)
	@printf '%d\traw calls in the same program\t\n' $$(wc -c < $(BUILD)/small_raw)

bench-python:
	@$(ENV) $(PYTHON) tests/bench/bench_python.py

install:
	mkdir -p $(DESTDIR)$(PREFIX)/include
	cp netkit.h $(DESTDIR)$(PREFIX)/include/netkit.h
	chmod 644 $(DESTDIR)$(PREFIX)/include/netkit.h

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/netkit.h

clean:
	rm -rf $(BUILD)

.PHONY: help run examples test test-all fuzz analyze coverage lint split shared bench bench-quick \
    sizes install uninstall clean
