/* SPDX-License-Identifier: BSD-2-Clause */
/* Token files. A secret that others can read is none, so a loose mode is refused, not corrected. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/sys/file.h"
#include "server/config.h"

static enum hp_err check_file(const char *path, int fd, struct hp_error *reterr)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return hp_error_set(reterr, HP_ERR_IO, "token_file %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return hp_error_set(reterr, HP_ERR_INVALID, "token_file %s is no regular file", path);
    }
    if (st.st_uid != geteuid() && st.st_uid != 0) {
        return hp_error_set(reterr, HP_ERR_DENIED,
                            "token_file %s belongs to another user; it must be yours or root's",
                            path);
    }
    if ((st.st_mode & 077) != 0) {
        return hp_error_set(reterr, HP_ERR_DENIED,
                            "token_file %s can be read by others (mode %03o): chmod 600 it, and "
                            "better make a new secret",
                            path, (unsigned)st.st_mode & 0777);
    }
    return HP_OK;
}

enum hp_err hp_token_read(const char *path, char *ret_token, struct hp_error *reterr)
{
    HP_CLEANUP(hp_fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return hp_error_set(reterr, hp_err_of_errno(errno), "cannot read token_file %s: %s", path,
                            strerror(errno));
    }
    enum hp_err err = check_file(path, fd, reterr);
    if (err != HP_OK) {
        return err;
    }
    char text[HP_TOKEN_BYTES_MAX + 3];
    ssize_t n = read(fd, text, sizeof(text) - 1);
    if (n < 0) {
        return hp_error_set(reterr, HP_ERR_IO, "cannot read token_file %s: %s", path,
                            strerror(errno));
    }
    size_t size = (size_t)n;
    text[size] = '\0';
    while (size > 0 && strchr(" \t\r\n", text[size - 1]) != NULL) {
        text[--size] = '\0';
    }
    if (size < HP_TOKEN_BYTES_MIN || size > HP_TOKEN_BYTES_MAX || strlen(text) != size ||
        strpbrk(text, "\r\n") != NULL) {
        err =
            hp_error_set(reterr, HP_ERR_RANGE, "token_file %s must hold one line of %d to %d bytes",
                         path, HP_TOKEN_BYTES_MIN, HP_TOKEN_BYTES_MAX);
    } else {
        memcpy(ret_token, text, size + 1);
    }
    explicit_bzero(text, sizeof(text));
    return err;
}
