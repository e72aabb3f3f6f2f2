/* cli/device.c - see device.h. */
#include "cli/device.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli/report.h"
#include "cli/safe.h"
#include "cli/terminal.h"
#include "cli/wear.h"
#include "os/os.h"
#include "tier/calibrate.h"

#define PATH_BYTES 4096

struct place {
    char directory[PATH_BYTES];
    struct pgd_device device;
    struct pgd_wear wear; /* this measurement included */
};

/* ---- measuring ---- */

static enum pagoda_status find_directory(const struct pgd_options *options, struct place *place,
                                         struct pagoda_error *error)
{
    if (options->kv_dir == NULL) {
        return pgd_os_cache_directory(place->directory, sizeof place->directory)
                   ? PAGODA_OK
                   : pgd_fail(error, PAGODA_NOT_FOUND,
                              "There is no cache directory that can be written: use --kv-dir.");
    }
    const int length = snprintf(place->directory, sizeof place->directory, "%s", options->kv_dir);
    return length >= 0 && (size_t) length < sizeof place->directory
               ? PAGODA_OK
               : pgd_fail(error, PAGODA_LIMIT, "--kv-dir: the path is too long.");
}

static enum pagoda_status measure(const struct pgd_options *options, struct place *place, struct pagoda_error *error)
{
    const enum pagoda_status status = find_directory(options, place, error);
    if (status != PAGODA_OK) {
        return status;
    }
    struct pgd_system system;
    pgd_os_system(NULL, &system);
    const struct pgd_flash_options wanted = {.directory = place->directory, .system = &system};
    return pgd_calibrate(&wanted, &place->device, error);
}

/* ---- telling ---- */

static struct pgd_words speed_words(double bytes_per_second)
{
    struct pgd_words words = {"-"};
    if (bytes_per_second > 0) {
        const struct pgd_words size = pgd_size_words((uint64_t) bytes_per_second);
        (void) snprintf(words.text, sizeof words.text, "%.20s/s", size.text);
    }
    return words;
}

static void print_place(const struct place *place)
{
    struct pgd_buffer safe = {0};
    pgd_safe_disarm(&safe, place->directory, strlen(place->directory));
    printf("directory        %s\n", pgd_buffer_text(&safe));
    pgd_buffer_free(&safe);
    printf("free             %s\n", pgd_size_words(place->device.free_bytes).text);
}

static const char *way_words(const struct pgd_device *device)
{
    if (device->in_memory) {
        return "; the file system is memory, so that spilling there saves none";
    }
    return device->direct ? ", past the page cache" : ", through the page cache, which is emptied after each use";
}

static bool print_text(const struct place *place)
{
    const struct pgd_device *const device = &place->device;
    print_place(place);
    printf("reads by         %s%s\n", device->backend, way_words(device));
    printf("latency          %.0f us for 4 KiB, in 99 of 100 reads at most %.0f us\n", device->latency_us,
           device->latency_p99_us);
    printf("writing          %s\n", speed_words(device->write_bytes_per_second).text);
    printf("written so far   %s today, %s in 30 days, to flash by pagoda\n\n",
           pgd_size_words(place->wear.today_bytes).text, pgd_size_words(place->wear.month_bytes).text);
    printf("%-16s %14s  %8" PRIu32 " at once\n", "reading", "one by one", pgd_calibrate_depth(1));
    for (uint32_t i = 0; i < PGD_CALIBRATE_RUNS; i++) {
        printf("%-16s %14s  %14s\n", pgd_size_words(pgd_calibrate_run_bytes(i)).text,
               speed_words(device->read_bytes_per_second[i][0]).text,
               speed_words(device->read_bytes_per_second[i][1]).text);
    }
    printf("\nbest             %s at a time, %" PRIu32 " in flight\n", pgd_size_words(device->run_bytes).text,
           device->depth);
    return true;
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t) value);
}

static json_t *reads_array(const struct pgd_device *device)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < PGD_CALIBRATE_RUNS * PGD_CALIBRATE_DEPTHS; i++) {
        const uint32_t run = i / PGD_CALIBRATE_DEPTHS;
        const uint32_t depth = i % PGD_CALIBRATE_DEPTHS;
        const double speed = device->read_bytes_per_second[run][depth];
        json_t *row = json_object();
        json_object_set_new(row, "bytes", number(pgd_calibrate_run_bytes(run)));
        json_object_set_new(row, "depth", number(pgd_calibrate_depth(depth)));
        json_object_set_new(row, "bytes_per_second", speed > 0 ? number((uint64_t) speed) : json_null());
        json_array_append_new(array, row);
    }
    return array;
}

static bool print_json(const struct place *place)
{
    const struct pgd_device *const device = &place->device;
    json_t *object = json_object();
    json_object_set_new(object, "directory", pgd_report_string(place->directory));
    json_object_set_new(object, "free_bytes", number(device->free_bytes));
    json_object_set_new(object, "backend", json_string(device->backend));
    json_object_set_new(object, "direct", json_boolean(device->direct));
    json_object_set_new(object, "in_memory", json_boolean(device->in_memory));
    json_object_set_new(object, "latency_us", json_real(device->latency_us));
    json_object_set_new(object, "latency_p99_us", json_real(device->latency_p99_us));
    json_object_set_new(object, "write_bytes_per_second", number((uint64_t) device->write_bytes_per_second));
    json_object_set_new(object, "reads", reads_array(device));
    json_object_set_new(object, "run_bytes", number(device->run_bytes));
    json_object_set_new(object, "depth", number(device->depth));
    json_object_set_new(object, "bytes_written", number(device->bytes_written));
    json_object_set_new(object, "bytes_written_today", number(place->wear.today_bytes));
    json_object_set_new(object, "bytes_written_30_days", number(place->wear.month_bytes));
    return pgd_report_print_json(object);
}

enum pgd_exit pgd_device_show(const struct pgd_options *options)
{
    struct place place = {.directory = ""};
    struct pagoda_error error;
    const enum pagoda_status status = measure(options, &place, &error);
    if (status != PAGODA_OK) {
        pgd_say_error("%s", error.message);
        return status == PAGODA_NOT_FOUND ? PGD_EXIT_USAGE : pgd_exit_of(status);
    }
    pgd_wear_add(place.device.bytes_written);
    pgd_wear_read(&place.wear);
    const bool printed = options->json ? print_json(&place) : print_text(&place);
    return pgd_terminal_finish_output() && printed ? PGD_EXIT_OK : PGD_EXIT_FAILURE;
}
