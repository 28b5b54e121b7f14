/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one header that a C module of hostpool functions includes. A module is a shared object; it
 * links nothing of hostpool. Complete example:
 *
 *     #include <hostpool_worker.h>
 *
 *     HP_FUNCTION(square)
 *     {
 *         int64_t n;
 *         if (hp_arg_i64(call, 0, &n) != 0) {
 *             return hp_fail_permanent(call, "square wants one integer");
 *         }
 *         return hp_result_i64(call, n * n);
 *     }
 *
 *     cc -shared -fPIC -O2 -o mine.so mine.c      hostpool-worker --module ./mine.so ...
 *
 * A function runs in a child process of the worker, one call at a time, in the thread that loaded
 * the module. It may crash, exit or leak: only the call that runs is lost. It returns 0 for
 * success; any other value is a failure (hp_fail and its kin return such a value, so `return
 * hp_fail(...)` is right).
 */
#ifndef HOSTPOOL_WORKER_H
#define HOSTPOOL_WORKER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of everything binary in this header; the worker refuses a module of another one. */
#define HP_MODULE_ABI 1u

struct hp_call;

/* What the worker lends a call. Fields are only ever appended. */
struct hp_host {
    uint32_t abi;
    uint32_t size; /* bytes of this struct in the running worker */
    /* Copies the result. 0, or not 0 if memory is out. */
    int (*result)(struct hp_call *call, const void *data, size_t size);
    /* Room for a result of `size` bytes to be filled in by the caller; NULL if memory is out. */
    void *(*result_room)(struct hp_call *call, size_t size);
    /* Ends the call as failed: kind is one of HP_FAIL_*. Returns a value that is not 0. */
    int (*fail)(struct hp_call *call, uint32_t kind, uint64_t retry_ms, const char *text);
};

enum { HP_FAIL_ERROR = 1, HP_FAIL_PERMANENT = 2, HP_FAIL_RETRY = 3 };

/* One call. Read what you like, write nothing. Fields are only ever appended. */
struct hp_call {
    const struct hp_host *host;
    const uint8_t
        *arg;        /* the payload as submitted; aligned to 8; valid until the function returns */
    size_t arg_size; /* bytes */
    uint64_t task_id;
    uint64_t epoch; /* (epoch, task_id, attempt) is never used twice: pass it on to fence writes */
    uint64_t array_index;
    uint32_t attempt; /* 1 at the first try */
    uint32_t item;    /* of a task of several items, which the function is called for one by one */
    const char *function; /* name it was called by */
    void *opaque;         /* the worker's */
};

typedef int (*hp_function_fn)(struct hp_call *call);

struct hp_function {
    const char *name;
    hp_function_fn fn;
};

/* What the worker looks up by the name "hostpool_module". */
struct hp_module {
    uint32_t abi;
    uint32_t size;
    const struct hp_function *const *functions_begin;
    const struct hp_function *const *functions_end;
};

/* What the worker looks up by the name "hostpool_module_hooks"; each may be NULL, 0 is success. */
struct hp_module_hooks {
    int (*load)(void); /* once, after the module is loaded, before any child: warm up; no threads */
    int (*init)(void); /* in each child, before its first call */
    void (*fini)(void); /* in each child, before it ends in order */
};

#define HP_MODULE_EXPORT_ __attribute__((visibility("default"), used))
#define HP_MODULE_UNUSED_ __attribute__((unused))

extern const struct hp_function *const __start_hp_functions[] __attribute__((visibility("hidden")));
extern const struct hp_function *const __stop_hp_functions[] __attribute__((visibility("hidden")));

/* Weak, so that a module may have many files which include this header. */
extern const struct hp_module hostpool_module;
#ifndef HP_WORKER_INTERNAL
__attribute__((weak)) HP_MODULE_EXPORT_ const struct hp_module hostpool_module = {
    HP_MODULE_ABI,
    (uint32_t)sizeof(struct hp_module),
    __start_hp_functions,
    __stop_hp_functions,
};
#endif

/* Defines and exports a function of this name: HP_FUNCTION(name) { ... use call ... return 0; } */
#define HP_FUNCTION(name_) HP_FUNCTION_AS(name_, #name_)

