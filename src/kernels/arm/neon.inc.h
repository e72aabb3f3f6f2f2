/* kernels/arm/neon.inc.h - the vocabulary of the vector kernels in NEON, but for the dot product of bytes: neon.c and
 * dotprod.c differ in that alone. A vector is four float32x4_t: the vector unit that every 64-bit ARM has. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float32x4_t a, b, c, d; /* lanes 0-3, 4-7, 8-11, 12-15 */
} v16;

/* 24 accumulators of 32 registers for scores, 16 for outputs. */
#define DOT_ROWS 3u
#define DOT_BLOCKS 1u
#define WEIGH_ROWS 4u
#define WEIGH_VECTORS 1u
#define FOR_DOT_ROWS FOR_3_ROWS
#define FOR_WEIGH_ROWS FOR_4_ROWS

/* f applied to the quarters of one, two or three vectors. */
#define EACH_1(f, x) ((v16) {f((x).a), f((x).b), f((x).c), f((x).d)})
#define EACH_2(f, x, y) ((v16) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)})
#define EACH_3(f, x, y, z) \
    ((v16) {f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b), f((x).c, (y).c, (z).c), f((x).d, (y).d, (z).d)})

static inline v16 v16_set1(float x)
{
    const float32x4_t quarter = vdupq_n_f32(x);
    return (v16) {quarter, quarter, quarter, quarter};
}

static inline v16 v16_load(const float *from)
{
    return (v16) {vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)};
}

static inline v16 v16_load_n(const float *from, uint32_t n)
{
    float all[16] = {0};
    memcpy(all, from, n * sizeof *all);
    return v16_load(all);
}

static inline void v16_store(float *to, v16 x)
{
    vst1q_f32(to, x.a);
    vst1q_f32(to + 4, x.b);
    vst1q_f32(to + 8, x.c);
    vst1q_f32(to + 12, x.d);
}

static inline void v16_store_n(float *to, v16 x, uint32_t n)
{
    float all[16];
    v16_store(all, x);
    memcpy(to, all, n * sizeof *all);
}

static inline v16 v16_load_f16(const uint16_t *from)
{
    const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(from));
    const float16x8_t high = vreinterpretq_f16_u16(vld1q_u16(from + 8));
    return (v16) {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
                  vcvt_high_f32_f16(high)};
}

static inline v16 v16_load_f16_n(const uint16_t *from, uint32_t n)
{
    uint16_t all[16] = {0};
    memcpy(all, from, n * sizeof *all);
    return v16_load_f16(all);
}

static inline void v16_store_f16(uint16_t *to, v16 x)
{
    vst1q_u16(to, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)));
    vst1q_u16(to + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d)));
}

static inline v16 v16_add(v16 x, v16 y)
{
    return EACH_2(vaddq_f32, x, y);
}

static inline v16 v16_sub(v16 x, v16 y)
{
    return EACH_2(vsubq_f32, x, y);
}

static inline v16 v16_mul(v16 x, v16 y)
{
    return EACH_2(vmulq_f32, x, y);
}

static inline v16 v16_div(v16 x, v16 y)
{
    return EACH_2(vdivq_f32, x, y);
}

static inline v16 v16_fma(v16 x, v16 y, v16 z)
{
    return EACH_3(vfmaq_f32, z, x, y);
}

static inline float32x4_t where_less(float32x4_t a, float32x4_t b, float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltq_f32(a, b), x, y);
}

static inline float32x4_t greater(float32x4_t a, float32x4_t b)
{
    return where_less(b, a, a, b);
}

static inline v16 v16_greater(v16 x, v16 y)
{
    return EACH_2(greater, x, y);
}

static inline v16 v16_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return (v16) {where_less(a.a, b.a, x.a, y.a), where_less(a.b, b.b, x.b, y.b), where_less(a.c, b.c, x.c, y.c),
                  where_less(a.d, b.d, x.d, y.d)};
}

/* x in the lanes first <= base + i < end. */
static inline float32x4_t where_lanes(uint32_t first, uint32_t end, uint32_t base, float32x4_t x, float32x4_t y)
{
    static const uint32_t indices[4] = {0, 1, 2, 3};
    const uint32x4_t lane = vaddq_u32(vld1q_u32(indices), vdupq_n_u32(base));
    return vbslq_f32(vandq_u32(vcgeq_u32(lane, vdupq_n_u32(first)), vcltq_u32(lane, vdupq_n_u32(end))), x, y);
}

