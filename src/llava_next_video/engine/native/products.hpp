// Products in 8 bits for a few rows, and what stands between products for many.
#pragma once

#include <cmath>
#include <vector>

#include "lanes.hpp"

namespace products {

enum Kind { PLAIN, LAYER_NORM, RMS_NORM, SILU, GELU_TANH, GATED_SILU };  // as in calls.py

// Rows of sums that are worth `unit` of their row each, plus a bias of their column; both may be missing.
struct Raw {
    const float *numbers, *unit, *bias;
};

// x / (1 + exp(-y))
inline __m512 gate(__m512 x, __m512 y) {
    const auto power = _mm512_min_ps(_mm512_mul_ps(y, _mm512_set1_ps(-1.44269504f)), _mm512_set1_ps(126));
    return _mm512_div_ps(x, _mm512_add_ps(exp2(power), _mm512_set1_ps(1)));
}

inline __m512 silu(__m512 x) { return gate(x, x); }

// x (1 + tanh y) / 2 is x / (1 + exp(-2 y)).
inline __m512 gelu_tanh(__m512 x) {
    const auto cube = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f * 1.5957691f), _mm512_set1_ps(1.5957691f));
    return gate(x, _mm512_mul_ps(x, cube));
}

struct Column {
    const Raw& raw;
    const float* row;
    __m512 unit;

    Column(const Raw& raw, int64_t number, int64_t width)
        : raw(raw), row(raw.numbers + number * width), unit(_mm512_set1_ps(raw.unit ? raw.unit[number] : 1)) {}

    __m512 at(int64_t column, __mmask16 mask) const {
        const auto number = load(row + column, mask);
        const auto bias = raw.bias ? load(raw.bias + column, mask) : _mm512_setzero_ps();
        return _mm512_fmadd_ps(number, unit, bias);
    }
};

// Rows on their way to 8 bits.
struct Input {
    Kind kind;
    Raw raw;
    const float *weight, *offset;  // of the norm; an RMS norm has no offset
    float epsilon;
    int64_t rows, width;
    int zero_point;
};

// One row as numbers, after what its kind asks for.
inline void prepare(const Input& input, int64_t row, float* to) {
    const auto [kind, raw, weight, offset, epsilon, rows, width, zero_point] = input;
    const Column from(raw, row, kind == GATED_SILU ? 2 * width : width);
    auto sum = _mm512_setzero_ps();
    for (int64_t w = 0; w < width; w += LANES) {
        const auto mask = lanes(width - w);
        auto number = from.at(w, mask);
        if (kind == SILU) number = silu(number);
        if (kind == GELU_TANH) number = gelu_tanh(number);
        if (kind == GATED_SILU) number = _mm512_mul_ps(silu(number), from.at(width + w, mask));
        if (kind == LAYER_NORM) sum = _mm512_add_ps(sum, number);
        if (kind == RMS_NORM) sum = _mm512_fmadd_ps(number, number, sum);
        store(to + w, mask, number);
    }
    if (kind != LAYER_NORM && kind != RMS_NORM) return;
    float mean = 0, square = _mm512_reduce_add_ps(sum) / width;
    if (kind == LAYER_NORM) {
        mean = square;
        sum = _mm512_setzero_ps();
        for (int64_t w = 0; w < width; w += LANES) {
            const auto mask = lanes(width - w);
            const auto away = _mm512_maskz_sub_ps(mask, load(to + w, mask), _mm512_set1_ps(mean));
            sum = _mm512_fmadd_ps(away, away, sum);
        }
        square = _mm512_reduce_add_ps(sum) / width;
    }
    const auto by = _mm512_set1_ps(1 / std::sqrt(square + epsilon)), middle = _mm512_set1_ps(mean);
    for (int64_t w = 0; w < width; w += LANES) {
        const auto mask = lanes(width - w);
        const auto number = _mm512_mul_ps(_mm512_sub_ps(load(to + w, mask), middle), by);
        const auto shift = offset ? load(offset + w, mask) : _mm512_setzero_ps();
        store(to + w, mask, _mm512_fmadd_ps(number, load(weight + w, mask), shift));
    }
}

// A row in unsigned 8 bits, zero at `zero_point`; gives what a step is worth.
inline float rounded(const float* from, int64_t width, int zero_point, uint8_t* to) {
    auto above = _mm512_setzero_ps(), below = _mm512_setzero_ps();
    for (int64_t w = 0; w < width; w += LANES) {
        const auto number = load(from + w, lanes(width - w));
        above = _mm512_max_ps(above, number);
        below = _mm512_min_ps(below, number);
    }
    const float up = _mm512_reduce_max_ps(above), down = -_mm512_reduce_min_ps(below);
    const float unit = std::max({zero_point == 128 ? std::max(up, down) / 127
                                                   : std::max(up / (255 - zero_point), down / zero_point),
                                 1e-10f});
    const auto by = _mm512_set1_ps(1 / unit);
    const auto zero = _mm512_set1_epi32(zero_point);
    for (int64_t w = 0; w < width; w += LANES) {
        const auto mask = lanes(width - w);
        const auto steps = _mm512_cvtps_epi32(_mm512_mul_ps(load(from + w, mask), by));
        _mm512_mask_cvtusepi32_storeu_epi8(to + w, mask, _mm512_max_epi32(_mm512_add_epi32(steps, zero), _mm512_setzero_si512()));
    }
    return unit;
}

