/* SPDX-License-Identifier: BSD-2-Clause */
#include "common/sys/fork.h"

#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

/* The mark of a process is in a page that is wiped by fork; the count of marks given out is not. */
static _Atomic(_Atomic uint64_t *) mark_page;
static _Atomic uint64_t mark_count;

static _Atomic uint64_t *make_page(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    _Atomic uint64_t *found = NULL;

    if (page == MAP_FAILED) {
        return NULL;
    }
    /* Another thread may be first: then its page is everybody's. */
    if (madvise(page, size, MADV_WIPEONFORK) != 0 ||
        !atomic_compare_exchange_strong(&mark_page, &found, page)) {
        (void)munmap(page, size); /* of our own mapping: can not fail */
        return found;
    }
    return page;
}

uint64_t hp_fork_mark(void)
{
    _Atomic uint64_t *page = atomic_load_explicit(&mark_page, memory_order_acquire);
    uint64_t mark = 0;

    page = page != NULL ? page : make_page();
    if (page == NULL) {
        return (uint64_t)getpid(); /* a kernel before 4.14, or no memory */
    }
    mark = atomic_load_explicit(page, memory_order_relaxed);
    if (mark == 0) {
        uint64_t next = atomic_fetch_add(&mark_count, 1) + 1;
        /* Another thread may be first: then `mark` becomes its mark. */
        mark = atomic_compare_exchange_strong(page, &mark, next) ? next : mark;
    }
    return mark;
}
