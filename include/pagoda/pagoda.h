/* pagoda/pagoda.h - all of libpagoda's public interface.
 *
 * libpagoda keeps the KV cache of a language model as an operating system keeps memory: fixed-size
 * pages under one hard byte budget, pinned or evictable, with an honest account of what was
 * in memory when a reply was made. It is plain C11, needs the C library only, and knows no model:
 * bring your own engine, or use the one in this project's engine/ folder.
 *
 * Read cache.h first, then stats.h. examples/minimal.c is the whole life of a cache in 60 lines.
 */
#ifndef PAGODA_PAGODA_H
#define PAGODA_PAGODA_H

#include "pagoda/cache.h"
#include "pagoda/codec.h"
#include "pagoda/policy.h"
#include "pagoda/stats.h"
#include "pagoda/status.h"
#include "pagoda/system.h"
#include "pagoda/version.h"

#endif