static inline v16 v16_where_lanes(uint32_t first, uint32_t end, v16 x, v16 y)
{
    return (v16) {where_lanes(first, end, 0, x.a, y.a), where_lanes(first, end, 4, x.b, y.b),
                  where_lanes(first, end, 8, x.c, y.c), where_lanes(first, end, 12, x.d, y.d)};
}

static inline float32x4_t shift_to_exponent(float32x4_t t)
{
    const uint32x4_t n = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);
    return vreinterpretq_f32_u32(vaddq_u32(n, vreinterpretq_u32_f32(vdupq_n_f32(1.0f))));
}

static inline v16 v16_shift_to_exponent(v16 t)
{
    return EACH_1(shift_to_exponent, t);
}

static inline float v16_sum(v16 x)
{
    const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static inline float v16_largest(v16 x)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d)));
}

/* ---- whole numbers ---- */

typedef struct {
    int32x4_t a, b, c, d; /* lanes 0-3, 4-7, 8-11, 12-15 */
} v16i;

typedef struct {
    uint8x16_t a, b, c, d;
} v64;

/* 24 accumulators of 32 registers for scores and for outputs. */
#define PACKED_DOT_ROWS 3u
#define PACKED_WEIGH_ROWS 3u
#define PACKED_WEIGH_VECTORS 1u
#define FOR_PACKED_DOT_ROWS FOR_3_ROWS
#define FOR_PACKED_WEIGH_ROWS FOR_3_ROWS

#define WHOLE_2(f, x, y) ((v16i) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)})

static inline v16i v16i_set1(int32_t n)
{
    const int32x4_t quarter = vdupq_n_s32(n);
    return (v16i) {quarter, quarter, quarter, quarter};
}

static inline v16i v16i_zero(void)
{
    return v16i_set1(0);
}

static inline v16i v16i_add(v16i x, v16i y)
{
    return WHOLE_2(vaddq_s32, x, y);
}

static inline v16i v16i_sub(v16i x, v16i y)
{
    return WHOLE_2(vsubq_s32, x, y);
}

static inline v16i v16i_mul(v16i x, v16i y)
{
    return WHOLE_2(vmulq_s32, x, y);
}

static inline v16i v16i_shift_left_7(v16i x)
{
    return (v16i) {vshlq_n_s32(x.a, 7), vshlq_n_s32(x.b, 7), vshlq_n_s32(x.c, 7), vshlq_n_s32(x.d, 7)};
}

static inline v16 v16i_to_float(v16i x)
{
    return (v16) {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)};
}

static inline v16i v16_round(v16 x)
{
    return (v16i) {vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c), vcvtnq_s32_f32(x.d)};
}

static inline void v16i_store(int32_t *to, v16i x)
{
    vst1q_s32(to, x.a);
    vst1q_s32(to + 4, x.b);
    vst1q_s32(to + 8, x.c);
    vst1q_s32(to + 12, x.d);
}

/* The lower bytes of 16 numbers. */
static inline uint8x16_t narrow(v16i x)
{
    const int16x8_t low = vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b));
    const int16x8_t high = vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d));
    return vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

static inline void v16i_store_planes(uint8_t *high, uint8_t *low, v16i x)
{
    const v16i upper = {vshrq_n_s32(x.a, 7), vshrq_n_s32(x.b, 7), vshrq_n_s32(x.c, 7), vshrq_n_s32(x.d, 7)};
    const v16i mask = v16i_set1(127);
    vst1q_u8(high, narrow(upper));
    vst1q_u8(low, narrow(WHOLE_2(vandq_s32, x, mask)));
}

static inline v64 v64_load(const uint8_t *from)
{
    return (v64) {vld1q_u8(from), vld1q_u8(from + 16), vld1q_u8(from + 32), vld1q_u8(from + 48)};
}

static inline uint8x16_t quarter_nibble(uint8x16_t line, uint32_t odd)
{
    return odd != 0 ? vshrq_n_u8(line, 4) : vandq_u8(line, vdupq_n_u8(15));
}

static inline v64 v64_nibble(v64 line, uint32_t odd)
{
    return (v64) {quarter_nibble(line.a, odd), quarter_nibble(line.b, odd), quarter_nibble(line.c, odd),
                  quarter_nibble(line.d, odd)};
}

static inline uint8x16_t quarter_with_bits(uint8x16_t tile, uint8x16_t line, uint32_t at, uint32_t count)
{
    const uint8x16_t moved = vshlq_u8(line, vdupq_n_s8((int8_t) (4 - (int32_t) at)));
    return vorrq_u8(tile, vandq_u8(moved, vdupq_n_u8((uint8_t) (((1u << count) - 1u) << 4))));
}

