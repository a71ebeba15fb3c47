/* segment.h - the entry that libFuzzer calls, and replay.c without it. */
#ifndef SEGMENT_H
#define SEGMENT_H

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "companion.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
