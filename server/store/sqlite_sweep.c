/* SPDX-License-Identifier: BSD-2-Clause */
/* Blob files that nothing refers to: uploads that were never used, files left by a crash. */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/macro.h"
#include "common/sys/clock.h"
#include "server/store/blob_file.h"
#include "server/store/sqlite.h"

#define SWEEP_AGE_S 3600

struct sweep {
    struct hp_sqlite *s;
    bool is_start;
    int64_t now_s;
};

static void unlink_file(struct hp_sqlite *s, uint64_t blob, bool unfinished)
{
    char path[HP_BLOB_PATH_BYTES];
    if (hp_blob_path(s->blob_dir, blob, unfinished, path, NULL) == HP_OK) {
        (void)unlink(path); /* gone already, or the next sweep tries again */
    }
}

void hp_sqlite_unlink_blob(struct hp_sqlite *s, uint64_t blob)
{
    unlink_file(s, blob, false);
}

static enum hp_err sweep_file(void *context, uint64_t blob, bool unfinished, int64_t modified_s,
                              struct hp_error *reterr)
{
    struct sweep *sweep = context;
    struct hp_sqlite *s = sweep->s;
    /* A finished one may be the durable upload of a client or worker which names it after this
     * start; nobody can go on with an unfinished one. */
    bool is_wanted = modified_s + SWEEP_AGE_S > sweep->now_s;
    if (is_wanted && !(sweep->is_start && unfinished)) {
        return HP_OK;
    }
    if (!unfinished) {
        sqlite3_stmt *stmt HP_CLEANUP(hp_sqlite_reset_ptr) = s->stmts[HP_SQL_BLOB_HAS];
        hp_sqlite_bind_u64(stmt, 1, blob);
        enum hp_err err = hp_sqlite_step(s, stmt, "find blob", reterr);
        if (err != HP_ERR_NOT_FOUND) {
            return err;
        }
    }
    unlink_file(s, blob, unfinished);
    return HP_OK;
}

static enum hp_err sweep_folder(struct hp_sqlite *s, uint32_t folder, bool is_start,
                                struct hp_error *reterr)
{
    struct sweep sweep = {
        .s = s, .is_start = is_start, .now_s = (int64_t)(hp_clock_wall_ms() / 1000)};
    return hp_blob_list(s->blob_dir, folder, sweep_file, &sweep, reterr);
}

enum hp_err hp_sqlite_sweep_all(struct hp_sqlite *s, struct hp_error *reterr)
{
    enum hp_err err = hp_sqlite_forget_lost(s, reterr);
    for (uint32_t folder = 0; err == HP_OK && folder < HP_BLOB_FOLDERS; folder++) {
        err = sweep_folder(s, folder, true, reterr);
    }
    return err;
}

enum hp_err hp_sqlite_sweep_next(struct hp_sqlite *s, struct hp_error *reterr)
{
    uint32_t folder = s->sweep_folder++ % HP_BLOB_FOLDERS;
    return sweep_folder(s, folder, false, reterr);
}
