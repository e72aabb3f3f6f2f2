/* cli/embedded.h - files that are part of the program: what a page of pagoda plot is made of. The build makes the
 * table (cmake/Embed.cmake). */
#ifndef PGD_CLI_EMBEDDED_H
#define PGD_CLI_EMBEDDED_H

#include <stddef.h>

struct pgd_embedded {
    const char *name; /* without its folder; NULL after the last */
    const unsigned char *bytes;
    size_t count;
};

extern const struct pgd_embedded pgd_embedded_files[];

#endif
