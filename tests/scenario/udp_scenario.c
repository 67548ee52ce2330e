// udp_scenario.c - one table of datagram scenarios, run on every face
//
//     udp_scenario                every row on every face
//     udp_scenario --list         the names of the rows and of the faces
//
// What a face cannot have is told with the reason and counted. Built of this
// file and xor_layer.c. See udp_table.h.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "udp_table.h"

static void run_row(const row *r, const face *f) {
    char name[160];
    static scene s;
    snprintf(name, sizeof name, "%s / %s", r->name, f->name);
    TEST(name) {
        scene_init(&s, f);
        if (scene_open(&s)) r->run(&s);
        scene_close(&s);
        probe_close(&s.p);
    }
}

int main(int argc, char **argv) {
    nkt_udp *probe6 = NULL;
    int excluded = 0;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < ROW_COUNT; i++) printf("row %s\n", rows[i].name);
        for (size_t i = 0; i < FACE_COUNT; i++) printf("face %s\n", faces[i].name);
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
