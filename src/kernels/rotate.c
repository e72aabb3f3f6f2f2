/* kernels/rotate.c - see kernels.h. Separate products and sums, so that the compiler may use vectors. */
#include "kernels/kernels.h"

void pgd_rotate_adjacent(uint32_t pairs, const float *cosine, const float *sine, float *row)
{
    for (uint32_t j = 0; j < pairs; j++) {
        const float x = row[2 * (size_t) j];
        const float y = row[2 * (size_t) j + 1];
        row[2 * (size_t) j] = x * cosine[j] - y * sine[j];
        row[2 * (size_t) j + 1] = x * sine[j] + y * cosine[j];
    }
}

void pgd_rotate_split(uint32_t pairs, const float *cosine, const float *sine, float *row)
{
    float *second = row + pairs;
    for (uint32_t j = 0; j < pairs; j++) {
        const float x = row[j];
        const float y = second[j];
        row[j] = x * cosine[j] - y * sine[j];
        second[j] = x * sine[j] + y * cosine[j];
    }
}
