/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the structs of the wire (hp_st_, hp_msg_) and those of the public header. What a view
 * allocates is in the arena it is given; with copy = false bytes are still lent by the frame.
 */
#ifndef HP_CLIENT_VIEW_H
#define HP_CLIENT_VIEW_H

#include "client/include/hostpool.h"
#include "common/base/arena.h"
#include "proto/hp_msg.h"

/* Fields that differ from the defaults are set. Borrows the strings; lists are in the arena. */
enum hp_err hp_view_options_to_wire(const struct hp_options *options, struct hp_arena *arena,
                                    struct hp_st_task_options *ret) HP_MUST_CHECK;
enum hp_err hp_view_options(const struct hp_st_task_options *from, struct hp_arena *arena,
                            struct hp_options *ret) HP_MUST_CHECK;
/* A deep copy into the arena. */
enum hp_err hp_view_options_copy(const struct hp_options *from, struct hp_arena *arena,
                                 struct hp_options *ret) HP_MUST_CHECK;
bool hp_view_options_equal(const struct hp_options *a, const struct hp_options *b);

/* Fills *ret and, if there is an end record, *ret_end. Options too if they are there. */
enum hp_err hp_view_task(const struct hp_st_task_status *from, struct hp_arena *arena, bool copy,
                         struct hp_task *ret, struct hp_end *ret_end) HP_MUST_CHECK;

/* NUL-terminated copy; NULL if the string is absent (data NULL). */
enum hp_err hp_view_str(struct hp_str from, struct hp_arena *arena, const char **ret) HP_MUST_CHECK;
enum hp_err hp_view_strs(const struct hp_list_str *from, struct hp_arena *arena, const char ***ret,
                         size_t *ret_count) HP_MUST_CHECK;

/* A list that owns an arena; hp_task_list_free. */
struct hp_task_list *hp_view_task_list_new(struct hp_arena **ret_arena, size_t count);

#endif