inline void quantise(const Input& input, uint8_t* out, float* unit, int threads) {
    const int64_t rows = input.rows, width = input.width;
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * width > 65536)
    for (int64_t row = 0; row < rows; row++) {
        static thread_local std::vector<float> numbers;
        numbers.resize(width);
        prepare(input, row, numbers.data());
        unit[row] = rounded(numbers.data(), width, input.zero_point, out + row * width);
    }
}

// Sums to numbers, onto what stands in `out` if `add`.
template <class T>
void settle(const Raw& raw, int64_t rows, int64_t width, bool add, T* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * width > 65536)
    for (int64_t row = 0; row < rows; row++) {
        const Column from(raw, row, width);
        T* to = out + row * width;
        for (int64_t w = 0; w < width; w += LANES) {
            const auto mask = lanes(width - w);
            const auto number = from.at(w, mask);
            store(to + w, mask, add ? _mm512_add_ps(load(to + w, mask), number) : number);
        }
    }
}

// The sums of sixteen vectors, in their order.
inline __m512i sums_of(const __m512i* v) {
    __m512i four[4];
    for (int i = 0; i < 4; i++) {
        const auto ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[4 * i], v[4 * i + 1]), _mm512_unpackhi_epi32(v[4 * i], v[4 * i + 1]));
        const auto cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[4 * i + 2], v[4 * i + 3]), _mm512_unpackhi_epi32(v[4 * i + 2], v[4 * i + 3]));
        four[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
    const auto fold = [](__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    };
    return fold(fold(four[0], four[1]), fold(four[2], four[3]));
}

struct Weights {
    const int8_t* rows;
    const float* scale;
    const int32_t* sums;  // of each row
    const float* bias;    // may be missing
    int64_t out, width;
};

// `MANY` rows of the input times 16 / MANY rows of the weights, from `first` on.
template <int MANY>
inline void block(const uint8_t* x, const float* unit, const Weights& weights, int64_t first, int zero_point,
                  bool add, float* out) {
    constexpr int EACH = 16 / MANY;
    __m512i sums[16];
    const int64_t width = weights.width;
    for (int e = 0; e < EACH; e++) {  // in the order of the memory, which then comes ahead
        const int8_t* from = weights.rows + std::min(first + e, weights.out - 1) * width;
        __m512i sum[MANY];
        for (auto& one : sum) one = _mm512_setzero_si512();
        for (int64_t w = 0; w < width; w += 64) {
            const __mmask64 mask = width - w >= 64 ? ~0ull : (1ull << (width - w)) - 1;
            const auto weight = _mm512_maskz_loadu_epi8(mask, from + w);
            for (int m = 0; m < MANY; m++)
                sum[m] = _mm512_dpbusd_epi32(sum[m], _mm512_maskz_loadu_epi8(mask, x + m * width + w), weight);
        }
        for (int m = 0; m < MANY; m++) sums[m * EACH + e] = sum[m];
    }
    alignas(64) int32_t found[16];
    _mm512_store_si512(found, sums_of(sums));
    for (int m = 0; m < MANY; m++)
        for (int e = 0; e < EACH && first + e < weights.out; e++) {
            const int64_t row = first + e;
            float number = float(found[m * EACH + e] - zero_point * weights.sums[row]) * weights.scale[row] * unit[m];
            if (weights.bias) number += weights.bias[row];
            float& to = out[m * weights.out + row];
            to = add ? to + number : number;
        }
}

inline void few(const Input& input, const Weights& weights, bool add, float* out, int threads) {
    const int64_t rows = input.rows, width = weights.width, blocks = (weights.out + 15) / 16;
    const int zero_point = input.zero_point;
    static thread_local std::vector<uint8_t> rounded_rows;
    static thread_local std::vector<float> units;
    rounded_rows.resize(rows * width);
    units.resize(rows);
    quantise(input, rounded_rows.data(), units.data(), 1);
    const uint8_t* x = rounded_rows.data();
    const float* unit = units.data();
#pragma omp parallel for schedule(static) num_threads(threads) if (blocks * width > 4096)
    for (int64_t number = 0; number < blocks; number++) {
        int64_t row = 0;
        const auto some = [&](auto many) {
            constexpr int MANY = many.value;
            for (; row + MANY <= rows; row += MANY)
                for (int64_t first = number * 16; first < std::min(number * 16 + 16, weights.out); first += 16 / MANY)
                    block<MANY>(x + row * width, unit + row, weights, first, zero_point, add, out + row * weights.out);
        };
        some(std::integral_constant<int, 4>{});
        some(std::integral_constant<int, 2>{});
        some(std::integral_constant<int, 1>{});
    }
}

}  // namespace products
