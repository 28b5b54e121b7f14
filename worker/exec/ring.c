/* SPDX-License-Identifier: BSD-2-Clause */
/* What the daemon and one function child share; see ring.h. */
#include "worker/exec/ring.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"

HP_STATIC_ASSERT(HP_RING_BYTES % HP_RING_ALIGN == 0, "records start at multiples of the alignment");
HP_STATIC_ASSERT(sizeof(struct hp_call_record) == 64 && sizeof(struct hp_result_record) == 64,
                 "a small call costs one cache line each way");
HP_STATIC_ASSERT(HP_EXEC_INLINE_BYTES_MAX + sizeof(struct hp_call_record) < HP_RING_BYTES / 2,
                 "any record fits into an empty ring wherever it begins");

bool hp_ring_place(uint64_t head, uint64_t tail, uint32_t bytes, uint64_t *ret_at)
{
    HP_ASSERT(bytes % HP_RING_ALIGN == 0 && bytes <= HP_RING_BYTES / 2);
    uint64_t index = head % HP_RING_BYTES;
    uint64_t at = index + bytes <= HP_RING_BYTES ? head : head + HP_RING_BYTES - index;
    if (at + bytes - tail > HP_RING_BYTES) {
        return false;
    }
    *ret_at = at;
    return true;
}

void hp_ring_pad(uint8_t *ring, uint64_t head, uint64_t at)
{
    if (at != head) {
        /* Records are aligned to 16 and the ring's size too, so the two numbers always fit. */
        uint32_t pad[2] = {HP_RING_PAD, (uint32_t)(at - head)};
        memcpy(ring + head % HP_RING_BYTES, pad, sizeof pad);
    }
}

union bell_room {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

/* Some descriptors under way must be taken out first (a limit of the user's, not of the socket's),
 * which nothing tells of. */
static void wait_for_fewer(void)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    (void)nanosleep(&pause, NULL); /* cut short by a signal: looked at again all the sooner */
}

int hp_bell_send(int socket_fd, const struct hp_bell *bell, int fd, bool is_blocking)
{
    if (fd < 0) { /* the hot path: no control data to copy */
        ssize_t sent;
        do {
            sent = send(socket_fd, bell, sizeof *bell,
                        MSG_NOSIGNAL | (is_blocking ? 0 : MSG_DONTWAIT));
        } while (sent < 0 && errno == EINTR);
        return sent < 0 ? errno : 0;
    }
    struct iovec part = {.iov_base = (void *)(uintptr_t)bell, .iov_len = sizeof *bell};
    union bell_room room = {0};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = room.bytes,
                            .msg_controllen = sizeof room.bytes};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    ssize_t sent;
    bool is_crowded;
    do {
        sent = sendmsg(socket_fd, &header, MSG_NOSIGNAL | (is_blocking ? 0 : MSG_DONTWAIT));
        is_crowded = sent < 0 && errno == ETOOMANYREFS && is_blocking;
        if (is_crowded) {
            wait_for_fewer();
        }
    } while (is_crowded || (sent < 0 && errno == EINTR));
    if (sent < 0) {
        return errno == ETOOMANYREFS ? EAGAIN : errno;
    }
    return 0;
}

int hp_bell_receive(int socket_fd, struct hp_bell *ret_bell, int *ret_fd, bool is_blocking)
{
    struct iovec part = {.iov_base = ret_bell, .iov_len = sizeof *ret_bell};
    union bell_room room = {0};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = room.bytes,
                            .msg_controllen = sizeof room.bytes};
    ssize_t size;
    bool is_reset = false;
    bool again;
    *ret_fd = -1;
    do {
        size = recvmsg(socket_fd, &header, MSG_CMSG_CLOEXEC | (is_blocking ? 0 : MSG_DONTWAIT));
        /* The peer went and left something unread: told once, before what it has sent. */
        again = size < 0 && errno == ECONNRESET && !is_reset;
        is_reset = is_reset || again;
    } while (again || (size < 0 && errno == EINTR && !is_blocking));
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return 0;
    }
    struct cmsghdr *cmsg = size > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
        memcpy(ret_fd, CMSG_DATA(cmsg), sizeof *ret_fd);
    }
    if (size != (ssize_t)sizeof *ret_bell) {
        if (*ret_fd >= 0) {
            (void)close(*ret_fd);
        }
        *ret_fd = -1;
        return -1;
    }
    return 1;
}
