/* pagoda/version.h - which pagoda this is, and what it can run on. */
#ifndef PAGODA_VERSION_H
#define PAGODA_VERSION_H

#include <stdint.h>

#include "pagoda/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PAGODA_VERSION "0.1.0"

/* The version of the library that is linked, as opposed to PAGODA_VERSION of the headers. */
PAGODA_API const char *pagoda_version(void);

/* Name of kernel level `index` that this CPU can run ("ref", "avx2", ...), best last; NULL past the end. */
PAGODA_API const char *pagoda_cpu_level(uint32_t index);

#ifdef __cplusplus
}
#endif
#endif
