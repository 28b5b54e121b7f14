/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the frame scanner and msgpack-c behind it. The answer must not depend on how the
 * bytes arrive, and what the scanner passes msgpack-c must take, with the same end.
 */
#include "tests/fuzz/fuzz.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "proto/tokenizer.h"
#include "proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hp_wire *wire;
    enum hp_tok_status whole;
    enum hp_tok_status piece = HP_TOK_NEED_MORE;
    size_t whole_size = 0;
    size_t piece_size = 0;
    const char *why = NULL;
    const struct hp_wire_obj *root;
    struct hp_error error;
    struct hp_tok tok;

    if (wire == NULL) {
        wire = hp_wire_new();
        HP_ASSERT(wire != NULL);
    }
    hp_tok_init(&tok, &hp_tok_limits_open);
    whole = hp_tok_scan(&tok, data, size, &whole_size, &why);
    hp_tok_reset(&tok);
    for (size_t have = 0; have <= size && piece == HP_TOK_NEED_MORE; have++) {
        piece = hp_tok_scan(&tok, data, have, &piece_size, &why);
    }
    HP_ASSERT(piece == whole && piece_size == whole_size && whole_size <= size);
    if (whole == HP_TOK_DONE) {
        HP_ASSERT(hp_wire_unpack(wire, data, whole_size, &root, &error) == HP_OK);
    }
    return 0;
}
