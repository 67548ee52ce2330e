// inside.h - the little that tests look at within netkit.h's implementation
//
// Include after netkit.h. A program that is linked with an implementation it
// shares (NKT_TEST_SHARED, see nkt_split.py) finds these functions beside that;
// one that has an implementation of its own gets them here.

#ifndef NKT_TEST_INSIDE_H
#define NKT_TEST_INSIDE_H

#ifdef __cplusplus
extern "C" {
#endif

int inside_lookup_workers(void);        // worker threads of the look-ups
bool inside_lookup_queued(void);        // whether one waits for a worker
size_t inside_lent_block(void);         // bytes of the buffer that a poller lends

#ifndef NKT_TEST_SHARED
int inside_lookup_workers(void) {
    nkti_mutex_lock(&nkti_lookup_pool.lock);
    int threads = nkti_lookup_pool.threads;
    nkti_mutex_unlock(&nkti_lookup_pool.lock);
    return threads;
}

bool inside_lookup_queued(void) {
    nkti_mutex_lock(&nkti_lookup_pool.lock);
    bool queued = nkti_lookup_pool.first != NULL;
    nkti_mutex_unlock(&nkti_lookup_pool.lock);
    return queued;
}

size_t inside_lent_block(void) {
    return NKTI_LENT_BLOCK;
}
#endif

#ifdef __cplusplus
}
#endif
#endif
