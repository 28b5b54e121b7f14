/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The trace in words, for someone who has never seen one. Each kind of step has a sentence, with
 * its four values in braces: {0} as a number, {0:kind} by name.
 */
#include <string.h>

#include "tests/sim/sim.h"

struct words {
    const char *what, *actor, *text;
};

static const struct words all[] = {
    {"start", "{3:high:worker}", "begins task {0}, attempt {1} (epoch {2}, payload {3:low:wid})"},
    {"end", "{3:high:worker}", "task {0}, attempt {1} (epoch {2}) is over: {3:low:success}"},
    {"lease", "disk", "task {0} is leased: attempt {1}, epoch {2}, to node number {3}"},
    {"returned", "disk", "task {0} waits again after attempt {1}: {2} failures, {3} losses so far"},
    {"cancelling", "disk", "task {0} is to be cancelled while attempt {1} runs"},
    {"result", "disk", "tasks from {0}, {1} of them: {2:state}, attempt {3:low}, reason {3:high}"},
    {"commit", "disk", "commit is durable up to batch {0} ({1} batches)"},
    {"disk_full", "disk", "full: {0} batches wait"},
    {"disk_free", "disk", "has space again"},
    {"disk_error", "disk", "the commit fails; after the restart its content is {0:there}"},
    {"forgotten", "disk", "what was not committed is lost"},
    {"broker_start", "broker", "starts, with all up to batch {0}"},
    {"broker_crash", "broker", "dies{1:gone}; batch {0} was the last to be durable"},
    {"broker_pause", "broker", "{0:stops}"},
    {"broker_drain", "broker", "is told to stop in order"},
    {"broker_close", "broker", "closes connection {0}"},
    {"broker_says", "broker", "makes a note in its log"},
    {"node_start", "{0:worker}", "starts with {1} slots"},
    {"node_crash", "{0:worker}", "dies{1:gone}, with its children"},
    {"node_pause", "{0:worker}", "{1:stops}"},
    {"node_drain", "{0:worker}", "is told to finish and go"},
    {"node_exit", "{0:worker}", "has finished and goes"},
    {"node_close", "{0:worker}", "closes connection {1}"},
    {"dead_man", "{0:worker}", "its helper ends what may not outlive the lease (at {1} ms)"},
    {"child_start", "{0:worker}", "starts a child of pool {1} in slot {2}{3:doomed}"},
    {"child_up", "{0:worker}", "the child of pool {1} in slot {2} is ready"},
    {"child_stop", "{0:worker}", "ends the child of pool {1} in slot {2}, signal {3}"},
    {"child_killed", "{0:worker}", "a child that runs task {1} is killed"},
    {"pool_gone", "{0:worker}", "has nothing left of pool {1}"},
    {"user_start", "{0:client}", "starts, with a new session"},
    {"user_crash", "{0:client}", "dies"},
    {"user_pause", "{0:client}", "{1:stops}"},
    {"user_close", "{0:client}", "gives its connection up, status {1}"},
    {"submit", "{0:client}", "asks for {2} tasks, payloads from {1:wid} on, delay {3} ms"},
    {"submitted", "{0:client}", "is told: tasks from {1}, {2} of them, are accepted ({3:wid})"},
    {"submit_failed", "{0:client}", "is told: status {1}, {2} tasks are refused ({3:wid})"},
    {"call", "{0:client}", "calls method {1}"},
    {"cancel", "{0:client}", "cancels {2} tasks from {1} on, mode {3}"},
    {"pool_end", "{0:client}", "ends pool {1}, way {2}"},
    {"reply", "{0:client}", "has the answer to request {1}, status {2}"},
    {"ended", "{0:client}", "is told: task {1} is {2:state}, attempt {3}"},
    {"read", "{0:client}", "has read the result of task {1}: status {2}, {3} bytes"},
    {"fault", "FAULT", "number {0}: {1:fault}, at {2:place}, for {3} ms"},
    {"cut", "net", "the link of {0:place} is cut"},
    {"mend", "net", "the link of {0:place} is whole again"},
    {"timeout", "net", "connection {1} of {0:place} is given up after silence"},
    {"clock_jump", "clock", "the wall clock is set {0:ways} by {1} ms"},
    {"healed", "FAULT", "all has healed, after {0} faults: from here on all must end"},
    {"final", "audit", "all held: {0} tasks, {1} ends told"},
};

