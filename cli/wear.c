/* cli/wear.c - see wear.h. */
#include "cli/wear.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/number.h"
#include "os/os.h"

#define PATH_BYTES 4096
#define DAYS 30
#define DAY_SECONDS 86400
#define TEXT_BYTES 4096u /* 30 lines of at most 32 */
#define LOCK_TRIES 100   /* of a millisecond each */

/* Bytes of each of the last days; [0] is today. */
struct days {
    time_t today; /* in days since 1970 */
    uint64_t bytes[DAYS];
};

/* ---- the file ---- */

/* In a directory that others write to, its name may be another's trap: then there is no file. -1: none. */
static int open_file(int flags)
{
    char directory[PATH_BYTES];
    char path[PATH_BYTES + 32];
    struct stat about;
    if (!pgd_os_cache_directory(directory, sizeof directory)) {
        return -1;
    }
    (void) snprintf(path, sizeof path, "%s/flash-writes.txt", directory);
    const int descriptor = open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, S_IRUSR | S_IWUSR);
    if (descriptor < 0) {
        return -1;
    }
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode) || about.st_uid != geteuid()) {
        (void) close(descriptor);
        return -1;
    }
    return descriptor;
}

static bool lock(int descriptor)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
            return true;
        }
        (void) usleep(1000);
    }
    return false;
}

/* ---- its lines ---- */

/* Adds a line's bytes to its day; a line that is none, or too old, or of tomorrow, is left out. */
static void take_line(struct days *days, const char *line)
{
    struct tm date = {0};
    uint64_t bytes;
    if (sscanf(line, "%4d-%2d-%2d %" SCNu64, &date.tm_year, &date.tm_mon, &date.tm_mday, &bytes) != 4) {
        return;
    }
    date.tm_year -= 1900;
    date.tm_mon -= 1;
    const time_t age = days->today - timegm(&date) / DAY_SECONDS;
    if (age >= 0 && age < DAYS) {
        days->bytes[age] = pgd_add_capped_u64(days->bytes[age], bytes);
    }
}

static void read_days(int descriptor, struct days *days)
{
    char text[TEXT_BYTES + 1];
    *days = (struct days) {.today = time(NULL) / DAY_SECONDS};
    const ssize_t length = pread(descriptor, text, TEXT_BYTES, 0);
    text[length > 0 ? length : 0] = '\0';
    for (const char *line = text; *line != '\0';) {
        take_line(days, line);
        const size_t rest = strcspn(line, "\n");
        line += rest + (line[rest] == '\n' ? 1 : 0);
    }
}

static void write_days(int descriptor, const struct days *days)
{
    char text[TEXT_BYTES];
    size_t used = 0;
    for (int age = DAYS - 1; age >= 0; age--) {
        const time_t at = (days->today - age) * DAY_SECONDS;
        struct tm date;
        if (days->bytes[age] == 0 || gmtime_r(&at, &date) == NULL) {
            continue;
        }
        used += strftime(text + used, sizeof text - used, "%Y-%m-%d", &date);
        const int length = snprintf(text + used, sizeof text - used, " %" PRIu64 "\n", days->bytes[age]);
        used += length > 0 ? (size_t) length : 0;
    }
    const ssize_t written = pwrite(descriptor, text, used, 0);
    if (written < 0 || ftruncate(descriptor, written) != 0) {
        return; /* a full disk, say: a count is not worth a word */
    }
}

/* ---- counting ---- */

void pgd_wear_add(uint64_t bytes)
{
    const int descriptor = bytes > 0 ? open_file(O_RDWR | O_CREAT) : -1;
    if (descriptor < 0) {
        return;
    }
    if (lock(descriptor)) {
        struct days days;
        read_days(descriptor, &days);
        days.bytes[0] = pgd_add_capped_u64(days.bytes[0], bytes);
        write_days(descriptor, &days);
    }
    (void) close(descriptor); /* the lock ends with it */
}

void pgd_wear_read(struct pgd_wear *wear)
{
    *wear = (struct pgd_wear) {0};
    const int descriptor = open_file(O_RDONLY);
    if (descriptor < 0) {
        return;
    }
    struct days days;
    read_days(descriptor, &days);
    (void) close(descriptor);
    wear->today_bytes = days.bytes[0];
    for (int age = 0; age < DAYS; age++) {
        wear->month_bytes = pgd_add_capped_u64(wear->month_bytes, days.bytes[age]);
    }
}
