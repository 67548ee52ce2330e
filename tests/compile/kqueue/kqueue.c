// A small kqueue over epoll, for <sys/event.h> beside it. Like the real one it
// keeps reading and writing of a descriptor apart, reports them as two events,
// forgets a descriptor that is closed, says ENOENT when what is not there is
// deleted, and does not survive a fork.

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sys/event.h"

typedef struct registration {
    struct registration *next;
    int fd;
    bool wanted[2];                 // reading, writing
    void *udata[2];
    bool write_first;               // who has the next turn where there is room for one
} registration;

typedef struct queue {
    struct queue *next;
    int fd;                         // the epoll descriptor, which is also the kqueue
    registration *registrations;
} queue;

static queue *queues;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void forget(queue *kq) {
    while (kq->registrations != NULL) {
        registration *first = kq->registrations;
        kq->registrations = first->next;
        free(first);
    }
}

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void in_parent(void) { pthread_mutex_unlock(&lock); }

// A child has none of its parent's kqueues. One that was closed may have left
// its number to another file, so only what still is an epoll descriptor is
// closed.
static void in_child(void) {
    while (queues != NULL) {
        queue *first = queues;
        struct epoll_event event;
        queues = first->next;
        if (epoll_wait(first->fd, &event, 1, 0) >= 0) close(first->fd);
        forget(first);
        free(first);
    }
    pthread_mutex_unlock(&lock);
}

static void watch_forks(void) { pthread_atfork(before_fork, in_parent, in_child); }

int kqueue(void) {
    int fd = epoll_create1(0);
    if (fd < 0) return -1;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&lock);
    queue *kq = queues;
    while (kq != NULL && kq->fd != fd) kq = kq->next;
    if (kq != NULL) {
        forget(kq);                 // an old one of this number, closed since
    } else if ((kq = (queue *)calloc(1, sizeof *kq)) != NULL) {
        kq->fd = fd;
        kq->next = queues;
        queues = kq;
    }
    pthread_mutex_unlock(&lock);
    if (kq != NULL) return fd;
    close(fd);
    errno = ENOMEM;
    return -1;
}

static registration *find(queue *kq, int fd) {
    registration *at = kq->registrations;
    while (at != NULL && at->fd != fd) at = at->next;
    return at;
}

static void drop(queue *kq, registration *gone) {
    registration **at = &kq->registrations;
    while (*at != gone) at = &(*at)->next;
    *at = gone->next;
    free(gone);
}

static int tell_epoll(queue *kq, registration *watch, int how) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = (watch->wanted[0] ? (uint32_t)EPOLLIN : 0u) |
                   (watch->wanted[1] ? (uint32_t)EPOLLOUT : 0u);
    event.data.fd = watch->fd;
    return epoll_ctl(kq->fd, how, watch->fd, &event);
}

static int add(queue *kq, const struct kevent *change, int which) {
    int fd = (int)change->ident;
    registration *watch = find(kq, fd);
    bool is_new = watch == NULL;
    if (is_new) {
        watch = (registration *)calloc(1, sizeof *watch);
        if (watch == NULL) {
            errno = ENOMEM;
            return -1;
        }
        watch->fd = fd;
        watch->next = kq->registrations;
        kq->registrations = watch;
    }
    watch->wanted[which] = true;
    watch->udata[which] = change->udata;
    if (tell_epoll(kq, watch, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD) == 0) return 0;
    if (!is_new && errno == ENOENT) {
        // The descriptor was closed, and this is another of the same number.
        watch->wanted[1 - which] = false;
        if (tell_epoll(kq, watch, EPOLL_CTL_ADD) == 0) return 0;
    }
    int saved = errno;
    watch->wanted[which] = false;
    if (!watch->wanted[1 - which]) drop(kq, watch);
    errno = saved;
    return -1;
}

static int delete(queue *kq, const struct kevent *change, int which) {
    registration *watch = find(kq, (int)change->ident);
    if (watch == NULL || !watch->wanted[which]) {
        errno = ENOENT;
        return -1;
    }
    watch->wanted[which] = false;
    bool empty = !watch->wanted[1 - which];
    int result = tell_epoll(kq, watch, empty ? EPOLL_CTL_DEL : EPOLL_CTL_MOD);
    int saved = errno;
    if (empty) drop(kq, watch);
    errno = saved;
    return result;
}

static int change_all(queue *kq, const struct kevent *changes, int count) {
    for (int i = 0; i < count; i++) {
        if (changes[i].filter != EVFILT_READ && changes[i].filter != EVFILT_WRITE) {
            errno = EINVAL;
            return -1;
        }
        int which = changes[i].filter == EVFILT_READ ? 0 : 1;
        int result = changes[i].flags == EV_ADD ? add(kq, &changes[i], which)
                   : changes[i].flags == EV_DELETE ? delete(kq, &changes[i], which)
                   : (errno = EINVAL, -1);
        if (result < 0) return -1;
    }
    return 0;
}

// The events of one descriptor; gives how many, at most `room`.
static int report(registration *watch, uint32_t bits, struct kevent *out, int room) {
    const uint32_t over = EPOLLHUP | EPOLLERR;
    bool ready[2] = { watch->wanted[0] && (bits & (EPOLLIN | over)) != 0,
                      watch->wanted[1] && (bits & (EPOLLOUT | over)) != 0 };
    int count = 0, first = watch->write_first ? 1 : 0;
    for (int i = 0; i < 2 && count < room; i++) {
        int which = i == 0 ? first : 1 - first;
        if (!ready[which]) continue;
        out[count].ident = (uintptr_t)watch->fd;
        out[count].filter = (int16_t)(which == 0 ? EVFILT_READ : EVFILT_WRITE);
        out[count].flags = (uint16_t)((bits & over) ? EV_EOF : 0);
        out[count].fflags = 0;
        out[count].data = 0;
        out[count++].udata = watch->udata[which];
        watch->write_first = which == 0;
    }
    return count;
}

static int milliseconds(const struct timespec *timeout) {
    if (timeout == NULL) return -1;
    if (timeout->tv_sec > INT_MAX / 1000 - 1) return INT_MAX;
    return (int)timeout->tv_sec * 1000 + (int)((timeout->tv_nsec + 999999) / 1000000);
}

int kevent(int fd, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout) {
    enum { BATCH = 64 };
    struct epoll_event ready[BATCH];
    pthread_mutex_lock(&lock);
    queue *kq = queues;
    while (kq != NULL && kq->fd != fd) kq = kq->next;
    int result = 0;
    if (kq == NULL) {
        errno = EBADF;
        result = -1;
    } else {
        result = change_all(kq, changes, change_count);
    }
    pthread_mutex_unlock(&lock);
    if (result < 0 || event_count <= 0) return result;
    // Each descriptor may give two events.
    int batch = event_count < 2 ? 1 : event_count / 2;
    int count = epoll_wait(fd, ready, batch < BATCH ? batch : BATCH, milliseconds(timeout));
    if (count < 0) return -1;
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count; i++) {
        registration *watch = find(kq, ready[i].data.fd);
        if (watch != NULL) {
            found += report(watch, ready[i].events, events + found, event_count - found);
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}
