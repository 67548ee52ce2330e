// nkt_kept.h - an environment whose allocator keeps the last large block
//
// That is the buffer which a handle without a poller borrows for every receive:
// an allocator under a sanitizer maps and unmaps it each time, and rows of some
// ten thousand receives take minutes. Include after netkit.h; one thread only.

#ifndef NKT_KEPT_H
#define NKT_KEPT_H

#include <stdlib.h>

#define KEPT_LARGE 100000

static struct { void *block; size_t size; } kept;
static nkt_env kept_env;

static void *kept_allocate(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    (void)env;
    if (ptr == NULL && kept.block != NULL && new_size == kept.size) {
        ptr = kept.block;
        kept.block = NULL;
    } else if (new_size == 0 && old_size > KEPT_LARGE) {
        free(kept.block);
        kept.block = ptr;
        kept.size = old_size;
        ptr = NULL;
    } else if (new_size == 0) {
        free(ptr);
        ptr = NULL;
    } else {
        ptr = realloc(ptr, new_size);
    }
    return ptr;
}

static bool kept_open(void) {
    if (nkt_env_init(&kept_env) < 0) return false;
    kept_env.allocate = kept_allocate;
    return true;
}

static void kept_close(void) {
    nkt_env_free(&kept_env);
    free(kept.block);
    kept.block = NULL;
}

#endif
