/* tier/extents.c - see extents.h. */
#include "tier/extents.h"

#include <string.h>

void pgd_extents_init(struct pgd_extents *extents, struct pgd_extent *entries, uint32_t capacity, uint32_t units)
{
    PGD_ASSERT(capacity > 0);
    *extents = (struct pgd_extents) {.entries = entries, .capacity = capacity, .units = units};
}

/* ---- taking ---- */

/* The first entry that holds `count` units; entry_count when none does. */
static uint32_t find_fit(const struct pgd_extents *extents, uint32_t count)
{
    uint32_t i = 0;
    while (i < extents->entry_count && extents->entries[i].count < count) {
        i++;
    }
    return i;
}

bool pgd_extents_can_take(const struct pgd_extents *extents, uint32_t count)
{
    return count <= extents->units - extents->end || find_fit(extents, count) < extents->entry_count;
}

static void remove_entry(struct pgd_extents *extents, uint32_t i)
{
    extents->entry_count--;
    memmove(&extents->entries[i], &extents->entries[i + 1], (extents->entry_count - i) * sizeof extents->entries[0]);
}

bool pgd_extents_take(struct pgd_extents *extents, uint32_t count, uint32_t *offset)
{
    PGD_ASSERT(count > 0);
    const uint32_t i = find_fit(extents, count);
    if (i < extents->entry_count) {
        struct pgd_extent *const entry = &extents->entries[i];
        *offset = entry->offset;
        entry->offset += count;
        entry->count -= count;
        if (entry->count == 0) {
            remove_entry(extents, i);
        }
    } else if (count <= extents->units - extents->end) {
        *offset = extents->end;
        extents->end += count;
    } else {
        return false;
    }
    extents->used += count;
    PGD_ASSERT(extents->used <= extents->end && extents->end <= extents->units);
    return true;
}

/* ---- giving back ---- */

/* The number of entries that lie before `offset`. */
static uint32_t entries_before(const struct pgd_extents *extents, uint32_t offset)
{
    uint32_t low = 0;
    uint32_t high = extents->entry_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (extents->entries[middle].offset < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Moves `end` back over an entry that reaches it. */
static void drop_last_entry_at_end(struct pgd_extents *extents)
{
    if (extents->entry_count == 0) {
        return;
    }
    const struct pgd_extent *const last = &extents->entries[extents->entry_count - 1];
    if (last->offset + last->count == extents->end) {
        extents->end = last->offset;
        extents->entry_count--;
    }
}

static void insert_entry(struct pgd_extents *extents, uint32_t i, struct pgd_extent entry)
{
    memmove(&extents->entries[i + 1], &extents->entries[i], (extents->entry_count - i) * sizeof entry);
    extents->entries[i] = entry;
    extents->entry_count++;
}

/* Makes a place where there is none: the smallest of all entries and `entry` itself is lost. The answer is that one. */
static struct pgd_extent insert_and_lose(struct pgd_extents *extents, struct pgd_extent entry)
{
    uint32_t smallest = 0;
    for (uint32_t i = 1; i < extents->entry_count; i++) {
        smallest = extents->entries[i].count < extents->entries[smallest].count ? i : smallest;
    }
    const struct pgd_extent victim = extents->entries[smallest];
    if (victim.count >= entry.count) {
        extents->lost += entry.count;
        return entry;
    }
    extents->lost += victim.count;
    remove_entry(extents, smallest);
    insert_entry(extents, entries_before(extents, entry.offset), entry);
    return victim;
}

struct pgd_extent pgd_extents_give(struct pgd_extents *extents, uint32_t offset, uint32_t count)
{
    PGD_ASSERT(count > 0 && count <= extents->used && offset < extents->end && count <= extents->end - offset);
    const struct pgd_extent nothing = {0, 0};
    const uint32_t i = entries_before(extents, offset);
    struct pgd_extent *const before = i > 0 ? &extents->entries[i - 1] : NULL;
    struct pgd_extent *const after = i < extents->entry_count ? &extents->entries[i] : NULL;
    PGD_ASSERT(before == NULL || before->offset + before->count <= offset); /* given back once only */
    PGD_ASSERT(after == NULL || offset + count <= after->offset);
    extents->used -= count;
    if (offset + count == extents->end) {
        extents->end = offset;
        drop_last_entry_at_end(extents);
        return nothing;
    }
    const bool joins_before = before != NULL && before->offset + before->count == offset;
    const bool joins_after = after != NULL && offset + count == after->offset;
    if (joins_before) {
        before->count += count;
        if (joins_after) {
            before->count += after->count;
            remove_entry(extents, i);
        }
    } else if (joins_after) {
        after->offset = offset;
        after->count += count;
    } else if (extents->entry_count < extents->capacity) {
        insert_entry(extents, i, (struct pgd_extent) {offset, count});
    } else {
        return insert_and_lose(extents, (struct pgd_extent) {offset, count});
    }
    return nothing;
}

/* ---- checking ---- */

bool pgd_extents_is_valid(const struct pgd_extents *extents)
{
    uint64_t sum = (uint64_t) extents->used + extents->lost;
    bool valid = extents->entry_count <= extents->capacity && extents->end <= extents->units;
    uint64_t reached = 0;
    for (uint32_t i = 0; i < extents->entry_count; i++) {
        const struct pgd_extent *const entry = &extents->entries[i];
        valid = valid && entry->count > 0 && (i == 0 || entry->offset > reached);
        reached = (uint64_t) entry->offset + entry->count;
        sum += entry->count;
    }
    valid = valid && (extents->entry_count == 0 || reached < extents->end);
    return valid && sum == extents->end;
}
