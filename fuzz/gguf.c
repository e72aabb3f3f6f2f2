/* fuzz/gguf.c - any bytes as the header of a model: an error or a plan, and nothing else.
 *
 * What is checked beyond what sanitizers see: nothing is read past the end, a failure has a status and a message, the
 * weights of a header that is taken are inside its file, and a reservation is inside its budget.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "engine/plan.h"

struct bytes {
    const uint8_t *data;
    size_t count;
};

static enum pagoda_status read_bytes(void *user, uint64_t offset, void *to, size_t count, struct pagoda_error *error)
{
    const struct bytes *bytes = user;
    (void) error;
    PGD_ASSERT(offset <= bytes->count && count <= bytes->count - offset); /* never past the end */
    memcpy(to, bytes->data + offset, count);
    return PAGODA_OK;
}

static void check_told(enum pagoda_status status, const struct pagoda_error *error)
{
    PGD_ASSERT(status == PAGODA_OK || (error->status == status && error->message[0] != '\0'));
}

static void plan(const struct pgd_shape *shape)
{
    static const struct pgd_bridge_options options = {.threads = 1};
    static const struct pgd_plan_codec codec = {PAGODA_CODEC_F16, PAGODA_CODEC_K5V4};
    struct pagoda_error error = {.status = PAGODA_OK};
    struct pagoda_reservation reservation;
    struct pgd_plan *plan = NULL;
    enum pagoda_status status = pgd_plan_open(shape, &options, &plan, &error);
    check_told(status, &error);
    if (status != PAGODA_OK) {
        return;
    }
    PGD_ASSERT(pgd_plan_row_bytes(plan, 1) <= pgd_plan_row_bytes(plan, 4096));
    (void) pgd_plan_compute_bytes(plan);
    if (pgd_plan_has_budgets(plan)) {
        status = pgd_plan_reserve(plan, codec, UINT64_C(1) << 30, 4096, &reservation, &error);
        check_told(status, &error);
        PGD_ASSERT(status != PAGODA_OK || reservation.tables_bytes + reservation.staging_bytes <= UINT64_C(1) << 30);
    }
    pgd_plan_close(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    static struct pgd_header header;
    static struct pgd_shape shape;
    struct bytes bytes = {data, count};
    const struct pgd_gguf_source source = {read_bytes, &bytes, count, "input"};
    struct pagoda_error error = {.status = PAGODA_OK};
    enum pagoda_status status = pgd_header_read(&source, &header, &error);
    check_told(status, &error);
    if (status == PAGODA_OK) {
        PGD_ASSERT(header.tensors.bytes <= count);
        status = pgd_shape_of("input", &header, &shape, &error);
        check_told(status, &error);
    }
    if (status == PAGODA_OK) {
        plan(&shape);
    }
    return 0;
}
