// Products of rows with a matrix that lies in panels, in 8 bits or bfloat16.
#pragma once

#include "lanes.hpp"

namespace panels {

constexpr int64_t WIDE = 4;  // vectors of columns in a panel; the last one may be narrower
constexpr int TALL = 6;      // rows whose sums with so many vectors fit into registers

// As in structs.py. A group is four bytes: as many numbers of a row as one instruction multiplies at once.
struct Weights {
    const int32_t* groups;       // for each panel: groups of all its columns side by side
    const float *scale, *bias;   // of each column; no scale for bfloat16, the bias may be missing
    const int32_t* start;        // what the sums of 8 bits begin with, as zero is at `zero_point`
    int64_t out, width, deep;    // columns, numbers in a row, groups in a row
    int64_t zero_point;          // of the rows; 0: all is in bfloat16
};

// Rows on one side of a product, in groups, and what a step of each row is worth.
struct Rows {
    const int32_t* groups;
    const float* unit;
    int64_t count;
};

// Where results go: float32 (`wide`) or bfloat16, in place of what is there or onto it.
struct Target {
    void* to;
    int64_t step;
    bool wide, add;

    Target from(int64_t row) const {
        return {(char*)to + row * step * (wide ? sizeof(float) : sizeof(bf16)), step, wide, add};
    }

    template <class T, class Mask>
    void put(T* at, Mask mask, __m512 number) const {
        store(at, mask, add ? _mm512_add_ps(load(at, mask), number) : number);
    }

    template <class Mask>
    void put(int64_t row, int64_t column, Mask mask, __m512 number) const {
        if (wide) put((float*)to + row * step + column, mask, number);
        else put((bf16*)to + row * step + column, mask, number);
    }
};

struct Integers {
    using Sum = __m512i;
    static Sum begin(const Weights& weights, int64_t column) { return _mm512_loadu_si512(weights.start + column); }
    // In the compiler's own words (GCC 12), every sum is copied to memory: half as fast.
    static void add(Sum& sum, __m512i row, __m512i column) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(row), "v"(column)); }
    static __m512 number(Sum sum, const Weights& weights, int64_t column, float unit) {
        const auto scale = _mm512_mul_ps(_mm512_loadu_ps(weights.scale + column), _mm512_set1_ps(unit));
        return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
    }
};

struct Floats {
    using Sum = __m512;
    static Sum begin(const Weights&, int64_t) { return _mm512_setzero_ps(); }
    static void add(Sum& sum, __m512i row, __m512i column) { sum = _mm512_dpbf16_ps(sum, (__m512bh)row, (__m512bh)column); }
    static __m512 number(Sum sum, const Weights&, int64_t, float) { return sum; }
};

// `R` rows times `N` vectors of columns, from `column` on, which stand side by side with `across` columns in all.
template <class Kind, int R, int N>
inline void tile(const Weights& weights, const Rows& rows, int64_t row, const int32_t* panel, int64_t across,
                 const int32_t* ahead, int64_t column, const Target& target) {
    const int64_t deep = weights.deep;
    const int32_t* left = rows.groups + row * deep;
    typename Kind::Sum sums[R][N];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++) sums[r][n] = Kind::begin(weights, column + n * LANES);
    for (int64_t group = 0; group < deep; group++) {
        _mm_prefetch(ahead + group * LANES, _MM_HINT_T1);
        __m512i right[N];
        UNROLL for (int n = 0; n < N; n++) right[n] = _mm512_loadu_si512(panel + group * across + n * LANES);
        UNROLL for (int r = 0; r < R; r++) {
            const auto both = _mm512_set1_epi32(left[r * deep + group]);
            UNROLL for (int n = 0; n < N; n++) Kind::add(sums[r][n], both, right[n]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++) {
            const int64_t at = column + n * LANES;
            auto number = Kind::number(sums[r][n], weights, at, rows.unit[row + r]);
            if (weights.bias) number = _mm512_add_ps(number, _mm512_loadu_ps(weights.bias + at));
            if (at + LANES <= weights.out) target.put(row + r, at, All{}, number);
            else target.put(row + r, at, lanes(weights.out - at), number);
        }
}

// All rows times the vectors of columns from `first` to `end`.
template <class Kind>
void multiply(const Weights& weights, const Rows& rows, int64_t first, int64_t end, const Target& target) {
    const int64_t all = (weights.out + LANES - 1) / LANES, step = LANES * weights.deep;
    while (first < end) {
        const int64_t begin = first / WIDE * WIDE, across = std::min(WIDE, all - begin);
        const int32_t* panel = weights.groups + begin * step + (first - begin) * LANES;
        with_largest<WIDE, 2, 1>(std::min(end, begin + across) - first, [&](auto n) {
            const int32_t* ahead = panel + across * step;  // each of the first tiles fetches a part of the next panel
            for (int64_t row = 0; row < rows.count;)
                with_largest<TALL, 4, 2, 1>(rows.count - row, [&](auto r) {
                    tile<Kind, r.value, n.value>(weights, rows, row, panel, across * LANES, ahead, first * LANES, target);
                    row += r.value;
                    if (row < WIDE * TALL) ahead += step;
                });
            first += n.value;
        });
    }
}

inline void multiply(const Weights& weights, const Rows& rows, int64_t first, int64_t end, const Target& target) {
    if (weights.zero_point) multiply<Integers>(weights, rows, first, end, target);
    else multiply<Floats>(weights, rows, first, end, target);
}

}  // namespace panels