/* As HP_FUNCTION, exported under a name that need not be a C identifier: "image.resize". */
#define HP_FUNCTION_AS(ident_, text_)                                                              \
    static int ident_##_hp_call(struct hp_call *call);                                             \
    static const struct hp_function ident_##_hp_function = {text_, ident_##_hp_call};              \
    __attribute__((                                                                                \
        used, section("hp_functions"))) static const struct hp_function *const ident_##_hp_entry = \
        &ident_##_hp_function;                                                                     \
    static int ident_##_hp_call(HP_MODULE_UNUSED_ struct hp_call *call)

/* Hooks of the module, in one of its files: HP_MODULE_HOOKS(load, init, fini), each may be NULL. */
#define HP_MODULE_HOOKS(load_, init_, fini_)                                                       \
    extern const struct hp_module_hooks hostpool_module_hooks;                                     \
    HP_MODULE_EXPORT_ const struct hp_module_hooks hostpool_module_hooks = {load_, init_, fini_}

/* ---------------------------------------------------------------- results and failures */

/* The result is these bytes (copied). No result set = an empty result. */
static inline int hp_result_bytes(struct hp_call *call, const void *data, size_t size)
{
    return call->host->result(call, data, size);
}

/* The result is `size` bytes which the caller writes to the returned place. NULL: out of memory. */
static inline void *hp_result_room(struct hp_call *call, size_t size)
{
    return call->host->result_room(call, size);
}

/* The call failed; the text (at most 4096 bytes are kept) goes to whoever waits. Retried only as
 * far as the task's max_retries says. */
static inline int hp_fail(struct hp_call *call, const char *text)
{
    return call->host->fail(call, HP_FAIL_ERROR, 0, text);
}

/* The call failed and would fail again: no retry. */
static inline int hp_fail_permanent(struct hp_call *call, const char *text)
{
    return call->host->fail(call, HP_FAIL_PERMANENT, 0, text);
}

/* Not now: run it again in `ms` milliseconds. */
static inline int hp_retry(struct hp_call *call, uint64_t ms)
{
    return call->host->fail(call, HP_FAIL_RETRY, ms, "the function asked for a retry");
}

/* ---------------------------------------------------------------- MessagePack, the little needed
 */

