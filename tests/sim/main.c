/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One run, and less of it:
 *   sim --seed N [--trace] [--check]     --trace: in words; --check: all indices after each turn
 *       [--faults 3,7 | --faults none | --without 3,7] [--workers N] [--clients N] [--acts A..B]
 *       [--until MS]                     only these faults, the first so many of them, only these
 *                                        acts of each client, all over by then
 *   sim --seed N --minimise              a failing seed with less of everything
 * Many:
 *   sim --seeds A..B [--jobs N]          all of them
 *   sim --minutes M [--from A] [--jobs N]  as many as the time allows
 *   sim --file PATH                      the seeds of a file, one a line
 *   sim --scenes N                       each scene of scene.c over N seeds; one of them:
 *                                        --seed N --scene NAME
 *   sim --hashes PATH [--write]          the histories of these seeds are the ones they were; with
 *                                        --write they become so
 * --trap NAME (early-ack, no-fence, pair): with a bug of the simulation itself, see sim.h.
 *
 * Exit status 0: all held. On a broken rule: the tail of the history, the rule and the seed; of a
 * campaign: the seeds that failed, the first ones minimised.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/campaign.h"

struct args {
    struct sim_options options;
    struct campaign campaign;
    bool has_seed, minimise, write;
    const char *file, *hashes;
    uint64_t scenes;
};

__attribute__((noreturn)) static void usage(void)
{
    (void)fprintf(stderr,
                  "usage: sim --seed N [--trace | --minimise] [--faults LIST] [--workers N] ... | "
                  "--seeds A..B [--jobs N] | --minutes M [--from A] [--jobs N] | --file PATH | "
                  "--scenes N | --hashes PATH [--write]\n");
    exit(2);
}

static uint64_t number(const char *text, char **ret_end)
{
    errno = 0;
    uint64_t value = strtoull(text, ret_end, 10);
    if (errno != 0 || *ret_end == text) {
        usage();
    }
    return value;
}

static void parse_range(const char *text, uint64_t *ret_from, uint64_t *ret_to)
{
    char *end = NULL;
    *ret_from = number(text, &end);
    if (strncmp(end, "..", 2) != 0) {
        usage();
    }
    *ret_to = number(end + 2, &end);
}

/* The listed faults are in, or out. */
static void parse_faults(struct sim_options *options, const char *text, bool in)
{
    for (uint32_t i = 0; i < SIM_FAULTS_MAX; i++) {
        options->without[i] = in;
    }
    options->is_cut = true;
    if (strcmp(text, "none") == 0) {
        return;
    }
    for (char *end = NULL;; text = end + 1) {
        uint64_t fault = number(text, &end);
        if (fault >= SIM_FAULTS_MAX) {
            usage();
        }
        options->without[fault] = !in;
        if (*end != ',') {
            return;
        }
    }
}

static enum sim_trap parse_trap(const char *text)
{
    for (uint32_t i = 0; i < SIM_TRAPS; i++) {
        if (strcmp(sim_trap_name((enum sim_trap)i), text) == 0) {
            return (enum sim_trap)i;
        }
    }
    usage();
}

static bool parse_flag(struct args *args, const char *name)
{
    if (strcmp(name, "--trace") == 0) {
        args->options.trace = true;
    } else if (strcmp(name, "--check") == 0) {
        args->options.check = args->campaign.check = true;
    } else if (strcmp(name, "--minimise") == 0) {
        args->minimise = true;
    } else if (strcmp(name, "--write") == 0) {
        args->write = true;
    } else {
        return false;
    }
    return true;
}

/* What makes one run smaller. */
static bool parse_cut(struct sim_options *options, const char *name, const char *value)
{
    char *end = NULL;
    if (strcmp(name, "--faults") == 0 || strcmp(name, "--without") == 0) {
        parse_faults(options, value, name[2] == 'f');
    } else if (strcmp(name, "--workers") == 0) {
        options->nodes = (uint32_t)number(value, &end);
    } else if (strcmp(name, "--clients") == 0) {
        options->users = (uint32_t)number(value, &end);
    } else if (strcmp(name, "--acts") == 0) {
        parse_range(value, &options->acts_from, &options->acts_to);
    } else if (strcmp(name, "--until") == 0) {
        options->until_ms = number(value, &end);
    } else {
        return false;
    }
    options->is_cut = true;
    return true;
}

