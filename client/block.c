/* SPDX-License-Identifier: BSD-2-Clause */
/* One blocking call over the engine: send, wait, repeat while the broker is busy. */
#include <stdio.h>
#include <string.h>

#include "client/shell.h"
#include "common/base/mem.h"
#include "common/sys/clock.h"

#define BUSY_MS 200u

struct wait {
    hp_decode_fn decode;
    void *context;
    bool done;
    enum hp_status status;
    uint64_t retry_after_ms;
    char text[HP_CLIENT_TEXT_BYTES];
};

static void take(void *context, const struct hp_reply *reply)
{
    struct wait *wait = context;

    wait->done = true;
    wait->status = reply->status;
    wait->retry_after_ms = reply->retry_after_ms > 0 ? reply->retry_after_ms : BUSY_MS;
    (void)snprintf(wait->text, sizeof(wait->text), "%s",
                   reply->text[0] != '\0' ? reply->text : hp_strerror(reply->status));
    if (reply->status == HP_STATUS_OK && wait->decode != NULL) {
        wait->status = wait->decode(wait->context, reply);
        (void)snprintf(wait->text, sizeof(wait->text), "%s", hp_strerror(wait->status));
    }
}

/* Sends once and waits for the answer. */
static enum hp_status call_once(struct hp_client *client, enum hp_method method,
                                const struct hp_buf *params, uint64_t deadline_ms,
                                struct wait *wait)
{
    struct hp_buf copy;
    uint64_t request;
    enum hp_status status;

    wait->done = false;
    hp_buf_init(&copy, HP_LIMIT_FRAME_BYTES);
    if (hp_buf_append_buf(&copy, params) != HP_OK) {
        hp_buf_deinit(&copy);
        return hp_client_fail(client, HP_STATUS_NO_MEMORY, "out of memory");
    }
    status = hp_call_begin(client->engine, method, &copy, take, wait, false, &request);
    if (status != HP_STATUS_OK) {
        return hp_client_fail_engine(client, status);
    }
    while (status == HP_STATUS_OK && !wait->done) {
        status = hp_client_pump(client, deadline_ms);
    }
    if (wait->done) {
        return HP_STATUS_OK;
    }
    hp_call_abandon(client->engine, request);
    return status;
}

static bool is_busy(enum hp_status status)
{
    return status == HP_STATUS_BUSY || status == HP_STATUS_DRAINING;
}

enum hp_status hp_client_call(struct hp_client *client, enum hp_method method, enum hp_err err,
                              struct hp_buf *params, uint64_t deadline_ms, hp_decode_fn decode,
                              void *context)
{
    HP_CLEANUP(hp_buf_deinit) struct hp_buf owned = *params;
    struct wait wait = {.decode = decode, .context = context};
    enum hp_status status = hp_client_check(client);

    if (status == HP_STATUS_OK && err != HP_OK) {
        status = hp_client_fail(client,
                                err == HP_ERR_NOMEM ? HP_STATUS_NO_MEMORY : HP_STATUS_BAD_ARGUMENT,
                                "%s: an argument is out of range", hp_method_info(method)->name);
    }
    while (status == HP_STATUS_OK) {
        uint64_t again_ms;

        status = call_once(client, method, &owned, deadline_ms, &wait);
        again_ms = hp_clock_mono_ms() + wait.retry_after_ms;
        if (status != HP_STATUS_OK) {
            break;
        }
        if (!is_busy(wait.status) || again_ms >= deadline_ms) {
            return wait.status == HP_STATUS_OK
                       ? HP_STATUS_OK
                       : hp_client_fail(client, wait.status, "%s", wait.text);
        }
        while (status == HP_STATUS_OK && hp_clock_mono_ms() < again_ms) {
            status = hp_client_pump(client, again_ms);
        }
        status =
            status == HP_STATUS_TIMEOUT || status == HP_STATUS_UNREACHABLE ? HP_STATUS_OK : status;
    }
    return status;
}

size_t hp_id_cursor_next(struct hp_id_cursor *cursor, struct hp_ids *ranges, size_t range_max,
                         uint64_t id_max)
{
    size_t count = 0;

    while (count < range_max && id_max > 0 && cursor->index < cursor->count) {
        const struct hp_ids *ids = &cursor->ids[cursor->index];
        uint32_t left = ids->count - cursor->offset;
        uint32_t take_count = left < id_max ? left : (uint32_t)id_max;

        if (take_count > 0) {
            ranges[count].first = ids->first + cursor->offset;
            ranges[count].count = take_count;
            count++;
        }
        id_max -= take_count;
        cursor->offset += take_count;
        if (cursor->offset == ids->count) {
            cursor->index++;
            cursor->offset = 0;
        }
    }
    return count;
}