/* Of 0, 1, 2, 4 or 8 bytes; spelled out, so that each is a load and a swap. */
static inline uint64_t hp_be_get_(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    if (bytes == 8) {
        return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 |
               (uint64_t)at[3] << 32 | (uint64_t)at[4] << 24 | (uint64_t)at[5] << 16 |
               (uint64_t)at[6] << 8 | at[7];
    }
    if (bytes == 4) {
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static inline size_t hp_be_put_(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    }
    return bytes;
}

/*
 * Head of the value at `at`: its kind ('n'il 'b'ool 'i'nt (value may be negative) 'u'nsigned
 * 'f'loat 's'tr 'B'in 'a'rray 'm'ap 'x' ext, 0: damaged or cut), the size of the head, and its
 * value, length or element count. An ext's type byte counts as head.
 */
struct hp_mp_head {
    char kind;
    size_t head_size;
    uint64_t value;
};

static inline struct hp_mp_head hp_mp_make_(char kind, size_t head_size, uint64_t value)
{
    struct hp_mp_head head = {kind, head_size, value};
    return head;
}

static inline struct hp_mp_head hp_mp_fix_(uint8_t byte)
{
    if (byte <= 0x7f) {
        return hp_mp_make_('u', 1, byte);
    }
    if (byte <= 0x8f) {
        return hp_mp_make_('m', 1, byte & 0x0fu);
    }
    if (byte <= 0x9f) {
        return hp_mp_make_('a', 1, byte & 0x0fu);
    }
    if (byte <= 0xbf) {
        return hp_mp_make_('s', 1, byte & 0x1fu);
    }
    return hp_mp_make_('i', 1, (uint64_t)(int64_t)(int8_t)byte);
}

static inline struct hp_mp_head hp_mp_head_(const uint8_t *at, size_t left)
{
    /* For 0xc0 .. 0xdf: kind and bytes of the number behind the first byte. */
    static const char kinds[33] = "n\0bbBBBxxxffuuuuiiiixxxxxsssaamm";
    static const uint8_t sizes[32] = {0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8,
                                      1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
    if (left == 0) {
        return hp_mp_make_(0, 0, 0);
    }
    uint8_t byte = at[0];
    if (byte < 0xc0 || byte > 0xdf) {
        return hp_mp_fix_(byte);
    }
    size_t bytes = sizes[byte - 0xc0];
    char kind = kinds[byte - 0xc0];
    if (left < 1 + bytes) {
        return hp_mp_make_(0, 0, 0);
    }
    uint64_t value = hp_be_get_(at + 1, bytes);
    if (kind == 'b') {
        value = byte == 0xc3;
    } else if (kind == 'i') {
        unsigned shift = (unsigned)(64 - 8 * bytes);
        value = (uint64_t)((int64_t)(value << shift) >> shift);
    } else if (byte >= 0xd4 && byte <= 0xd8) {
        return hp_mp_make_('x', 2, 1ull << (byte - 0xd4));
    } else if (kind == 'x') {
        return hp_mp_make_('x', 2 + bytes, value);
    }
    return hp_mp_make_(kind, 1 + bytes, value);
}

/* Bytes of the whole value at `at`, nested ones included; 0 if it is damaged or cut. */
static inline size_t hp_mp_skip(const uint8_t *at, size_t left)
{
    size_t used = 0;
    uint64_t values = 1;
    while (values > 0) {
        struct hp_mp_head head = hp_mp_head_(at + used, left - used);
        if (head.kind == 0 || head.head_size > left - used) {
            return 0;
        }
        used += head.head_size;
        values--;
        if (head.kind == 's' || head.kind == 'B' || head.kind == 'x') {
            if (head.value > left - used) {
                return 0;
            }
            used += (size_t)head.value;
        } else if (head.kind == 'a' || head.kind == 'm') {
            values += head.kind == 'm' ? 2 * head.value : head.value;
            if (values > left - used) {
                return 0;
            }
        }
    }
    return used;
}

/*
 * Where the i-th argument lies: the payload is a MessagePack array, or one value (argument 0).
 * Returns its first byte and the bytes left from there in *ret_left; NULL: there is none.
 */
static inline const uint8_t *hp_arg_at(const struct hp_call *call, uint32_t index, size_t *ret_left)
{
    const uint8_t *at = call->arg;
    size_t left = call->arg_size;
    struct hp_mp_head head = hp_mp_head_(at, left);
    if (head.kind == 'a') {
        if (index >= head.value) {
            return NULL;
        }
        at += head.head_size;
        left -= head.head_size;
    } else if (head.kind == 0 || index > 0) {
        return NULL;
    }
    for (uint32_t i = 0; i < index; i++) {
        size_t size = hp_mp_skip(at, left);
        if (size == 0) {
            return NULL;
        }
        at += size;
        left -= size;
    }
    *ret_left = left;
    return at;
}

/* Number of arguments; 1 if the payload is a single value, 0 if it is empty or no MessagePack. */
static inline uint32_t hp_arg_count(const struct hp_call *call)
{
    struct hp_mp_head head = hp_mp_head_(call->arg, call->arg_size);
    if (head.kind == 'a') {
        return (uint32_t)head.value;
    }
    return head.kind == 0 ? 0 : 1;
}

/* The i-th argument as a signed integer. 0, or -1 (none, another type, too large): *ret untouched.
 */
static inline int hp_arg_i64(const struct hp_call *call, uint32_t index, int64_t *ret)
{
    size_t left = 0;
    const uint8_t *at = hp_arg_at(call, index, &left);
    struct hp_mp_head head = hp_mp_head_(at, at == NULL ? 0 : left);
    if (head.kind == 'i' || (head.kind == 'u' && head.value <= INT64_MAX)) {
        *ret = (int64_t)head.value;
        return 0;
    }
    return -1;
}

/* The i-th argument as a number; integers are converted. */
static inline int hp_arg_f64(const struct hp_call *call, uint32_t index, double *ret)
{
    size_t left = 0;
    const uint8_t *at = hp_arg_at(call, index, &left);
    struct hp_mp_head head = hp_mp_head_(at, at == NULL ? 0 : left);
    if (head.kind == 'f' && head.head_size == 9) {
        memcpy(ret, &head.value, sizeof *ret);
    } else if (head.kind == 'f') {
        uint32_t bits = (uint32_t)head.value;
        float value;
        memcpy(&value, &bits, sizeof value);
        *ret = (double)value;
    } else if (head.kind == 'i') {
        *ret = (double)(int64_t)head.value;
    } else if (head.kind == 'u') {
        *ret = (double)head.value;
    } else {
        return -1;
    }
    return 0;
}

/* The i-th argument as bytes: bin, or str too. Not NUL-terminated; valid as long as the call. */
static inline int hp_arg_bin(const struct hp_call *call, uint32_t index, const void **ret_data,
                             size_t *ret_size)
{
    size_t left = 0;
    const uint8_t *at = hp_arg_at(call, index, &left);
    struct hp_mp_head head = hp_mp_head_(at, at == NULL ? 0 : left);
    if ((head.kind != 'B' && head.kind != 's') || head.value > left - head.head_size) {
        return -1;
    }
    *ret_data = at + head.head_size;
    *ret_size = (size_t)head.value;
    return 0;
}

/* The i-th argument as text: str, or bin too. Not NUL-terminated. */
static inline int hp_arg_str(const struct hp_call *call, uint32_t index, const char **ret_text,
                             size_t *ret_size)
{
    const void *data = NULL;
    int failed = hp_arg_bin(call, index, &data, ret_size);
    if (!failed) {
        *ret_text = (const char *)data;
    }
    return failed;
}

/* The result is a MessagePack integer, float, text, byte string or nil. 0, or not 0: out of memory.
 */
static inline int hp_result_i64(struct hp_call *call, int64_t value)
{
    uint8_t out[9];
    if (value >= -32 && value <= 127) {
        out[0] = (uint8_t)value;
        return hp_result_bytes(call, out, 1);
    }
    /* The shortest form: int or uint of 8, 16, 32 or 64 bits. */
    unsigned power = 3;
    if (value >= 0) {
        power = value <= UINT8_MAX ? 0 : value <= UINT16_MAX ? 1 : value <= UINT32_MAX ? 2 : 3;
        out[0] = (uint8_t)(0xccu + power);
    } else {
        power = value >= INT8_MIN ? 0 : value >= INT16_MIN ? 1 : value >= INT32_MIN ? 2 : 3;
        out[0] = (uint8_t)(0xd0u + power);
    }
    return hp_result_bytes(call, out, 1 + hp_be_put_(out + 1, (uint64_t)value, (size_t)1 << power));
}

static inline int hp_result_f64(struct hp_call *call, double value)
{
    uint8_t out[9] = {0xcb};
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return hp_result_bytes(call, out, 1 + hp_be_put_(out + 1, bits, 8));
}

static inline int hp_result_nil(struct hp_call *call)
{
    return hp_result_bytes(call, "\xc0", 1);
}

static inline int hp_result_sized_(struct hp_call *call, uint8_t type, const void *data,
                                   size_t size)
{
    uint8_t *out = (uint8_t *)(size > UINT32_MAX ? NULL : hp_result_room(call, 5 + size));
    if (out == NULL) {
        return hp_fail(call, "out of memory for the result");
    }
    out[0] = type;
    (void)hp_be_put_(out + 1, size, 4);
    if (size > 0) {
        memcpy(out + 5, data, size);
    }
    return 0;
}

static inline int hp_result_bin(struct hp_call *call, const void *data, size_t size)
{
    return hp_result_sized_(call, 0xc6, data, size);
}

static inline int hp_result_str(struct hp_call *call, const char *text)
{
    return hp_result_sized_(call, 0xdb, text, strlen(text));
}

#ifdef __cplusplus
}
#endif
#endif