static void parse_value(struct args *args, const char *name, const char *value)
{
    struct campaign *campaign = &args->campaign;
    char *end = NULL;
    if (strcmp(name, "--seed") == 0) {
        args->has_seed = true;
        args->options.seed = number(value, &end);
    } else if (strcmp(name, "--seeds") == 0) {
        parse_range(value, &campaign->from, &campaign->to);
    } else if (strcmp(name, "--jobs") == 0) {
        campaign->jobs = (unsigned)number(value, &end);
    } else if (strcmp(name, "--from") == 0) {
        campaign->from = number(value, &end);
    } else if (strcmp(name, "--minutes") == 0) {
        campaign->seconds = number(value, &end) * 60;
        campaign->to = UINT64_MAX / 2;
    } else if (strcmp(name, "--failures") == 0) {
        campaign->failures_max = (unsigned)number(value, &end);
    } else if (strcmp(name, "--file") == 0) {
        args->file = value;
    } else if (strcmp(name, "--hashes") == 0) {
        args->hashes = value;
    } else if (strcmp(name, "--scenes") == 0) {
        args->scenes = number(value, &end);
    } else if (strcmp(name, "--scene") == 0) {
        args->options.scene = sim_scene_find(value);
        args->options.is_cut = true;
        if (args->options.scene == NULL) {
            usage();
        }
    } else if (strcmp(name, "--trap") == 0) {
        args->options.trap = campaign->trap = parse_trap(value);
    } else if (!parse_cut(&args->options, name, value)) {
        usage();
    }
}

static void one(const struct sim_options *options)
{
    static struct sim sim;
    sim_run(options, &sim);
    (void)printf("seed %llu ok: hash %016llx, %llu s, %llu tasks, %llu starts, %llu faults, "
                 "%llu crashes, %llu turns, %llu blobs\n",
                 (unsigned long long)options->seed, (unsigned long long)sim.hash,
                 (unsigned long long)(sim_ms(&sim) / 1000), (unsigned long long)sim.figures.tasks,
                 (unsigned long long)sim.figures.starts, (unsigned long long)sim.figures.faults,
                 (unsigned long long)sim.figures.crashes, (unsigned long long)sim.figures.turns,
                 (unsigned long long)sim.figures.blobs);
}

static FILE *must_open(const char *path, const char *how)
{
    FILE *file = fopen(path, how);
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    return file;
}

static void run_file(const struct args *args)
{
    FILE *file = must_open(args->file, "r");
    char line[256];
    while (fgets(line, sizeof(line), file) != NULL) {
        if (line[0] >= '0' && line[0] <= '9') {
            struct sim_options options = args->options;
            options.seed = strtoull(line, NULL, 10);
            one(&options);
        }
    }
    (void)fclose(file);
}

/* Lines "seed hash" are compared with what the seeds give now, or written anew. */
static int check_hashes(const struct args *args)
{
    static struct sim sim;
    static char lines[200][256];
    FILE *file = must_open(args->hashes, "r");
    uint32_t count = 0;
    int differ = 0;
    while (count < 200 && fgets(lines[count], sizeof(lines[0]), file) != NULL) {
        count++;
    }
    (void)fclose(file);
    for (uint32_t i = 0; i < count; i++) {
        char *end = NULL;
        struct sim_options options = {.seed = strtoull(lines[i], &end, 10)};
        if (end == lines[i]) {
            continue; /* a comment */
        }
        uint64_t before = strtoull(end, NULL, 16);
        sim_run(&options, &sim);
        if (sim.hash != before) {
            (void)printf("seed %llu: hash %016llx, it was %016llx\n",
                         (unsigned long long)options.seed, (unsigned long long)sim.hash,
                         (unsigned long long)before);
            differ = 1;
        }
        (void)snprintf(lines[i], sizeof(lines[i]), "%llu %016llx\n",
                       (unsigned long long)options.seed, (unsigned long long)sim.hash);
    }
    if (args->write) {
        file = must_open(args->hashes, "w");
        for (uint32_t i = 0; i < count; i++) {
            (void)fputs(lines[i], file);
        }
        return fclose(file) == 0 ? 0 : 2;
    }
    if (differ != 0) {
        (void)printf("The histories have changed. If that was meant:\n  sim --hashes %s --write\n",
                     args->hashes);
    }
    return differ;
}

int main(int argc, char **argv)
{
    struct args args = {.campaign = {.from = 1, .to = 1, .jobs = 1, .failures_max = 5}};
    for (int i = 1; i < argc; i++) {
        if (parse_flag(&args, argv[i])) {
            continue;
        }
        if (i + 1 == argc) {
            usage();
        }
        parse_value(&args, argv[i], argv[i + 1]);
        i++;
    }
    if (args.hashes != NULL) {
        return check_hashes(&args);
    }
    if (args.scenes > 0) {
        return sim_scenes(args.scenes) ? 0 : 1;
    }
    if (args.file != NULL) {
        run_file(&args);
    } else if (args.minimise) {
        return sim_minimise(&args.options) ? 1 : 0;
    } else if (args.has_seed) {
        one(&args.options);
    } else {
        return sim_campaign(&args.campaign) ? 0 : 1;
    }
    return 0;
}
