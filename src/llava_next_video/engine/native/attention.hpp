// Attention with numbers of bfloat16 and sums of float32.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "lanes.hpp"

namespace attention {

// How the numbers of queries, keys, values and results lie in memory: steps between tokens and between heads.
struct Lie {
    int64_t token, head;
};

struct Shape {
    int64_t rows, keys, key_heads, group, width;  // group: query heads for each head of the keys
    float scale;
    int64_t hidden;  // keys that the first row does not see; each next row sees one more. Below zero: all seen
};

constexpr int TILE = 6;      // query rows whose sums fit into registers, beside
constexpr int BLOCK = 64;    // so many keys, or features of the values
constexpr int ROWS = 2 * TILE;  // that look at a block before the next one is fetched
constexpr int64_t AHEAD = 4 * LANES;  // keys that are asked for before they are read
constexpr float LN2 = 0.6931471805599453f;

// The product of a tile of rows with N vectors of columns. Both sides hold pairs of bfloat16; each row of the
// left, each pair of the right and each row of what comes out begins so many numbers behind the one before.
template <int N>
inline void product(const uint32_t* left, int64_t left_step, const uint32_t* right, int64_t right_step, int64_t pairs,
                    float* out, int64_t out_step) {
    __m512 sums[TILE][N];
    for (auto& row : sums)
        for (auto& sum : row) sum = _mm512_setzero_ps();
    for (int64_t pair = 0; pair < pairs; pair++) {
        __m512bh column[N];
        for (int n = 0; n < N; n++) column[n] = (__m512bh)_mm512_loadu_si512(right + pair * right_step + n * LANES);
        for (int row = 0; row < TILE; row++) {
            const auto both = (__m512bh)_mm512_set1_epi32(left[row * left_step + pair]);
            for (int n = 0; n < N; n++) sums[row][n] = _mm512_dpbf16_ps(sums[row][n], both, column[n]);
        }
    }
    for (int row = 0; row < TILE; row++)
        for (int n = 0; n < N; n++) _mm512_storeu_ps(out + row * out_step + n * LANES, sums[row][n]);
}

// Asks the memory for rows that are read soon. What lies behind the last row may be asked for as well.
template <class K>
inline void ask_for(const K* from, int64_t step, int64_t rows, int64_t width) {
    constexpr int64_t LINE = 64 / sizeof(K);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t at = 0; at < width; at += LINE) _mm_prefetch((const char*)(from + row * step + at), _MM_HINT_T0);
}

// The pairs of features of sixteen keys (of which `count` are there) from a pair on, the keys side by side.
template <class K>
inline void turned_keys(const K* key, int64_t step, int64_t count, int64_t pair, int64_t width, __m512i* square) {
    UNROLL for (int64_t i = 0; i < LANES; i++)
        square[i] = i < count ? pairs_of(key + i * step + 2 * pair, width - 2 * pair) : _mm512_setzero_si512();
    turn_square(square);
}

// Keys and values of one head, as the products want them: pairs of features (of keys) side by side.
struct Packed {
    Buffer<uint32_t> keys_buffer, values_buffer;
    uint32_t *keys, *values;
    int64_t half, wide;  // pairs of features of a key; features of a value, filled up to whole vectors

    template <class K>
    void pack(const K* key, const K* value, Lie lie, int64_t count, int64_t width) {
        half = (width + 1) / 2;
        wide = whole(width, LANES);
        const int64_t padded = whole(count, LANES);
        keys = keys_buffer.hold(padded * half);
        values = values_buffer.hold(padded / 2 * wide);
        for (int64_t k = 0; k < count; k += LANES) {
            const int64_t start = k / BLOCK * BLOCK, many = std::min<int64_t>(BLOCK, padded - start);
            uint32_t* to = keys + start * half + (k - start);
            ask_for(key + (k + AHEAD) * lie.token, lie.token, LANES, width);
            for (int64_t pair = 0; pair < half; pair += LANES) {
                __m512i square[LANES];
                turned_keys(key + k * lie.token, lie.token, count - k, pair, width, square);
                const int64_t filled = std::min(LANES, half - pair);
                UNROLL for (int64_t i = 0; i < LANES; i++)
                    if (i < filled) _mm512_storeu_si512(to + (pair + i) * many, square[i]);
            }
        }
        for (int64_t k = 0; k < padded; k += 2)
            for (int64_t w = 0; w < wide; w += 2 * LANES) {
                const auto of = [&](int64_t at) {
                    return at < count ? pairs_of(value + at * lie.token + w, width - w) : _mm512_setzero_si512();
                };
                const auto even = of(k), odd = of(k + 1);
                uint32_t* to = values + k / 2 * wide + w;
                _mm512_storeu_si512(to, side_by_side(even, odd, 0));
                if (w + LANES < wide) _mm512_storeu_si512(to + LANES, side_by_side(even, odd, LANES));
            }
    }
};