static const char *const faults[SIM_FAULT_KINDS] = {
    [SIM_FAULT_BROKER_CRASH] = "the broker is killed",
    [SIM_FAULT_BROKER_GONE] = "the broker's host is off",
    [SIM_FAULT_BROKER_DRAIN] = "the broker is stopped in order and started again",
    [SIM_FAULT_BROKER_PAUSE] = "the broker is stopped (SIGSTOP)",
    [SIM_FAULT_BROKER_SENT] = "the broker dies after it has sent its answers",
    [SIM_FAULT_COMMIT_LOST] = "a commit fails, and is lost",
    [SIM_FAULT_COMMIT_THERE] = "a commit fails, and is there",
    [SIM_FAULT_DISK_STALL] = "the disk stalls",
    [SIM_FAULT_DISK_SLOW] = "the disk is slow",
    [SIM_FAULT_DISK_FULL] = "the disk is full",
    [SIM_FAULT_NODE_CRASH] = "a worker is killed",
    [SIM_FAULT_NODE_GONE] = "a worker's host is off",
    [SIM_FAULT_NODE_PAUSE] = "a worker is stopped (SIGSTOP)",
    [SIM_FAULT_NODE_DRAIN] = "a worker is told to finish and go",
    [SIM_FAULT_NODE_STARTED] = "a worker dies after a task has begun",
    [SIM_FAULT_NODE_SPOOLING] = "a worker dies before the fsync of its spool",
    [SIM_FAULT_NODE_SPOOLED] = "a worker dies after the fsync of its spool",
    [SIM_FAULT_NODE_ACKED] = "a worker dies after an acknowledgement",
    [SIM_FAULT_CHILDREN] = "children are killed",
    [SIM_FAULT_LINK_RESET] = "connections are reset",
    [SIM_FAULT_LINK_CUT] = "a link is cut both ways",
    [SIM_FAULT_LINK_CUT_UP] = "a link is cut towards the broker",
    [SIM_FAULT_LINK_CUT_DOWN] = "a link is cut from the broker",
    [SIM_FAULT_LINK_FLAPS] = "a link flaps",
    [SIM_FAULT_LINK_SLOW] = "a link is slow",
    [SIM_FAULT_SLOW_READER] = "a slow reader",
    [SIM_FAULT_USER_CRASH] = "a client is killed",
    [SIM_FAULT_USER_PAUSE] = "a client is stopped (SIGSTOP)",
    [SIM_FAULT_CLOCK_STEP] = "the wall clock is off by seconds",
    [SIM_FAULT_CLOCK_DAY] = "the wall clock is off by a day",
};

const char *sim_words_fault(enum sim_fault_kind kind)
{
    return faults[kind];
}

static void print_place(char *out, size_t size, uint64_t place)
{
    bool is_node = place < SIM_NODES_MAX;
    (void)snprintf(out, size, "%s %llu", is_node ? "worker" : "client",
                   (unsigned long long)(is_node ? place : place - SIM_NODES_MAX));
}

/* One value, by its kind. */
static void print_value(char *out, size_t size, uint64_t value, const char *kind)
{
    static const char *const states[] = {"none",    "blocked",   "delayed",    "ready",  "leased",
                                         "running", "waiting",   "cancelling", "buried", "done",
                                         "failed",  "cancelled", "expired"};
    unsigned long long number = value;
    if (strcmp(kind, "state") == 0 && value < sizeof(states) / sizeof(states[0])) {
        (void)snprintf(out, size, "%s", states[value]);
    } else if (strcmp(kind, "worker") == 0 || strcmp(kind, "client") == 0) {
        (void)snprintf(out, size, "%s %llu", kind, number);
    } else if (strcmp(kind, "place") == 0) {
        print_place(out, size, value);
    } else if (strcmp(kind, "fault") == 0 && value < SIM_FAULT_KINDS) {
        (void)snprintf(out, size, "%s", faults[value]);
    } else if (strcmp(kind, "wid") == 0) {
        (void)snprintf(out, size, "%llu/%llu", number >> 24, number & 0xffffff);
    } else if (strcmp(kind, "success") == 0) {
        (void)snprintf(out, size, "%s", value != 0 ? "success" : "no success");
    } else if (strcmp(kind, "there") == 0) {
        (void)snprintf(out, size, "%s", value != 0 ? "there" : "gone");
    } else if (strcmp(kind, "gone") == 0) {
        (void)snprintf(out, size, "%s", value != 0 ? ", and its host is off" : "");
    } else if (strcmp(kind, "stops") == 0) {
        (void)snprintf(out, size, "%s", value != 0 ? "is stopped" : "goes on");
    } else if (strcmp(kind, "doomed") == 0) {
        (void)snprintf(out, size, "%s", value != 0 ? ", whose set-up will fail" : "");
    } else if (strcmp(kind, "ways") == 0) {
        (void)snprintf(out, size, "%s", value != 0 ? "back" : "ahead");
    } else {
        (void)snprintf(out, size, "%llu", number);
    }
}

