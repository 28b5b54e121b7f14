/* SPDX-License-Identifier: BSD-2-Clause */
/* The link between the daemon and its helpers; see control.h. */
#include "worker/exec/control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

/* A message which waits for room. */
struct queued {
    struct hp_list node;
    struct hp_control_msg msg;
    int fds[HP_CONTROL_FDS_MAX];
    uint32_t fd_count;
    char text[];
};

union fd_room {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * HP_CONTROL_FDS_MAX)];
};

void hp_control_init(struct hp_control *control, int fd)
{
    control->fd = fd;
    control->is_closed = false;
    hp_list_init(&control->queue);
}

static void queued_free(struct queued *queued)
{
    for (uint32_t i = 0; i < queued->fd_count; i++) {
        (void)close(queued->fds[i]);
    }
    hp_free(queued);
}

static void drop_queue(struct hp_control *control)
{
    struct hp_list *node;
    while ((node = hp_list_pop_front(&control->queue)) != NULL) {
        queued_free(HP_LIST_ENTRY(node, struct queued, node));
    }
}

void hp_control_deinit(struct hp_control *control)
{
    drop_queue(control);
    if (control->fd >= 0) {
        (void)close(control->fd);
    }
    control->fd = -1;
    control->is_closed = true;
}

/* One sendmsg: HP_OK, HP_ERR_AGAIN or HP_ERR_CLOSED. */
static enum hp_err send_now(struct hp_control *control, const struct hp_control_msg *msg,
                            const void *text, const int *fds, uint32_t fd_count)
{
    struct iovec parts[2] = {{.iov_base = (void *)(uintptr_t)msg, .iov_len = sizeof *msg},
                             {.iov_base = (void *)(uintptr_t)text, .iov_len = msg->text_bytes}};
    union fd_room room = {0};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = msg->text_bytes > 0 ? 2 : 1};
    if (fd_count > 0) {
        header.msg_control = room.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fd_count);
    }
    ssize_t sent;
    do {
        sent = sendmsg(control->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        return HP_OK;
    }
    /* ETOOMANYREFS: too many descriptors under way; the receiver takes them out in time. */
    bool is_full = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS;
    return is_full ? HP_ERR_AGAIN : HP_ERR_CLOSED;
}

static enum hp_err enqueue(struct hp_control *control, const struct hp_control_msg *msg,
                           const void *text, const int *fds, uint32_t fd_count)
{
    struct queued *queued = hp_alloc(sizeof *queued + msg->text_bytes);
    if (queued == NULL) {
        return HP_ERR_NOMEM;
    }
    hp_list_init(&queued->node);
    queued->msg = *msg;
    queued->fd_count = 0;
    if (msg->text_bytes > 0) {
        memcpy(queued->text, text, msg->text_bytes);
    }
    for (uint32_t i = 0; i < fd_count; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (copy < 0) {
            queued_free(queued);
            return HP_ERR_IO;
        }
        queued->fds[queued->fd_count++] = copy;
    }
    hp_list_push_back(&control->queue, &queued->node);
    return HP_OK;
}

enum hp_err hp_control_send(struct hp_control *control, const struct hp_control_msg *msg,
                            const void *text, const int *fds, uint32_t fd_count)
{
    HP_ASSERT(fd_count <= HP_CONTROL_FDS_MAX);
    HP_ASSERT(msg->text_bytes <= HP_CONTROL_TEXT_BYTES_MAX);
    if (control->is_closed) {
        return HP_ERR_CLOSED;
    }
    enum hp_err err = HP_ERR_AGAIN;
    if (hp_list_is_empty(&control->queue)) {
        err = send_now(control, msg, text, fds, fd_count);
    }
    return err == HP_ERR_AGAIN ? enqueue(control, msg, text, fds, fd_count) : err;
}

bool hp_control_flush(struct hp_control *control)
{
    struct hp_list *node;
    while ((node = hp_list_first(&control->queue)) != NULL) {
        struct queued *queued = HP_LIST_ENTRY(node, struct queued, node);
        enum hp_err err =
            send_now(control, &queued->msg, queued->text, queued->fds, queued->fd_count);
        if (err == HP_ERR_AGAIN) {
            return true;
        }
        hp_list_remove(node);
        queued_free(queued);
    }
    return false;
}

/* Takes the descriptors out of a received message; more than allowed are closed. */
static void take_fds(struct msghdr *header, struct hp_control_in *in)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg != NULL;
         cmsg = CMSG_NXTHDR(header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
            if (in->fd_count < HP_CONTROL_FDS_MAX) {
                in->fds[in->fd_count++] = fd;
            } else {
                (void)close(fd);
            }
        }
    }
}

enum hp_err hp_control_receive(struct hp_control *control, struct hp_control_in *ret)
{
    static char text[HP_CONTROL_TEXT_BYTES_MAX + 1]; /* both ends are single-threaded */
    union fd_room room;
    if (control->is_closed) {
        return HP_ERR_CLOSED;
    }
    struct iovec parts[2] = {{.iov_base = &ret->msg, .iov_len = sizeof ret->msg},
                             {.iov_base = text, .iov_len = sizeof text - 1}};
    struct msghdr header = {.msg_iov = parts,
                            .msg_iovlen = 2,
                            .msg_control = room.bytes,
                            .msg_controllen = sizeof room.bytes};
    ssize_t size;
    do {
        size = recvmsg(control->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (size < 0 && errno == EINTR);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return HP_ERR_AGAIN;
    }
    ret->fd_count = 0;
    if (size > 0) {
        take_fds(&header, ret);
    }
    if (size < (ssize_t)sizeof ret->msg || ret->msg.text_bytes != (size_t)size - sizeof ret->msg) {
        hp_control_in_close(ret);
        control->is_closed = true;
        drop_queue(control);
        return HP_ERR_CLOSED;
    }
    text[ret->msg.text_bytes] = '\0';
    ret->text = text;
    return HP_OK;
}

void hp_control_in_close(struct hp_control_in *in)
{
    for (uint32_t i = 0; i < in->fd_count; i++) {
        if (in->fds[i] >= 0) {
            (void)close(in->fds[i]);
        }
    }
    in->fd_count = 0;
}
