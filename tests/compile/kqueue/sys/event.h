// Stands where the BSDs and macOS have their <sys/event.h>, so that netkit.h's
// kqueue code is compiled and run on Linux, over epoll. Only what that code
// uses: reading and writing, level-triggered.
#ifndef KQUEUE_SHIM_EVENT_H
#define KQUEUE_SHIM_EVENT_H

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_EOF 0x8000

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
};

#define EV_SET(event, a, b, c, d, e, f) do {                                             \
    struct kevent *kqueue_shim_event = (event);                                          \
    kqueue_shim_event->ident = (a);                                                      \
    kqueue_shim_event->filter = (b);                                                     \
    kqueue_shim_event->flags = (c);                                                      \
    kqueue_shim_event->fflags = (d);                                                     \
    kqueue_shim_event->data = (e);                                                       \
    kqueue_shim_event->udata = (f);                                                      \
} while (0)

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout);

#ifdef __cplusplus
}
#endif
#endif
