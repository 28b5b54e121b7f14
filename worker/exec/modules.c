/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads function modules. Every way in which a file can be wrong has its own sentence. */
#include "worker/exec/modules.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#define HP_WORKER_INTERNAL
#include "worker/sdk/hostpool_worker.h"

#define FUNCTIONS_MAX 4096u

static int compare_functions(const void *left, const void *right)
{
    const struct hp_function *const *a = left;
    const struct hp_function *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static enum hp_err add_functions(struct hp_modules *modules, const char *path,
                                 const struct hp_module *module, struct hp_error *reterr)
{
    size_t count = (size_t)(module->functions_end - module->functions_begin);
    if (count == 0 || count > FUNCTIONS_MAX - modules->function_count) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "module %s: it exports %zu functions (1 to %u may be)", path, count,
                            FUNCTIONS_MAX - modules->function_count);
    }
    const struct hp_function **all = hp_realloc_array(
        modules->functions, modules->function_count + count, sizeof(struct hp_function *));
    if (all == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, "module %s: out of memory", path);
    }
    modules->functions = all;
    for (size_t i = 0; i < count; i++) {
        const struct hp_function *function = module->functions_begin[i];
        if (function == NULL || function->fn == NULL || !hp_name_valid(hp_str_of(function->name))) {
            return hp_error_set(reterr, HP_ERR_INVALID, "module %s: function %zu has no valid name",
                                path, i);
        }
        all[modules->function_count++] = function;
    }
    return HP_OK;
}

static enum hp_err add_hooks(struct hp_modules *modules, const char *path,
                             const struct hp_module_hooks *hooks, struct hp_error *reterr)
{
    if (hooks == NULL) {
        return HP_OK;
    }
    const struct hp_module_hooks **all =
        hp_realloc_array(modules->hooks, modules->hook_count + 1, sizeof(struct hp_module_hooks *));
    if (all == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, "module %s: out of memory", path);
    }
    modules->hooks = all;
    all[modules->hook_count++] = hooks;
    int failed = hooks->load == NULL ? 0 : hooks->load();
    if (failed != 0) {
        return hp_error_set(reterr, HP_ERR_INVALID, "module %s: its load hook returned %d", path,
                            failed);
    }
    return HP_OK;
}

static enum hp_err load_one(struct hp_modules *modules, const char *path, struct hp_error *reterr)
{
    /* Without a slash dlopen would search the library path instead of the file system. */
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        return hp_error_set(reterr, HP_ERR_NOT_FOUND, "module %s: there is no such file", path);
    }
    HP_CLEANUP(hp_free_ptr) char *full = hp_alloc(strlen(path) + 3);
    if (full == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, "module %s: out of memory", path);
    }
    (void)hp_strlcpy(full, strchr(path, '/') == NULL ? "./" : "", 3);
    (void)hp_strlcpy(full + strlen(full), path, strlen(path) + 1);
    void *handle = dlopen(full, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        return hp_error_set(reterr, HP_ERR_INVALID, "module %s can not be loaded: %s", path,
                            dlerror());
    }
    const struct hp_module *module = dlsym(handle, "hostpool_module");
    if (module == NULL) {
        return hp_error_set(
            reterr, HP_ERR_INVALID,
            "module %s: no symbol hostpool_module (does it include hostpool_worker.h "
            "and have an HP_FUNCTION?)",
            path);
    }
    if (module->abi != HP_MODULE_ABI || module->size < sizeof *module) {
        return hp_error_set(
            reterr, HP_ERR_UNSUPPORTED,
            "module %s: it was built for module ABI %u, this worker has %u; build it again", path,
            module->abi, HP_MODULE_ABI);
    }
    enum hp_err err = add_functions(modules, path, module, reterr);
    return err != HP_OK ? err
                        : add_hooks(modules, path, dlsym(handle, "hostpool_module_hooks"), reterr);
}

enum hp_err hp_modules_load(struct hp_modules *modules, const char *const *paths, uint32_t count,
                            struct hp_error *reterr)
{
    HP_ASSERT(count > 0);
    *modules = (struct hp_modules){0};
    for (uint32_t i = 0; i < count; i++) {
        enum hp_err err = load_one(modules, paths[i], reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    HP_ASSERT(modules->function_count > 0);
    qsort(modules->functions, modules->function_count, sizeof(struct hp_function *),
          compare_functions);
    for (uint32_t i = 1; i < modules->function_count; i++) {
        if (strcmp(modules->functions[i - 1]->name, modules->functions[i]->name) == 0) {
            return hp_error_set(reterr, HP_ERR_EXISTS, "the modules export %s twice",
                                modules->functions[i]->name);
        }
    }
    return HP_OK;
}

enum hp_err hp_modules_pack(const struct hp_modules *modules, struct hp_buf *buf)
{
    for (uint32_t i = 0; i < modules->function_count; i++) {
        const char *name = modules->functions[i]->name;
        enum hp_err err = hp_buf_append(buf, name, strlen(name) + 1);
        if (err != HP_OK) {
            return err;
        }
    }
    return HP_OK;
}

bool hp_modules_init_child(const struct hp_modules *modules)
{
    for (uint32_t i = 0; i < modules->hook_count; i++) {
        if (modules->hooks[i]->init != NULL && modules->hooks[i]->init() != 0) {
            return false;
        }
    }
    return true;
}

void hp_modules_fini_child(const struct hp_modules *modules)
{
    for (uint32_t i = modules->hook_count; i > 0; i--) {
        if (modules->hooks[i - 1]->fini != NULL) {
            modules->hooks[i - 1]->fini();
        }
    }
}
