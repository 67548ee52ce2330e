// fault_pool.h - many tasks of injected failures, each in a process of its own
//
//     fault_pool(count, name_of, run);     // run(i) in a child; 0 = well
//
// A task tells in `fault_mine`, which the parent sees, what it is about to do
// and what it has done; so a crash or a hang has a name. Each task is a test.
// POSIX only. Include after nkt_test.h and netkit.h with its implementation.

#ifndef NKT_FAULT_POOL_H
#define NKT_FAULT_POOL_H

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAULT_SLOTS = 6, FAULT_PATIENCE_S = 150, FAULT_ENTRIES = 40, FAULT_EXCUSES = 16 };

typedef struct fault_report {
    char doing[240];
    int64_t since_ns;                   // of this run; 0 = none is under way
    long made[FAULT_ENTRIES];           // injections, by entry
    long passed_over[FAULT_ENTRIES];    // calls of which none was made to fail
    long excused[FAULT_EXCUSES];        // by row of the program's own table
    long told, absorbed, runs;
} fault_report;

static fault_report *fault_mine, fault_total;

// Of a list X(name, errors ...): F_name and F_COUNT, and `entries` by them.
#define FAULT_ID(name, ...) F_##name,
#define FAULT_ROW(name, ...) {#name, {__VA_ARGS__}},
#define FAULT_TABLE(LIST)                                                                \
    enum { LIST(FAULT_ID) F_COUNT };                                                     \
    static const entry_row entries[] = { LIST(FAULT_ROW) };

typedef struct entry_row {
    const char *name;
    int errors[8];
} entry_row;

static struct {
    pid_t child;
    int task;
    bool killed;
    fault_report *seen;
} fault_slots[FAULT_SLOTS];

static void fault_add_up(const fault_report *seen) {
    for (int e = 0; e < FAULT_ENTRIES; e++) {
        fault_total.made[e] += seen->made[e];
        fault_total.passed_over[e] += seen->passed_over[e];
    }
    for (int i = 0; i < FAULT_EXCUSES; i++) fault_total.excused[i] += seen->excused[i];
    fault_total.told += seen->told;
    fault_total.absorbed += seen->absorbed;
    fault_total.runs += seen->runs;
}

static bool fault_start(int slot, int task, int (*run)(int task)) {
    memset(fault_slots[slot].seen, 0, sizeof *fault_slots[slot].seen);
    fault_slots[slot].task = task;
    fault_slots[slot].killed = false;
    fflush(stdout);
    fault_slots[slot].child = fork();
    if (fault_slots[slot].child == 0) {
        fault_mine = fault_slots[slot].seen;
        int status = run(task);
        fflush(stdout);
        exit(status);                   // so that a leak sanitizer looks as well
    }
    return fault_slots[slot].child > 0;
}

static void fault_ended(int slot, int status,
                        void (*name_of)(int task, char *name, size_t cap)) {
    fault_report *seen = fault_slots[slot].seen;
    char name[160];
    name_of(fault_slots[slot].task, name, sizeof name);
    fault_add_up(seen);
    TEST(name) {
        const char *how = fault_slots[slot].killed ? "hung, and was killed" : "died";
        bool whole = WIFEXITED(status) && WEXITSTATUS(status) <= 1;
        if (!whole) printf("  %s with status 0x%x: %s\n", how, (unsigned)status, seen->doing);
        CHECK(whole);
        CHECK_INT(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
        CHECK(seen->runs > 0);
    }
    fault_slots[slot].child = 0;
}

// Kills who hangs in one run.
static void fault_watch(void) {
    for (int i = 0; i < FAULT_SLOTS; i++) {
        int64_t since = __atomic_load_n(&fault_slots[i].seen->since_ns, __ATOMIC_SEQ_CST);
        if (fault_slots[i].child == 0 || since == 0) continue;
        if (nkt_now_ns(NULL) - since < FAULT_PATIENCE_S * INT64_C(1000000000)) continue;
        fault_slots[i].killed = true;
        kill(fault_slots[i].child, SIGKILL);
    }
}

static void fault_nap(void) {
    struct timespec nap = {0, 2000000};
    nanosleep(&nap, NULL);
}

static void fault_pool(int count, void (*name_of)(int task, char *name, size_t cap),
                       int (*run)(int task)) {
    int next = 0, running = 0;
    void *all = mmap(NULL, FAULT_SLOTS * sizeof(fault_report), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return;
    for (int i = 0; i < FAULT_SLOTS; i++) fault_slots[i].seen = (fault_report *)all + i;
    while (next < count || running > 0) {
        for (int i = 0; i < FAULT_SLOTS && next < count; i++) {
            if (fault_slots[i].child == 0 && fault_start(i, next++, run)) running++;
        }
        int status = 0;
        pid_t child = waitpid(-1, &status, WNOHANG);
        for (int i = 0; i < FAULT_SLOTS && child > 0; i++) {
            if (fault_slots[i].child != child) continue;
            fault_ended(i, status, name_of);
            running--;
        }
        if (child > 0) continue;
        fault_watch();
        fault_nap();
    }
}

static void fault_print(const char *const *names, int count, int64_t since_ns) {
    long made = 0, passed_over = 0;
    for (int e = 0; e < count; e++) {
        made += fault_total.made[e];
        passed_over += fault_total.passed_over[e];
        printf("%-16s %8ld injections, %8ld calls passed over\n", names[e],
               fault_total.made[e], fault_total.passed_over[e]);
    }
    printf("%ld injections in %ld runs and %.1f s: %ld were told, %ld changed nothing; "
           "%ld calls passed over\n", made, fault_total.runs,
           (double)(nkt_now_ns(NULL) - since_ns) / 1e9, fault_total.told, fault_total.absorbed,
           passed_over);
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    printf("%.1f s of processor time\n",
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
}

#endif
