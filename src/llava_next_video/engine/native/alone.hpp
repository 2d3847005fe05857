// Attention of single tokens, each to keys that lie in a row: as fast as they come from memory.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "attention.hpp"

namespace alone {

using attention::LN2;

// Where a token stands among the queries, and the slots that it looks at.
struct Look {
    int64_t row, begin, end;
};

struct Shape {
    int64_t key_heads, group, width, slots;  // slots: of the store, for each head
    float scale;
};

// A part of the keys: what it gives, its sum of shares and the largest exponent.
struct Partial {
    std::vector<float> mixed, sum, largest;
};

inline __m512 pairs_of_rows(const __m512* v) {  // two vectors into one whose lanes still add up to their sums
    return _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
}

// The sums of sixteen vectors, in their order.
inline __m512 sums_of(const __m512* v) {
    __m512 four[4];
    for (int i = 0; i < 4; i++) {
        const auto ab = _mm512_castps_pd(pairs_of_rows(v + 4 * i)), cd = _mm512_castps_pd(pairs_of_rows(v + 4 * i + 2));
        four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    }
    const auto fold = [](__m512 a, __m512 b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return fold(fold(four[0], four[1]), fold(four[2], four[3]));
}

inline void score(const bf16* query, const bf16* keys, int64_t count, int64_t width, float* out) {
    for (int64_t k = 0; k < count; k += LANES) {
        __m512 sums[LANES];
        for (int64_t lane = 0; lane < LANES; lane++) {
            const bf16* key = keys + std::min(k + lane, count - 1) * width;
            auto sum = _mm512_setzero_ps();
            for (int64_t w = 0; w < width; w += 32) {
                const __mmask32 mask = width - w >= 32 ? ~0u : (1u << (width - w)) - 1;
                sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi16(mask, query + w),
                                       (__m512bh)_mm512_maskz_loadu_epi16(mask, key + w));
            }
            sums[lane] = sum;
        }
        _mm512_storeu_ps(out + k, sums_of(sums));
    }
}

// The mean of values (their first 16 * N features), weighed by shares.
template <int N>
inline void mix(const float* shares, const bf16* values, int64_t count, int64_t width, int64_t left, float* out) {
    __m512 sums[N];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < count; k++) {
        const auto share = _mm512_set1_ps(shares[k]);
        for (int n = 0; n < N; n++)
            sums[n] = _mm512_fmadd_ps(share, load(values + k * width + n * LANES, lanes(left - n * LANES)), sums[n]);
    }
    for (int n = 0; n < N; n++) store(out + n * LANES, lanes(left - n * LANES), sums[n]);
}

template <class Q>
void part(const Q* queries, const bf16* keys, const bf16* values, int64_t count, const Shape& shape, Partial& to) {
    const int64_t width = shape.width, padded = whole(count, LANES);
    static thread_local std::vector<float> shares;
    static thread_local std::vector<bf16> query;
    shares.resize(padded);
    query.resize(whole(width, LANES));
    to.mixed.resize(shape.group * width);
    to.sum.resize(shape.group);
    to.largest.resize(shape.group);
    for (int64_t head = 0; head < shape.group; head++) {
        to_bf16(queries + head * width, query.data(), width);
        score(query.data(), keys, count, width, shares.data());
        to.sum[head] = attention::shares_of(shares.data(), shares.data(), count, padded, shape.scale / LN2, to.largest[head]);
        for (int64_t w = 0; w < width; w += attention::BLOCK)
            attention::with_vectors(std::min<int64_t>(4, (width - w + LANES - 1) / LANES), [&](auto n) {
                mix<n.value>(shares.data(), values + w, count, width, width - w, to.mixed.data() + head * width + w);
            });
    }
}

constexpr int64_t FEWEST = 256;  // keys that are worth a part of their own

template <class Q>
void attend(const Q* queries, const bf16* keys, const bf16* values, const Look* looks, int64_t count, Q* out,
            const Shape& shape, int threads) {
    const int64_t items = count * shape.key_heads, heads = shape.key_heads * shape.group;
    int64_t longest = 0;
    for (int64_t i = 0; i < count; i++) longest = std::max(longest, looks[i].end - looks[i].begin);
    const int64_t parts = std::clamp<int64_t>(2 * threads / items, 1, std::max<int64_t>(1, longest / FEWEST));
    std::vector<Partial> found(items * parts);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (items * longest > 1024)
    for (int64_t item = 0; item < items * parts; item++) {
        const Look look = looks[item / parts / shape.key_heads];
        const int64_t head = item / parts % shape.key_heads, step = (look.end - look.begin + parts - 1) / parts;
        const int64_t begin = look.begin + item % parts * step, end = std::min(look.end, begin + step);
        const int64_t at = (head * shape.slots + begin) * shape.width;
        const Q* asking = queries + (look.row * heads + head * shape.group) * shape.width;
        if (begin < end) part(asking, keys + at, values + at, end - begin, shape, found[item]);
    }
    for (int64_t item = 0; item < items; item++)
        for (int64_t head = 0; head < shape.group; head++) {
            const int64_t query = item % shape.key_heads * shape.group + head;
            const Partial* some = found.data() + item * parts;
            float largest = some->largest[head], sum = 0;
            for (int64_t p = 0; p < parts; p++)
                if (!some[p].sum.empty()) largest = std::max(largest, some[p].largest[head]);
            std::vector<float> weigh(parts, 0);
            for (int64_t p = 0; p < parts; p++)
                if (!some[p].sum.empty()) sum += some[p].sum[head] * (weigh[p] = std::exp2(some[p].largest[head] - largest));
            Q* to = out + (item / shape.key_heads * heads + query) * shape.width;
            for (int64_t w = 0; w < shape.width; w += LANES) {
                const auto mask = lanes(shape.width - w);
                auto number = _mm512_setzero_ps();
                for (int64_t p = 0; p < parts; p++)
                    if (weigh[p] > 0)
                        number = _mm512_fmadd_ps(load(some[p].mixed.data() + head * shape.width + w, mask),
                                                 _mm512_set1_ps(weigh[p] / sum), number);
                store(to + w, mask, number);
            }
        }
}

}  // namespace alone