static inline v64 v64_with_bits(v64 tile, v64 line, uint32_t at, uint32_t count)
{
    return (v64) {quarter_with_bits(tile.a, line.a, at, count), quarter_with_bits(tile.b, line.b, at, count),
                  quarter_with_bits(tile.c, line.c, at, count), quarter_with_bits(tile.d, line.d, at, count)};
}

/* ---- the dot product of bytes: quarter_dot4 says how, codes below 128 ---- */

static inline int32x4_t quarter_dot4(int32x4_t sums, uint8x16_t codes, int8x16_t words);

static inline v16i v16i_dot4(v16i sums, v64 codes, int32_t word)
{
    const int8x16_t words = vreinterpretq_s8_s32(vdupq_n_s32(word));
    return (v16i) {quarter_dot4(sums.a, codes.a, words), quarter_dot4(sums.b, codes.b, words),
                   quarter_dot4(sums.c, codes.c, words), quarter_dot4(sums.d, codes.d, words)};
}

/* 2 * (the upper seven bits) + the lowest. */
static inline v16i v16i_dot4_wide(v16i sums, v64 codes, int32_t word)
{
    const uint8x16_t one = vdupq_n_u8(1);
    const v64 upper = {vshrq_n_u8(codes.a, 1), vshrq_n_u8(codes.b, 1), vshrq_n_u8(codes.c, 1), vshrq_n_u8(codes.d, 1)};
    const v64 lowest = {vandq_u8(codes.a, one), vandq_u8(codes.b, one), vandq_u8(codes.c, one), vandq_u8(codes.d, one)};
    const v16i half = v16i_dot4(v16i_zero(), upper, word);
    return v16i_add(v16i_dot4(sums, lowest, word), v16i_add(half, half));
}

/* ---- digests ---- */

static inline v16i v16i_load_bytes(const uint8_t *from)
{
    const uint8x16_t bytes = vld1q_u8(from);
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes));
    const uint16x8_t high = vmovl_high_u8(bytes);
    return (v16i) {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
                   vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))};
}

static inline v16i v16i_bits(v16i x, uint32_t at, uint32_t count)
{
    const int32x4_t down = vdupq_n_s32(-(int32_t) at);
    const v16i shifted = {vshlq_s32(x.a, down), vshlq_s32(x.b, down), vshlq_s32(x.c, down), vshlq_s32(x.d, down)};
    const v16i mask = v16i_set1((int32_t) ((1u << count) - 1u));
    return WHOLE_2(vandq_s32, shifted, mask);
}

static inline int32x4_t quarters_sum(v16i x)
{
    return vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d));
}

static inline int32x4_t four_sums(const v16i *x)
{
    return vpaddq_s32(vpaddq_s32(quarters_sum(x[0]), quarters_sum(x[1])),
                      vpaddq_s32(quarters_sum(x[2]), quarters_sum(x[3])));
}

static inline v16i v16i_sums(const v16i *x)
{
    return (v16i) {four_sums(x), four_sums(x + 4), four_sums(x + 8), four_sums(x + 12)};
}

static inline v16 v16_odd(v16i x, uint32_t at)
{
    const v16i bits = v16i_bits(x, at, 2);
    return v16_fma(v16i_to_float(bits), v16_set1(2.0f), v16_set1(-3.0f));
}

static inline v64 v64_load_bits(const uint8_t *from)
{
    const uint8x16_t bytes = vld1q_u8(from);
    const uint8x16_t mask = vdupq_n_u8(3);
    return (v64) {vandq_u8(bytes, mask), vandq_u8(vshrq_n_u8(bytes, 2), mask), vandq_u8(vshrq_n_u8(bytes, 4), mask),
                  vshrq_n_u8(bytes, 6)};
}

static inline v64 v64_join(v64 low, v64 high, uint32_t at)
{
    const int8x16_t up = vdupq_n_s8((int8_t) at);
    return (v64) {vorrq_u8(low.a, vshlq_u8(high.a, up)), vorrq_u8(low.b, vshlq_u8(high.b, up)),
                  vorrq_u8(low.c, vshlq_u8(high.c, up)), vorrq_u8(low.d, vshlq_u8(high.d, up))};
}

static inline v16i v16i_dot4_each(v16i sums, v64 codes, v64 words)
{
    return (v16i) {quarter_dot4(sums.a, codes.a, vreinterpretq_s8_u8(words.a)),
                   quarter_dot4(sums.b, codes.b, vreinterpretq_s8_u8(words.b)),
                   quarter_dot4(sums.c, codes.c, vreinterpretq_s8_u8(words.c)),
                   quarter_dot4(sums.d, codes.d, vreinterpretq_s8_u8(words.d))};
}
