/* engine/utf8.h - UTF-8 from sources that promise nothing: command lines, files, and tokens that end in
 * the middle of a character.
 *
 * A byte that belongs to no valid character (overlong forms, surrogates and numbers past U+10FFFF are
 * not valid) becomes U+FFFD; everything else passes unchanged, NUL included.
 *
 * Pure; no allocation. Threads: any, one per stream.
 */
#ifndef PGD_ENGINE_UTF8_H
#define PGD_ENGINE_UTF8_H

#include <stddef.h>

/* Bytes that a stream may keep back: the head of a character. */
#define PGD_UTF8_PENDING_MAX 3u

/* Room for what `count` bytes can become at most, together with what a stream kept back. */
#define PGD_UTF8_ROOM(count) (3u * ((count) + PGD_UTF8_PENDING_MAX))

/* Zero-initialise. */
struct pgd_utf8_stream {
    unsigned char pending[PGD_UTF8_PENDING_MAX];
    size_t pending_count;
};

/* Writes the whole characters of what was kept back and `bytes` to `out`, keeps the head of an unfinished one,
 * and returns how many bytes were written: at most PGD_UTF8_ROOM(count). */
size_t pgd_utf8_push(struct pgd_utf8_stream *stream, const char *bytes, size_t count, char *out);

/* Nothing more comes: what is still kept back becomes U+FFFD. At most PGD_UTF8_ROOM(0) bytes. */
size_t pgd_utf8_flush(struct pgd_utf8_stream *stream, char *out);

#endif
