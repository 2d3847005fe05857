// Attention of single tokens, each to keys that lie in rows: as fast as they come from memory.
#pragma once

#include <cmath>
#include <vector>

#include "attention.hpp"

namespace alone {

using attention::LN2;

// Where a token stands among the queries, and slots that it looks at. The looks of a token follow each other.
struct Look {
    int64_t row, begin, end;
};

struct Shape {
    int64_t key_heads, group, width, slots;  // slots: of the store, for each head
    float scale;
};

constexpr int64_t MOST = 256;  // keys in a piece

inline __m512 pairs_of_rows(const __m512* v) {  // two vectors into one whose lanes still add up to their sums
    return _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
}

// The sums of sixteen vectors, in their order.
inline __m512 sums_of(const __m512* v) {
    __m512 four[4];
    UNROLL for (int i = 0; i < 4; i++) {
        const auto ab = _mm512_castps_pd(pairs_of_rows(v + 4 * i)), cd = _mm512_castps_pd(pairs_of_rows(v + 4 * i + 2));
        four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    }
    const auto fold = [](__m512 a, __m512 b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return fold(fold(four[0], four[1]), fold(four[2], four[3]));
}

// The masks of 32 features each, `left` in all.
template <int W>
struct Masks {
    __mmask32 of[W];

    explicit Masks(int64_t left) {
        for (int64_t w = 0; w < W; w++) of[w] = left - 32 * w >= 32 ? ~0u : left > 32 * w ? (1u << (left - 32 * w)) - 1 : 0;
    }
    __m512i load(const bf16* from, int w) const { return _mm512_maskz_loadu_epi16(of[w], from + 32 * w); }
};

// What 32 * W features add to the scores. Sixteen keys at a time are asked by all heads, as they are then close.
template <int W>
inline void score(const bf16* queries, int64_t heads, const bf16* keys, int64_t count, int64_t width, int64_t left,
                  float* out, int64_t step, bool add) {
    const Masks<W> masks(left);
    for (int64_t k = 0; k < count; k += LANES)
        for (int64_t head = 0; head < heads; head++) {
            __m512bh query[W];
            UNROLL for (int w = 0; w < W; w++) query[w] = (__m512bh)masks.load(queries + head * width, w);
            __m512 sums[LANES];
            UNROLL for (int64_t lane = 0; lane < LANES; lane++) {
                const bf16* key = keys + std::min(k + lane, count - 1) * width;
                sums[lane] = _mm512_setzero_ps();
                UNROLL for (int w = 0; w < W; w++)
                    sums[lane] = _mm512_dpbf16_ps(sums[lane], query[w], (__m512bh)masks.load(key, w));
            }
            float* to = out + head * step + k;
            const auto found = sums_of(sums);
            _mm512_storeu_ps(to, add ? _mm512_add_ps(found, _mm512_loadu_ps(to)) : found);
        }
}

// Sums of values (their first 32 * W features), weighed by the shares of H heads, two values at a time. Shares
// behind the last one are zero.
template <int H, int W>
inline void mix(const bf16* shares, int64_t share_step, const bf16* values, int64_t count, int64_t width, int64_t left,
                float* out, int64_t out_step) {
    constexpr int CHAINS = H * W > 2 ? 1 : 2;  // as many sums as keep the multiplier busy
    const Masks<W> masks(left);
    __m512 sums[CHAINS][H][W][2];
    UNROLL for (int c = 0; c < CHAINS; c++)
        UNROLL for (int h = 0; h < H; h++)
            UNROLL for (int w = 0; w < W; w++) sums[c][h][w][0] = sums[c][h][w][1] = _mm512_setzero_ps();
    for (int64_t first = 0; first < count; first += 2 * CHAINS)
        UNROLL for (int c = 0; c < CHAINS; c++) {
            const int64_t k = first + 2 * c;
            const bf16 *even = values + std::min(k, count - 1) * width, *odd = values + std::min(k + 1, count - 1) * width;
            __m512i both[W][2];
            UNROLL for (int w = 0; w < W; w++) {
                const auto one = masks.load(even, w), two = masks.load(odd, w);
                both[w][0] = _mm512_unpacklo_epi16(one, two);
                both[w][1] = _mm512_unpackhi_epi16(one, two);
            }
            UNROLL for (int h = 0; h < H; h++) {
                const auto share = (__m512bh)_mm512_set1_epi32(*(const int32_t*)(shares + h * share_step + k));
                UNROLL for (int w = 0; w < W; w++)
                    UNROLL for (int i = 0; i < 2; i++)
                        sums[c][h][w][i] = _mm512_dpbf16_ps(sums[c][h][w][i], share, (__m512bh)both[w][i]);
            }
        }
    // Of eight features side by side the first four are in the first sum, the others in the second.
    const auto order = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    UNROLL for (int h = 0; h < H; h++)
        UNROLL for (int w = 0; w < W; w++) {
            auto low = sums[0][h][w][0], high = sums[0][h][w][1];
            if (CHAINS > 1) {
                low = _mm512_add_ps(low, sums[CHAINS - 1][h][w][0]);
                high = _mm512_add_ps(high, sums[CHAINS - 1][h][w][1]);
            }
            UNROLL for (int i = 0; i < 2; i++) {
                const int64_t at = 32 * w + LANES * i;
                const auto from = _mm512_add_epi32(order, _mm512_set1_epi32(8 * i));
                store(out + h * out_step + at, lanes(left - at), _mm512_permutex2var_ps(low, from, high));
            }
        }
}

// What pieces of the keys give for each query head: values mixed, sum of shares and largest exponent.
struct Found {
    std::vector<Look> pieces;
    Buffer<float> mixed, sum, largest;

    // Cuts long looks, so that all threads have something to do; what is rounded does not hang on their number.
    Found(const Look* looks, int64_t count, const Shape& shape) {
        for (int64_t i = 0; i < count; i++) {
            const auto [row, begin, end] = looks[i];
            const int64_t parts = (end - begin + MOST - 1) / MOST, step = whole((end - begin + parts - 1) / parts, LANES);
            for (int64_t at = begin; at < end; at += step) pieces.push_back({row, at, std::min(end, at + step)});
        }
        const int64_t heads = pieces.size() * shape.key_heads * shape.group;
        mixed.hold(heads * shape.width);
        sum.hold(heads);
        largest.hold(heads);
    }
};

template <class Q>
void one_piece(const Q* queries, const bf16* keys, const bf16* values, int64_t count, const Shape& shape, Found& found,
               int64_t at) {
    const int64_t width = shape.width, padded = whole(count, LANES);
    static thread_local Buffer<float> score_buffer;
    static thread_local Buffer<bf16> share_buffer, query_buffer;
    float* scores = score_buffer.hold(shape.group * padded);
    bf16 *shares = share_buffer.hold(shape.group * padded), *asking = query_buffer.hold(shape.group * width);
    to_bf16(queries, asking, shape.group * width);
    for (int64_t w = 0; w < width;)
        with_largest<4, 2, 1>((width - w + 31) / 32, [&](auto wide) {
            score<wide.value>(asking + w, shape.group, keys + w, count, width, width - w, scores, padded, w > 0);
            w += 32 * wide.value;
        });
    for (int64_t head = 0; head < shape.group; head++)
        found.sum.data()[at + head] = attention::shares_of(scores + head * padded, shares + head * padded, count, padded,
                                                           shape.scale / LN2, found.largest.data()[at + head]);
    for (int64_t head = 0; head < shape.group; head += 4)
        for (int64_t w = 0; w < width; w += 64)
            with_largest<4, 3, 2, 1>(shape.group - head, [&](auto heads) {
                with_largest<2, 1>((width - w + 31) / 32, [&](auto wide) {
                    mix<heads.value, wide.value>(shares + head * padded, padded, values + w, count, width, width - w,
                                                 found.mixed.data() + (at + head) * width + w, width);
                });
            });
}

// The pieces `first` to `end`, which one row looks at, put together for one head.
template <class O>
void merge(const Found& found, int64_t first, int64_t end, int64_t heads, int64_t head, int64_t width, O* to) {
    static thread_local Buffer<float> buffer;
    float *weigh = buffer.hold(end - first), largest = -std::numeric_limits<float>::infinity(), sum = 0;
    const float *each_largest = found.largest.data() + head, *each_sum = found.sum.data() + head;
    for (int64_t p = first; p < end; p++) largest = std::max(largest, each_largest[p * heads]);
    for (int64_t p = first; p < end; p++)
        sum += each_sum[p * heads] * (weigh[p - first] = std::exp2(each_largest[p * heads] - largest));
    for (int64_t w = 0; w < width; w += LANES) {
        const auto mask = lanes(width - w);
        auto number = _mm512_setzero_ps();
        for (int64_t p = first; p < end; p++)
            number = _mm512_fmadd_ps(load(found.mixed.data() + (p * heads + head) * width + w, mask),
                                     _mm512_set1_ps(weigh[p - first] / sum), number);
        store(to + w, mask, number);
    }
}

// By all threads of a parallel region: rows of attention, in the order of the looks.
template <class Q, class O>
void together(const Q* queries, const bf16* keys, const bf16* values, O* out, const Shape& shape, Found& found) {
    const int64_t heads = shape.key_heads * shape.group, width = shape.width, count = found.pieces.size();
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t piece = 0; piece < count; piece++)
        for (int64_t head = 0; head < shape.key_heads; head++) {
            const auto [row, begin, end] = found.pieces[piece];
            const int64_t at = (head * shape.slots + begin) * width, query = head * shape.group;
            one_piece(queries + (row * heads + query) * width, keys + at, values + at, end - begin, shape, found,
                      piece * heads + query);
        }
#pragma omp for schedule(static)
    for (int64_t head = 0; head < heads; head++)
        for (int64_t first = 0, row = 0, end; first < count; first = end, row++) {
            for (end = first + 1; end < count && found.pieces[end].row == found.pieces[first].row;) end++;
            merge(found, first, end, heads, head, width, out + (row * heads + head) * width);
        }
}

template <class Q>
void attend(const Q* queries, const bf16* keys, const bf16* values, const Look* looks, int64_t count, Q* out,
            const Shape& shape, int threads) {
    Found found(looks, count, shape);
#pragma omp parallel num_threads(threads)
    together(queries, keys, values, out, shape, found);
}

}  // namespace alone
