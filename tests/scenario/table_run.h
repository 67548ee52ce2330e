// table_run.h - every row of the table of scenarios on every face of the program

#ifndef NKT_TEST_TABLE_RUN_H
#define NKT_TEST_TABLE_RUN_H

#include "table.h"

static void run_row(const row *r, const face *f) {
    char name[160];
    snprintf(name, sizeof name, "%s / %s", r->name, f->name);
    TEST(name) {
        scene s;
        if (scene_init(&s, f)) {
            s.seed = (uint32_t)(r - rows) + 1;
            s.is_large = (r->needs & SLOW) != 0;
            r->run(&s);
            scene_free(&s);
        }
        if (nkt_test.failures > 0 && f->impaired != BARE) {
            printf("  %s: seed %u\n", name, (unsigned)s.seed);
        }
    }
}

// Whole faces first, then the rows that some faces cannot have; how many.
static int print_exclusions(void) {
    bool whole[FACE_COUNT];
    int count = 0;
    for (size_t k = 0; k < FACE_COUNT; k++) {
        const char *why = why_not(&rows[0], &scene_faces[k]);
        whole[k] = why != NULL;
        for (size_t i = 0; i < ROW_COUNT && whole[k]; i++) {
            whole[k] = why_not(&rows[i], &scene_faces[k]) == why;
        }
        if (whole[k]) printf("not here: face \"%s\": %s\n", scene_faces[k].name, why);
        if (whole[k]) count += (int)ROW_COUNT;
    }
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const char *said = NULL;
        for (size_t k = 0; k < FACE_COUNT; k++) {
            const char *why = why_not(&rows[i], &scene_faces[k]);
            if (why == NULL || whole[k]) continue;
            if (said == NULL) printf("not on every face: %s (%s):", rows[i].name, why);
            printf(" %s;", scene_faces[k].name);
            said = why;
            count++;
        }
        if (said != NULL) printf("\n");
    }
    return count;
}

static void list_names(void) {
    for (size_t i = 0; i < ROW_COUNT; i++) printf("row %s\n", rows[i].name);
    for (size_t i = 0; i < FACE_COUNT; i++) printf("face %s\n", scene_faces[i].name);
}

static void run_table(void) {
    for (size_t i = 0; i < ROW_COUNT; i++) {
        for (size_t k = 0; k < FACE_COUNT; k++) {
            if (why_not(&rows[i], &scene_faces[k]) == NULL) run_row(&rows[i], &scene_faces[k]);
        }
    }
    int excluded = print_exclusions();
    printf("%u rows, %u faces, %d rows on faces that cannot have them\n", (unsigned)ROW_COUNT,
           (unsigned)FACE_COUNT, excluded);
}

#endif
