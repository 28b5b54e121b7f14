/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a fuzz target over the files of a folder: seeds and every input that ever broke something
 * are ordinary tests in every build, with any compiler.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_BYTES_MAX (2u << 20)

static int run_file(const char *folder, const char *name)
{
    char path[4096];
    int size = snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = size > 0 && (size_t)size < sizeof(path) ? fopen(path, "rb") : NULL;
    uint8_t *bytes = malloc(INPUT_BYTES_MAX);
    size_t count = 0;

    if (file == NULL || bytes == NULL) {
        perror(name);
        free(bytes);
        if (file != NULL) {
            (void)fclose(file);
        }
        return 1;
    }
    count = fread(bytes, 1, INPUT_BYTES_MAX, file);
    (void)fclose(file);
    bytes = realloc(bytes, count > 0 ? count : 1); /* to size: the sanitizer sees a read beyond */
    if (bytes == NULL) {
        return 1;
    }
    printf("%s\n", name);
    (void)fflush(stdout); /* an abort must leave the name of its input */
    (void)LLVMFuzzerTestOneInput(bytes, count);
    free(bytes);
    return 0;
}

/* The files of a folder; how many there were. One that is not there has none. */
static int run_folder(const char *name, int *ret_failures)
{
    DIR *folder = opendir(name);
    int files = 0;

    if (folder == NULL) {
        return 0;
    }
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (entry->d_name[0] != '.') {
            *ret_failures += run_file(name, entry->d_name);
            files++;
        }
    }
    (void)closedir(folder);
    return files;
}

int main(int argc, char **argv)
{
    int failures = 0;
    int files = 0;

    if (argc < 2) {
        (void)fprintf(stderr, "usage: replay FOLDER ...\n");
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        files += run_folder(argv[i], &failures);
    }
    printf("%d inputs\n", files);
    return failures == 0 && files > 0 ? 0 : 1;
}