/* Fills "{1:kind}" in; "{3:high}" and "{3:low}" are halves of a value. */
static void fill(char *out, size_t size, const char *text, const struct sim_note *note)
{
    size_t at = 0;
    while (*text != '\0' && at + 1 < size) {
        if (*text != '{') {
            out[at++] = *text++;
            continue;
        }
        uint64_t value = note->values[text[1] - '0'];
        char kind[32] = "";
        const char *end = strchr(text, '}');
        if (text[2] == ':') {
            (void)snprintf(kind, sizeof(kind), "%.*s", (int)(end - text - 3), text + 3);
        }
        const char *name = kind;
        if (strncmp(kind, "high", 4) == 0 || strncmp(kind, "low", 3) == 0) {
            value = kind[0] == 'h' ? value >> 32 : value & UINT32_MAX;
            name = strchr(kind, ':') != NULL ? strchr(kind, ':') + 1 : "";
        }
        char word[64];
        print_value(word, sizeof(word), value, name);
        at += (size_t)snprintf(out + at, size - at, "%s", word);
        text = end + 1;
    }
    out[at < size ? at : size - 1] = '\0';
}

void sim_words_note(const struct sim_note *note, FILE *out)
{
    char actor[32] = "?";
    char text[256] = "";
    (void)snprintf(text, sizeof(text), "(no words for %s)", note->what);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(all[i].what, note->what) == 0) {
            fill(actor, sizeof(actor), all[i].actor, note);
            fill(text, sizeof(text), all[i].text, note);
        }
    }
    (void)fprintf(out, "%10llu.%03llu %-9s %s\n", (unsigned long long)(note->at_us / SIM_MS),
                  (unsigned long long)(note->at_us % SIM_MS), actor, text);
}

void sim_words_head(const struct sim *sim, FILE *out)
{
    const struct sim_plan *plan = &sim->plan;
    (void)fprintf(
        out,
        "# Seed %llu: one history of a broker, %u workers and %u clients, on a virtual clock.\n"
        "# The broker's core, the workers' agents and the clients' engines are the production "
        "code;\n"
        "# disk, net, children and time are simulated. The same seed gives the same history.\n"
        "#\n"
        "# Each line: virtual milliseconds, who, what. \"disk\" tells what became durable; "
        "\"FAULT\"\n"
        "# what goes wrong (each heals after its time); a payload is client/number of the task.\n"
        "# A task is leased to a worker (attempt 1, 2, ...), begins, ends; its result is "
        "committed;\n"
        "# then the client is told. An auditor compares all of it with the rules in audit.c.\n"
        "#\n"
        "# Lease %llu ms, heartbeat %llu ms, commits of up to about %llu us, eager %s, pools %s.\n"
        "# Clients work until %llu ms; by %llu ms all faults have healed. Faults planned:\n",
        (unsigned long long)sim->seed, plan->nodes, plan->users, (unsigned long long)plan->lease_ms,
        (unsigned long long)plan->heartbeat_ms, (unsigned long long)plan->commit_us,
        plan->eager ? "on" : "off", plan->pools ? "on" : "off", (unsigned long long)plan->work_ms,
        (unsigned long long)plan->heal_ms);
    for (uint32_t i = 0; i < plan->fault_count; i++) {
        const struct sim_fault *fault = &plan->faults[i];
        char place[32] = "broker";
        if (fault->kind >= SIM_FAULT_CLOCK_STEP) {
            (void)snprintf(place, sizeof(place), "clock");
        } else if (fault->kind >= SIM_FAULT_NODE_CRASH) {
            print_place(place, sizeof(place), fault->place);
        }
        (void)fprintf(out, "#   %2u  at %6llu ms for %5llu ms, %s: %s%s\n", i,
                      (unsigned long long)fault->at_ms, (unsigned long long)fault->span_ms, place,
                      faults[fault->kind], fault->is_on ? "" : " (left out)");
    }
}
