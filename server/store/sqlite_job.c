/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks and backups as loads that take many calls. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/macro.h"
#include "common/base/mem.h"
#include "server/store/sqlite_job.h"

void hp_sqlite_job_free(struct hp_sqlite *s)
{
    struct hp_sqlite_job *job = HP_TAKE(s->job);
    if (job != NULL) {
        hp_backup_end(job, false);
        hp_sqlite_check_deinit(&job->check);
        hp_free(job);
    }
}

static enum hp_err begin_job(struct hp_sqlite *s, struct hp_loaded *loaded, struct hp_error *reterr)
{
    s->job = hp_calloc(1, sizeof(*s->job));
    if (s->job == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    s->job->loaded = loaded;
    hp_sqlite_check_init(&s->job->check);
    return loaded->load->kind == HP_LOAD_BACKUP ? hp_backup_start(s->job, s, reterr) : HP_OK;
}

static void finish_check(struct hp_sqlite_job *job, struct hp_answer *answer)
{
    struct hp_check *check = &job->check;
    char text[120];
    (void)snprintf(text, sizeof(text),
                   "%s%s: %" PRIu64 " rows, %" PRIu64 " blobs, %" PRIu64 " problems",
                   check->lines.size > 0 ? "\n" : "", check->problem_count > 0 ? "damaged" : "ok",
                   check->row_count, check->blob_count, check->problem_count);
    enum hp_err err = hp_buf_append(&check->lines, text, strlen(text) + 1);
    answer->loaded->err = check->problem_count > 0 ? HP_ERR_CORRUPT : HP_OK;
    hp_answer_text(answer, err == HP_OK ? (const char *)check->lines.data : text);
    answer->loaded->figures[0] = check->row_count;
    answer->loaded->figures[1] = check->problem_count;
}

static void finish_backup(struct hp_sqlite_job *job, struct hp_answer *answer)
{
    char text[160];
    (void)snprintf(text, sizeof(text),
                   "ok: %" PRIu64 " tasks, %" PRIu64 " bytes, %" PRIu64 " rows verified",
                   job->task_count, job->byte_count, job->check.row_count);
    hp_answer_text(answer, text);
    answer->loaded->figures[0] = job->task_count;
    answer->loaded->figures[1] = job->byte_count;
    hp_backup_end(job, true);
}

bool hp_sqlite_job_step(struct hp_sqlite *s, struct hp_answer *answer)
{
    struct hp_loaded *loaded = answer->loaded;
    bool is_backup = loaded->load->kind == HP_LOAD_BACKUP;
    struct hp_error error = {0};
    enum hp_err err = HP_OK;
    bool done = false;
    if (s->job != NULL && s->job->loaded != loaded) {
        hp_answer_fail(answer, HP_ERR_BUSY, "another check or backup is under way");
        return true;
    }
    if (s->job == NULL) {
        err = begin_job(s, loaded, &error);
    } else if (is_backup) {
        err = hp_backup_step(s->job, answer->deadline_us, &done, &error);
    } else {
        err = hp_sqlite_check_step(&s->job->check, s, answer->deadline_us, &error);
        done = s->job->check.phase == HP_CHECK_DONE;
    }
    if (err == HP_OK && done && is_backup) {
        finish_backup(s->job, answer);
    } else if (err == HP_OK && done) {
        finish_check(s->job, answer);
    }
    if (err != HP_OK) {
        hp_answer_fail(answer, err, error.text);
    }
    if (err != HP_OK || done) {
        hp_sqlite_job_free(s);
        return true;
    }
    return false;
}
