/* SPDX-License-Identifier: BSD-2-Clause */
/* Errors of SQLite in our words, and the few calls on statements that everything else is made of.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "server/store/page_sum.h"
#include "server/store/sqlite.h"

static enum hp_err err_of_code(struct hp_sqlite *s, int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL:
        return HP_ERR_NOSPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* of our own fixed SQL: a header or a list of tables that is damaged */
        return HP_ERR_CORRUPT;
    case SQLITE_NOMEM:
        return HP_ERR_NOMEM;
    case SQLITE_CONSTRAINT: /* of hp_sqlite_bind_row; of hp_sqlite_refuse_commit */
        return code == SQLITE_CONSTRAINT_NOTNULL ? HP_ERR_NOMEM : HP_ERR_IO;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return HP_ERR_BUSY;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return HP_ERR_DENIED;
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_DATA) {
            return HP_ERR_CORRUPT; /* page_sum.c */
        }
        /* A write over the quota is a full disk; a failed sync never is (its pages may be lost). */
        if (code == SQLITE_IOERR_WRITE && s->db != NULL &&
            (sqlite3_system_errno(s->db) == EDQUOT || sqlite3_system_errno(s->db) == ENOSPC)) {
            return HP_ERR_NOSPACE;
        }
        return HP_ERR_IO;
    default:
        return HP_ERR_IO;
    }
}

/* Short, since the path goes before it: an operator replaces DIR. */
#define WHAT_TO_DO                                                                                 \
    "restore a backup, or see 'hostpool broker check DIR' and 'hostpool broker recover DIR NEW'"

enum hp_err hp_sqlite_error(struct hp_sqlite *s, int code, const char *action,
                            struct hp_error *reterr)
{
    enum hp_err err = err_of_code(s, code);
    const char *text = s->db != NULL ? sqlite3_errmsg(s->db) : sqlite3_errstr(code);
    char page[60];
    if (code == SQLITE_IOERR_DATA) {
        (void)snprintf(page, sizeof(page), "page %" PRIu64 " fails its checksum",
                       hp_page_sum_bad_page());
        text = page;
    }
    text = err == HP_ERR_NOMEM ? "out of memory" : text;
    text = code == SQLITE_CONSTRAINT_COMMITHOOK ? "the transaction was lost" : text;
    switch ((int)err) {
    case HP_ERR_CORRUPT:
        return hp_error_set(reterr, err, "%s: damaged (%.30s: %.60s); " WHAT_TO_DO, s->db_path,
                            action, text);
    case HP_ERR_BUSY:
        return hp_error_set(reterr, err, "%s: in use by another process", s->db_path);
    default:
        return hp_error_set(reterr, err, "%s: %.60s: %.80s (SQLite code %d, errno %d)", s->db_path,
                            action, text, code, s->db != NULL ? sqlite3_system_errno(s->db) : 0);
    }
}

enum hp_err hp_sqlite_damaged(struct hp_sqlite *s, const char *table, uint64_t key,
                              struct hp_error *reterr)
{
    return hp_error_set(reterr, HP_ERR_CORRUPT,
                        "%s: damaged: row %" PRIu64 " of %s fails its digest; " WHAT_TO_DO,
                        s->db_path, key, table);
}

enum hp_err hp_sqlite_exec(struct hp_sqlite *s, const char *sql, struct hp_error *reterr)
{
    s->is_inside = sqlite3_get_autocommit(s->db) == 0 && strcmp(sql, "COMMIT") != 0;
    int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    s->is_inside = false;
    return code == SQLITE_OK ? HP_OK : hp_sqlite_error(s, code, sql, reterr);
}

enum hp_err hp_sqlite_query_u64(struct hp_sqlite *s, const char *sql, uint64_t *ret_value,
                                struct hp_error *reterr)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW) {
            *ret_value = (uint64_t)sqlite3_column_int64(stmt, 0);
            code = SQLITE_OK;
        }
    }
    enum hp_err err = code == SQLITE_OK ? HP_OK : hp_sqlite_error(s, code, sql, reterr);
    (void)sqlite3_finalize(stmt); /* its error is in `code` */
    return err;
}

void hp_sqlite_bind_u64(sqlite3_stmt *stmt, int index, uint64_t value)
{
    int code = sqlite3_bind_int64(stmt, index, (sqlite3_int64)value);
    HP_ASSERT(code == SQLITE_OK);
}

void hp_sqlite_bind_bin(sqlite3_stmt *stmt, int index, struct hp_bin bin)
{
    HP_ASSERT(bin.size <= INT32_MAX);
    const void *data = bin.size > 0 ? bin.data : (const void *)"";
    int code = sqlite3_bind_blob(stmt, index, data, (int)bin.size, SQLITE_STATIC);
    HP_ASSERT(code == SQLITE_OK);
}

void hp_sqlite_bind_row(sqlite3_stmt *stmt, int index, const struct hp_row_out *out)
{
    if (out->failed) { /* out of memory: NOT NULL of the column fails the step */
        (void)sqlite3_bind_null(stmt, index);
        return;
    }
    HP_ASSERT(out->size <= INT32_MAX);
    hp_sqlite_bind_bin(stmt, index,
                       (struct hp_bin){.data = out->data, .size = (uint32_t)out->size});
}

int hp_sqlite_refuse_commit(void *context)
{
    const struct hp_sqlite *s = context;
    return s->is_inside;
}

enum hp_err hp_sqlite_step(struct hp_sqlite *s, sqlite3_stmt *stmt, const char *action,
                           struct hp_error *reterr)
{
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        return HP_OK;
    }
    if (code == SQLITE_DONE) {
        return HP_ERR_NOT_FOUND;
    }
    return hp_sqlite_error(s, code, action, reterr);
}

enum hp_err hp_sqlite_run(struct hp_sqlite *s, sqlite3_stmt *stmt, const char *action,
                          struct hp_error *reterr)
{
    s->is_inside = sqlite3_get_autocommit(s->db) == 0 && stmt != s->stmts[HP_SQL_COMMIT];
    int code = sqlite3_step(stmt);
    s->is_inside = false;
    enum hp_err err = code == SQLITE_DONE || code == SQLITE_ROW
                          ? HP_OK
                          : hp_sqlite_error(s, code, action, reterr);
    (void)sqlite3_reset(stmt); /* repeats the error of the step */
    return err;
}

void hp_sqlite_reset(sqlite3_stmt *stmt)
{
    (void)sqlite3_reset(stmt); /* repeats the error of the last step */
}

void hp_sqlite_reset_ptr(sqlite3_stmt **stmt)
{
    if (*stmt != NULL) {
        hp_sqlite_reset(*stmt);
    }
}

struct hp_bin hp_sqlite_bin(sqlite3_stmt *stmt, int column)
{
    const void *data = sqlite3_column_blob(stmt, column);
    int size = sqlite3_column_bytes(stmt, column);
    return (struct hp_bin){.data = data, .size = data != NULL && size > 0 ? (uint32_t)size : 0};
}

uint64_t hp_sqlite_u64(sqlite3_stmt *stmt, int column)
{
    return (uint64_t)sqlite3_column_int64(stmt, column);
}
