/* SPDX-License-Identifier: BSD-2-Clause */
/* A module of another ABI: the worker must refuse it. */
#define HP_WORKER_INTERNAL
#include "worker/sdk/hostpool_worker.h"

HP_MODULE_EXPORT_ const struct hp_module hostpool_module = {HP_MODULE_ABI + 1, 64, NULL, NULL};
