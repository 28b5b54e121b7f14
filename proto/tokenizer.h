/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bounded MessagePack scanner that stands in front of msgpack-c.
 *
 * msgpack-c reserves memory for whatever count a header declares, so five bytes can cost gigabytes.
 * This scanner walks a frame first: no allocation, no recursion, constant memory, and it refuses a
 * frame at the first header that cannot be part of an allowed one, before the declared bytes
 * arrive.
 *
 * It is resumable: the caller keeps the bytes of the current frame, calls hp_tok_scan() whenever
 * more of them came, and the scan goes on where it stopped. A frame that comes byte by byte costs
 * O(bytes) in all.
 *
 * Pure; one scanner per connection; not shared between threads.
 */
#ifndef HP_PROTO_TOKENIZER_H
#define HP_PROTO_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

/* Levels a scanner has room for. msgpack-c itself stops at 32 levels, so more would be no use. */
#define HP_TOK_DEPTH_CAP 32u

struct hp_tok_limits {
    uint32_t frame_bytes_max; /* bytes of one frame, >= 1 */
    uint32_t depth_max;       /* containers inside each other, 1..HP_TOK_DEPTH_CAP */
    uint32_t elements_max;    /* objects of the frame over all nesting: values, keys, containers */
    uint32_t map_keys_max;    /* keys of one map */
};

enum hp_tok_status {
    HP_TOK_NEED_MORE, /* fine so far, the frame is not complete */
    HP_TOK_DONE,      /* a whole frame is there */
    HP_TOK_BAD,       /* never acceptable: close the connection */
};

/* The state of a scan. Public only so that it can be embedded; its fields belong to tokenizer.c. */
struct hp_tok {
    struct hp_tok_limits limits;
    uint64_t offset;  /* where the next header starts; may lie beyond what has arrived */
    uint64_t pending; /* objects declared whose header was not read yet */
    uint64_t elements;
    uint32_t depth;
    const char *why;                 /* set once the frame was refused */
    uint32_t left[HP_TOK_DEPTH_CAP]; /* objects still to come in each open container */
};

/* The limits of docs/protocol.md for a peer whose hello was accepted, and for one before that. */
extern const struct hp_tok_limits hp_tok_limits_open;
extern const struct hp_tok_limits hp_tok_limits_prehello;

/* Start with the first frame under `limits` (copied). Also used to change limits between frames. */
void hp_tok_init(struct hp_tok *tok, const struct hp_tok_limits *limits);

/* Start the next frame under the same limits; call it after HP_TOK_DONE. */
void hp_tok_reset(struct hp_tok *tok);

/*
 * Go on with the scan. `data`/`size` are all bytes of the current frame received so far (and maybe
 * bytes after it); between two calls for one frame the bytes already given must not change, though
 * they may have moved.
 *
 * HP_TOK_DONE sets *ret_frame_size (<= size) to the size of the frame; msgpack-c may then see it.
 * HP_TOK_BAD sets *ret_why to a sentence with static storage. Neither is touched otherwise.
 * After DONE or BAD the same answer is given again until hp_tok_reset() or hp_tok_init().
 */
enum hp_tok_status hp_tok_scan(struct hp_tok *tok, const uint8_t *data, size_t size,
                               size_t *ret_frame_size, const char **ret_why);

#endif