// Scores of a row to shares, not yet divided by their sum; gives the sum and the largest exponent.
template <class S>
inline float shares_of(const float* scores, S* shares, int64_t seen, int64_t padded, float exponent, float& largest) {
    __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    for (int64_t k = 0; k < seen; k += LANES)
        most = _mm512_mask_max_ps(most, lanes(seen - k), most, _mm512_loadu_ps(scores + k));
    largest = _mm512_reduce_max_ps(most) * exponent;
    const __m512 times = _mm512_set1_ps(exponent), minus = _mm512_set1_ps(-largest);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < padded; k += LANES) {
        const auto share = _mm512_maskz_mov_ps(
            lanes(seen - k), exp2(_mm512_fmadd_ps(_mm512_loadu_ps(scores + k), times, minus)));
        sum = _mm512_add_ps(sum, share);
        store(shares + k, All{}, share);
    }
    return _mm512_reduce_add_ps(sum);
}

struct Scratch {
    Packed packed;
    Buffer<float> scores, out;
    Buffer<bf16> shares, queries;
};

// Rows `begin` to `end` of one head of the keys; the query heads that share it are rows of their own.
template <class Q, class K>
void some_rows(const Q* queries, Lie asked, const K* key, const K* value, Lie lie, Q* out, float* sums,
               const Shape& shape, int64_t head, int64_t begin, int64_t end) {
    static thread_local Scratch scratch;
    const int64_t heads = shape.key_heads * shape.group;
    const auto seen_by = [&](int64_t row) {
        return shape.hidden < 0 ? shape.keys : std::min(shape.keys, shape.keys - shape.hidden + row / shape.group);
    };
    const int64_t most = seen_by(end - 1);
    Packed& packed = scratch.packed;
    packed.pack(key + head * lie.head, value + head * lie.head, lie, most, shape.width);
    const int64_t half = packed.half, wide = packed.wide, padded = whole(most, LANES);
    float *scores = scratch.scores.hold(ROWS * padded), *mixed = scratch.out.hold(ROWS * wide);
    bf16 *shares = scratch.shares.hold(ROWS * padded), *asking = scratch.queries.hold(ROWS * half * 2);
    std::fill_n(asking, ROWS * half * 2, 0);
    for (int64_t first = begin; first < end; first += ROWS) {
        const int64_t rows = std::min<int64_t>(ROWS, end - first), filled = whole(rows, TILE);
        const int64_t reach = whole(seen_by(first + rows - 1), LANES);
        for (int64_t row = 0; row < rows; row++) {
            const int64_t token = (first + row) / shape.group, query = head * shape.group + (first + row) % shape.group;
            to_bf16(queries + token * asked.token + query * asked.head, asking + row * half * 2, shape.width);
        }
        for (int64_t k = 0; k < reach; k += BLOCK) {
            // The last block of all is packed as narrow as it is; the last one in reach may be wider than needed.
            const int64_t vectors = std::min<int64_t>(BLOCK, padded - k) / LANES;
            for (int64_t row = 0; row < filled; row += TILE)
                with_largest<4, 3, 2, 1>(vectors, [&](auto n) {
                    product<n.value>((const uint32_t*)asking + row * half, half, packed.keys + k * half, n.value * LANES,
                                     half, scores + row * padded + k, padded);
                });
        }
        float divide[ROWS], largest[ROWS];
        for (int64_t row = 0; row < filled; row++)
            divide[row] = shares_of(scores + row * padded, shares + row * padded, row < rows ? seen_by(first + row) : 0,
                                    reach, shape.scale / LN2, largest[row]);
        for (int64_t w = 0; w < wide; w += BLOCK)
            for (int64_t row = 0; row < filled; row += TILE)
                with_largest<4, 3, 2, 1>(std::min<int64_t>(BLOCK, wide - w) / LANES, [&](auto n) {
                    product<n.value>((const uint32_t*)(shares + row * padded), padded / 2, packed.values + w, wide, reach / 2,
                                     mixed + row * wide + w, wide);
                });
        for (int64_t row = 0; row < rows; row++) {
            const int64_t token = (first + row) / shape.group, query = head * shape.group + (first + row) % shape.group;
            const __m512 by = _mm512_set1_ps(1 / divide[row]);
            for (int64_t w = 0; w < shape.width; w += LANES)
                store(out + (token * heads + query) * shape.width + w, lanes(shape.width - w),
                      _mm512_mul_ps(_mm512_loadu_ps(mixed + row * wide + w), by));
            if (sums) sums[token * heads + query] = largest[row] * LN2 + std::log(divide[row]);
        }
    }
}

template <class Q, class K>
void attend(const Q* queries, Lie asked, const K* key, const K* value, Lie lie, Q* out, float* sums,
            const Shape& shape, int threads) {
    const int64_t rows = shape.rows * shape.group;
    // Every part packs the keys for itself, which is little beside the work of so many rows.
    const int64_t parts = std::clamp<int64_t>(4 * threads / shape.key_heads, 1, std::max<int64_t>(1, rows / 192));
    const int64_t step = whole((rows + parts - 1) / parts, TILE);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (int64_t part = parts - 1; part >= 0; part--)
        for (int64_t head = 0; head < shape.key_heads; head++)
            if (part * step < rows)
                some_rows(queries, asked, key, value, lie, out, sums, shape, head, part * step,
                          std::min(rows, (part + 1) * step));
}

}  // namespace attention
