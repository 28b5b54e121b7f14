/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool stats: the pool on one page. */
#include "cli/listing.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

struct sums {
    uint64_t queue_count;
    uint64_t paused_count;
    uint64_t ready;
    uint64_t delayed;
    uint64_t running;
    uint64_t done;
    uint64_t failed;
    uint64_t worker_count;
    uint64_t online_count;
    uint64_t draining_count;
    uint64_t slots; /* of workers that take tasks */
    uint64_t used;
};

static void add_queues(struct sums *sums, const struct hp_queue_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct hp_queue *queue = &list->queues[i];
        sums->queue_count++;
        sums->paused_count += queue->paused;
        sums->ready += queue->ready;
        sums->delayed += queue->delayed;
        sums->running += queue->running;
        sums->done += queue->done;
        sums->failed += queue->failed;
    }
}

static void add_workers(struct sums *sums, const struct hp_worker_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct hp_worker *worker = &list->workers[i];
        bool is_online = worker->state == HP_WORKER_ONLINE;
        sums->worker_count++;
        sums->online_count += is_online;
        sums->draining_count += worker->draining;
        sums->slots += is_online && !worker->draining ? worker->slots : 0;
        sums->used += is_online ? worker->used : 0;
    }
}

static int print_json(struct hp_cli *cli, const struct sums *sums)
{
    json_t *tasks = json_pack("{s:I,s:I,s:I,s:I,s:I}", "queued", (json_int_t)sums->ready, "delayed",
                              (json_int_t)sums->delayed, "running", (json_int_t)sums->running,
                              "done", (json_int_t)sums->done, "failed", (json_int_t)sums->failed);
    json_t *queues = json_pack("{s:I,s:I}", "count", (json_int_t)sums->queue_count, "paused",
                               (json_int_t)sums->paused_count);
    json_t *workers =
        json_pack("{s:I,s:I,s:I,s:I,s:I}", "count", (json_int_t)sums->worker_count, "online",
                  (json_int_t)sums->online_count, "draining", (json_int_t)sums->draining_count,
                  "slots", (json_int_t)sums->slots, "used", (json_int_t)sums->used);
    return hp_cli_json_print(
        cli, json_pack("{s:o,s:o,s:o}", "tasks", tasks, "queues", queues, "workers", workers));
}

static void print_page(const struct sums *sums, const struct hp_broker_info *info)
{
    char a[32];
    char b[32];
    char c[32];
    (void)printf("tasks    %s queued, %s delayed, %s running\n", hp_cli_thousands(sums->ready, a),
                 hp_cli_thousands(sums->delayed, b), hp_cli_thousands(sums->running, c));
    (void)printf("ended    %s done, %s not (since the broker started, %s ago)\n",
                 hp_cli_thousands(sums->done, a), hp_cli_thousands(sums->failed, b),
                 hp_cli_age(c, info->uptime_ms));
    (void)printf("queues   %" PRIu64 ", %" PRIu64 " paused\n", sums->queue_count,
                 sums->paused_count);
    (void)printf("workers  %" PRIu64 " online of %" PRIu64 ", %" PRIu64 " draining; %" PRIu64
                 " of %" PRIu64 " slots in use\n",
                 sums->online_count, sums->worker_count, sums->draining_count, sums->used,
                 sums->slots);
    for (size_t i = 0; i < info->warning_count; i++) {
        (void)printf("warning  %s\n", HP_CLI_SAFE(info->warnings[i]));
    }
}

int hp_cli_stats(struct hp_cli *cli)
{
    struct sums sums = {0};
    struct hp_queue_list *queues = NULL;
    struct hp_worker_list *workers = NULL;
    struct hp_broker_info *info = NULL;
    int code = hp_cli_connect(cli);
    if (code != 0) {
        return code;
    }
    enum hp_status status = hp_queue_get(cli->client, NULL, HP_TIMEOUT_DEFAULT, &queues);
    if (status == HP_STATUS_OK) {
        status = hp_worker_get(cli->client, NULL, HP_TIMEOUT_DEFAULT, &workers);
    }
    if (status == HP_STATUS_OK) {
        status = hp_broker_status(cli->client, HP_TIMEOUT_DEFAULT, &info);
    }
    if (status != HP_STATUS_OK) {
        code = hp_cli_fail(cli, status, "cannot get the figures");
    } else {
        add_queues(&sums, queues);
        add_workers(&sums, workers);
        if (hp_cli_has(cli, HP_CLI_F_JSON) || hp_cli_has(cli, HP_CLI_F_JSONL)) {
            code = print_json(cli, &sums);
        } else {
            print_page(&sums, info);
        }
    }
    hp_queue_list_free(queues);
    hp_worker_list_free(workers);
    hp_broker_info_free(info);
    return code;
}
