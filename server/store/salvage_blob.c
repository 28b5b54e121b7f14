/* SPDX-License-Identifier: BSD-2-Clause */
/* The files of a salvaged database: taken over if a task that is there owns them, and read whole.
 */
#include <inttypes.h>
#include <string.h>

#include "common/base/macro.h"
#include "common/base/mem.h"
#include "server/store/blob_file.h"
#include "server/store/salvage.h"

#define READ_BYTES HP_BLOB_BLOCK_BYTES

/* Compares every digest of a file. */
static enum hp_err read_whole(const char *dir, uint64_t blob, void *buffer, struct hp_error *reterr)
{
    uint64_t offset = 0;
    for (;;) {
        uint32_t size = 0;
        uint64_t blob_size = 0;
        uint64_t digest = 0;
        enum hp_err err =
            hp_blob_read(dir, blob, offset, READ_BYTES, buffer, &size, &blob_size, &digest, reterr);
        if (err != HP_OK || size == 0) {
            return err;
        }
        offset += size;
    }
}

/* Takes one file; a file that is not good is a loss to tell, not an error. */
static enum hp_err take_blob(struct hp_salvage *v, struct hp_facts *facts, uint64_t blob,
                             uint64_t owner, void *buffer, struct hp_error *reterr)
{
    const struct hp_group_head *head = NULL;
    struct hp_error error = {0};
    uint64_t bytes = 0;
    enum hp_err err = hp_facts_group(facts, owner, &head, reterr);
    if (err == HP_OK) {
        enum hp_err read = read_whole(v->from_blobs, blob, buffer, &error);
        if (read == HP_OK) {
            v->report->blob_count++;
            return hp_blob_copy(v->from_blobs, v->to->blob_dir, blob, &bytes, reterr);
        }
        if (read == HP_ERR_NOMEM || read == HP_ERR_FULL) {
            *reterr = error;
            return read;
        }
        v->report->lost_count++;
        hp_salvage_say(v, "blob %" PRIu64 " of task %" PRIu64 ": %s", blob, owner, error.text);
        err = HP_ERR_NOT_FOUND;
    }
    if (err != HP_ERR_NOT_FOUND) {
        return err;
    }
    return hp_salvage_run(v, "DELETE FROM blob WHERE blob = ?1",
                          (struct hp_salvage_value[]){{.number = blob}}, 1, reterr);
}

enum hp_err hp_salvage_blobs(struct hp_salvage *v, struct hp_error *reterr)
{
    struct hp_facts facts;
    sqlite3_stmt *stmt = NULL;
    void *buffer = hp_alloc(READ_BYTES);
    hp_facts_init(&facts, v->to);
    enum hp_err err = buffer != NULL ? HP_OK : hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    int code = sqlite3_prepare_v2(v->to->db, "SELECT blob, owner FROM blob ORDER BY blob", -1,
                                  &stmt, NULL);
    while (err == HP_OK && code == SQLITE_OK) {
        int step = sqlite3_step(stmt);
        if (step != SQLITE_ROW) {
            err = step == SQLITE_DONE ? HP_OK : hp_sqlite_error(v->to, step, "read blobs", reterr);
            break;
        }
        err = take_blob(v, &facts, hp_sqlite_u64(stmt, 0), hp_sqlite_u64(stmt, 1), buffer, reterr);
    }
    if (err == HP_OK && code != SQLITE_OK) {
        err = hp_sqlite_error(v->to, code, "read blobs", reterr);
    }
    (void)sqlite3_finalize(stmt); /* its error is in `err` */
    hp_facts_deinit(&facts);
    hp_free(buffer);
    v->open_rows = 0;
    if (err == HP_OK && sqlite3_get_autocommit(v->to->db) == 0) {
        err = hp_sqlite_commit(v->to, reterr);
    }
    return err;
}
