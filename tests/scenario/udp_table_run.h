// udp_table_run.h - every row of the datagram table on every face of the program

#ifndef NKT_TEST_UDP_TABLE_RUN_H
#define NKT_TEST_UDP_TABLE_RUN_H

#include "udp_table.h"

static void run_row(const row *r, const face *f) {
    char name[160];
    static scene s;
    snprintf(name, sizeof name, "%s / %s", r->name, f->name);
    TEST(name) {
        scene_init(&s, f);
        s.seed = (uint32_t)(r - rows) + 1;
        if (scene_open(&s)) r->run(&s);
        scene_close(&s);
        probe_close(&s.p);
        if (nkt_test.failures > 0 && f->impaired != BARE) {
            printf("  %s: seed %u\n", name, (unsigned)s.seed);
        }
    }
}

static void list_names(void) {
    for (size_t i = 0; i < ROW_COUNT; i++) printf("row %s\n", rows[i].name);
    for (size_t i = 0; i < FACE_COUNT; i++) printf("face %s\n", faces[i].name);
}

static int run_table(int argc, char **argv) {
    nkt_udp *probe6 = NULL;
    int excluded = 0;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        list_names();
        return 0;
    }
    has_ipv6 = nkt_udp_open("[::1]:0", NULL, &probe6) >= 0;
    nkt_udp_close(probe6);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        for (size_t k = 0; k < FACE_COUNT; k++) {
            const char *why = why_not(&rows[i], &faces[k]);
            if (why == NULL) {
                run_row(&rows[i], &faces[k]);
                continue;
            }
            printf("not here: %s / %s: %s\n", rows[i].name, faces[k].name, why);
            excluded++;
        }
    }
    printf("%u rows, %u faces, %d rows on faces that cannot have them\n", (unsigned)ROW_COUNT,
           (unsigned)FACE_COUNT, excluded);
    return test_finish();
}

#endif
