/* fuzz/driver/driver.c - runs a fuzz target without libFuzzer: a corpus as it is, cut everywhere, changed at random.
 *
 *     build/fuzz/gguf fuzz/corpus/gguf [ROUNDS [SEED]]
 *
 * Prints what a test suite prints, so that the corpus is a normal test. A target that finds something aborts.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 256u
#define BYTES_MAX (1u << 20)
#define ROUNDS 20000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

struct file {
    uint8_t *bytes;
    size_t count;
};

static uint64_t next(uint64_t *state)
{
    *state += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t value = *state;
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

/* In a block of its own size, so that a sanitizer sees a byte too far. */
static void run_copy(const uint8_t *bytes, size_t count)
{
    uint8_t *copy = malloc(count + (count == 0 ? 1 : 0));
    if (copy != NULL) {
        memcpy(copy, bytes, count);
        LLVMFuzzerTestOneInput(copy, count);
        free(copy);
    }
}

static struct file read_file(const char *path)
{
    struct file file = {malloc(BYTES_MAX), 0};
    FILE *stream = fopen(path, "rb");
    if (stream != NULL && file.bytes != NULL) {
        file.count = fread(file.bytes, 1, BYTES_MAX, stream);
    }
    if (stream != NULL) {
        fclose(stream);
    }
    return file;
}

static size_t read_corpus(const char *folder, struct file *files)
{
    size_t count = 0;
    DIR *directory = opendir(folder);
    struct dirent *entry;
    while (directory != NULL && count < FILES_MAX && (entry = readdir(directory)) != NULL) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.') {
            files[count++] = read_file(path);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}

/* A few changes of the kinds that break readers: bytes, bits, numbers at the edge, pieces of another file, a cut. */
static size_t change(uint8_t *bytes, size_t count, const struct file *other, uint64_t *state)
{
    static const uint64_t edges[] = {0, 1, 255, 65535, 65536, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    for (uint64_t i = 1 + next(state) % 4; i > 0 && count > 0; i--) {
        const size_t at = (size_t) (next(state) % count);
        const uint64_t edge = edges[next(state) % (sizeof(edges) / sizeof(edges[0]))] - next(state) % 2;
        const size_t width = (size_t) 1 << next(state) % 4;
        switch (next(state) % 5) {
        case 0: bytes[at] = (uint8_t) next(state); break;
        case 1: bytes[at] ^= (uint8_t) (1u << next(state) % 8); break;
        case 2: memcpy(bytes + at, &edge, width < count - at ? width : count - at); break;
        case 3:
            if (other->count > 0) {
                const size_t from = (size_t) (next(state) % other->count);
                size_t piece = (size_t) (1 + next(state) % 64);
                piece = piece < other->count - from ? piece : other->count - from;
                memcpy(bytes + at, other->bytes + from, piece < count - at ? piece : count - at);
            }
            break;
        default: count = next(state) % 4 == 0 ? at : count; break;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    static struct file files[FILES_MAX];
    if (argc < 2) {
        fprintf(stderr, "usage: %s CORPUS [ROUNDS [SEED]]\n", argv[0]);
        return 2;
    }
    const size_t count = read_corpus(argv[1], files);
    const uint64_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : ROUNDS;
    uint64_t state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    uint64_t executions = 0;
    uint8_t *bytes = malloc(BYTES_MAX);
    if (count == 0 || bytes == NULL) {
        printf("FAIL %s holds nothing\n0 passed, 1 failed\n", argv[1]);
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t length = 0; length <= files[i].count && length < 4096; length++, executions++) {
            run_copy(files[i].bytes, length);
        }
        run_copy(files[i].bytes, files[i].count);
    }
    printf("ok %zu files, and cut everywhere\n", count);
    for (uint64_t round = 0; round < rounds; round++, executions++) {
        const struct file *file = &files[next(&state) % count];
        memcpy(bytes, file->bytes, file->count);
        run_copy(bytes, change(bytes, file->count, &files[next(&state) % count], &state));
    }
    printf("ok %" PRIu64 " executions\n2 passed, 0 failed\n", executions);
    for (size_t i = 0; i < count; i++) {
        free(files[i].bytes);
    }
    free(bytes);
    return 0;
}
