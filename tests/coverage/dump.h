// dump.h - children of the tests end with _exit, which forgets the counts
//
// Put in front of every program by test_coverage.py.

#ifndef NKT_TEST_DUMP_H
#define NKT_TEST_DUMP_H

#include <unistd.h>

extern void __gcov_dump(void);

static inline void coverage_exit(int status) {
    __gcov_dump();
    _exit(status);
}

#define _exit(status) coverage_exit(status)

#endif
