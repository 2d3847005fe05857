// What happens to rows before a product: norm or activation, then rounding to what the matrix is in.
#pragma once

#include <omp.h>

#include <cmath>
#include <limits>

#include "panels.hpp"

namespace rows {

using panels::Rows;
using panels::Target;
using panels::Weights;

enum Kind { PLAIN, LAYER_NORM, RMS_NORM, SILU, GELU_TANH, GATED_SILU };  // as in panels.py

// As in structs.py: a matrix and what stands before it.
struct Product {
    Weights weights;
    const float *norm, *offset;  // an RMS norm has no offset
    float epsilon;
    int32_t kind;
};

// x / (1 + exp(-y))
inline __m512 gate(__m512 x, __m512 y) {
    const auto power = _mm512_min_ps(_mm512_mul_ps(y, _mm512_set1_ps(-1.44269504f)), _mm512_set1_ps(126));
    const auto below = _mm512_add_ps(exp2(power), _mm512_set1_ps(1));
    const auto guess = _mm512_rcp14_ps(below);  // one step of Newton's makes it as good as a division
    return _mm512_mul_ps(x, _mm512_mul_ps(guess, _mm512_fnmadd_ps(below, guess, _mm512_set1_ps(2))));
}

inline __m512 silu(__m512 x) { return gate(x, x); }

// x (1 + tanh y) / 2 is x / (1 + exp(-2 y)).
inline __m512 gelu_tanh(__m512 x) {
    const auto cube = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f * 1.5957691f), _mm512_set1_ps(1.5957691f));
    return gate(x, _mm512_mul_ps(x, cube));
}

// The largest and the least of numbers, and zero. They are compared as the integers that their bits are, among which
// what is no number is farthest from zero, and so never forgotten.
struct Reach {
    __m512i above = _mm512_setzero_si512(), below = _mm512_setzero_si512();

    void add(__m512 number) {
        above = _mm512_max_epi32(above, _mm512_castps_si512(number));
        below = _mm512_max_epu32(below, _mm512_castps_si512(number));  // positive if none is below zero
    }

    // What a step of 8 bits must be worth, if so many are below zero; no number if one of the row is none.
    float unit(int64_t zero_point) const {
        const float up = as_float(_mm512_reduce_max_epi32(above)), down = -as_float(_mm512_reduce_max_epu32(below));
        const float most = std::numeric_limits<float>::max();
        if (!(up <= most && down <= most)) return std::numeric_limits<float>::quiet_NaN();
        const float least = zero_point == 128 ? std::max(up, down) / 127 : std::max(up / (255 - zero_point), down / zero_point);
        return std::max(least, 1e-10f);
    }

private:
    static float as_float(uint32_t bits) { return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(bits))); }
};

// A row as numbers, after what stands before the product.
template <int KIND, class T>
Reach prepare(const Product& product, const T* from, float* to) {
    const int64_t width = product.weights.width;
    Reach reach;
    auto sum = _mm512_setzero_ps();
    each(width, [&](int64_t w, auto mask) {
        auto number = load(from + w, mask);
        if (KIND == SILU) number = silu(number);
        if (KIND == GELU_TANH) number = gelu_tanh(number);
        if (KIND == GATED_SILU) number = _mm512_mul_ps(silu(number), load(from + width + w, mask));
        if (KIND == LAYER_NORM) sum = _mm512_add_ps(sum, number);
        else if (KIND == RMS_NORM) sum = _mm512_fmadd_ps(number, number, sum);
        else reach.add(number);
        store(to + w, mask, number);
    });
    if (KIND != LAYER_NORM && KIND != RMS_NORM) return reach;
    float mean = 0, square = _mm512_reduce_add_ps(sum) / width;
    if (KIND == LAYER_NORM) {
        mean = square;
        const auto middle = _mm512_set1_ps(mean);
        sum = _mm512_setzero_ps();
        int64_t w = 0;
        for (; w + LANES <= width; w += LANES) {
            const auto away = _mm512_sub_ps(load(to + w, All{}), middle);
            sum = _mm512_fmadd_ps(away, away, sum);
        }
        const auto away = _mm512_maskz_sub_ps(lanes(width - w), load(to + w, lanes(width - w)), middle);
        square = _mm512_reduce_add_ps(_mm512_fmadd_ps(away, away, sum)) / width;
    }
    const auto by = _mm512_set1_ps(1 / std::sqrt(square + product.epsilon)), middle = _mm512_set1_ps(mean);
    each(width, [&](int64_t w, auto mask) {
        auto number = _mm512_mul_ps(_mm512_sub_ps(load(to + w, mask), middle), by);
        const auto weight = load(product.norm + w, mask);
        if (KIND == LAYER_NORM) number = _mm512_fmadd_ps(number, weight, load(product.offset + w, mask));
        else number = _mm512_mul_ps(number, weight);
        reach.add(number);
        store(to + w, mask, number);
    });
    return reach;
}

template <class T>
Reach prepare(const Product& product, const T* from, float* to) {
    switch (product.kind) {
        case LAYER_NORM: return prepare<LAYER_NORM>(product, from, to);
        case RMS_NORM: return prepare<RMS_NORM>(product, from, to);
        case SILU: return prepare<SILU>(product, from, to);
        case GELU_TANH: return prepare<GELU_TANH>(product, from, to);
        case GATED_SILU: return prepare<GATED_SILU>(product, from, to);
        default: return prepare<PLAIN>(product, from, to);
    }
}

// A row in unsigned 8 bits with steps of `unit`, which none of them needs more than 255 of.
inline void to_8_bits(const float* from, int64_t width, int64_t zero_point, float unit, uint8_t* to) {
    const auto by = _mm512_set1_ps(1 / unit), zero = _mm512_set1_ps(zero_point);
    const auto steps = [&](__m512 number) { return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_fmadd_ps(number, by, zero))); };
    int64_t w = 0;
    for (; w + LANES <= width; w += LANES) _mm_storeu_si128((__m128i*)(to + w), steps(load(from + w, All{})));
    if (w < width) _mm_mask_storeu_epi8(to + w, lanes(width - w), steps(load(from + w, lanes(width - w))));
}

// Room for rows in groups.
struct Room {
    Buffer<int32_t> groups;
    Buffer<float> unit;

    void hold(int64_t rows, int64_t deep) {
        groups.hold(rows * deep);
        unit.hold(rows);
    }

    // Row `row` of what the product multiplies. Groups that a row fills in part count for nothing in the matrix,
    // but must be numbers.
    template <class T>
    void fill(const Product& product, const T* from, int64_t row) {
        static thread_local Buffer<float> buffer;
        const auto& weights = product.weights;
        float* numbers = buffer.hold(weights.width);
        const Reach reach = prepare(product, from, numbers);
        int32_t* to = groups.data() + row * weights.deep;
        to[weights.deep - 1] = 0;
        if (weights.zero_point) {
            const float step = unit.data()[row] = reach.unit(weights.zero_point);
            to_8_bits(numbers, weights.width, weights.zero_point, step, (uint8_t*)to);
        } else {
            to_bf16(numbers, (bf16*)to, weights.width);
        }
    }
};

// The products of a block of rows, by one thread.
template <class T>
void block(const Product& product, const T* from, int64_t step, int64_t count, const Target& target) {
    static thread_local Room room;
    const auto& weights = product.weights;
    room.hold(count, weights.deep);
    for (int64_t row = 0; row < count; row++) room.fill(product, from + row * step, row);
    const int64_t vectors = (weights.out + LANES - 1) / LANES;
    panels::multiply(weights, {room.groups.data(), room.unit.data(), count}, 0, vectors, target);
}

// The products of a few rows, by all threads of a parallel region, which share `room` and the columns.
template <class T>
void together(const Product& product, const T* from, int64_t step, int64_t count, const Target& target, Room& room) {
    const auto& weights = product.weights;
#pragma omp for schedule(static)
    for (int64_t row = 0; row < count; row++) room.fill(product, from + row * step, row);
    const int64_t vectors = (weights.out + LANES - 1) / LANES, threads = omp_get_num_threads(), me = omp_get_thread_num();
    panels::multiply(weights, {room.groups.data(), room.unit.data(), count}, vectors * me / threads,
                     vectors * (me + 1) / threads, target);
#pragma omp barrier
}

constexpr int64_t BLOCK = 144;      // rows that a thread takes at once, at most
constexpr int64_t FEW = 72;         // up to so many, threads share columns instead of rows

// Calls `what` with the first and the number of the rows of each block; all threads get as many blocks, which
// consist of whole tiles.
template <class What>
void in_blocks(int64_t count, int threads, What what) {
    using panels::TALL;
    const int64_t blocks = whole((count + BLOCK - 1) / BLOCK, threads), tiles = (count + TALL - 1) / TALL;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t row = tiles * block / blocks * TALL, end = std::min(count, tiles * (block + 1) / blocks * TALL);
        if (row < end) what(row, end - row);
    }
}

template <class T>
void multiply(const Product& product, const T* from, int64_t count, const Target& target, int threads) {
    const int64_t step = product.weights.width * (product.kind == GATED_SILU ? 2 : 1);
    if (count <= FEW) {
        Room room;
        room.hold(count, product.weights.deep);
#pragma omp parallel num_threads(threads)
        together(product, from, step, count, target, room);
        return;
    }
    in_blocks(count, threads, [&](int64_t row, int64_t many) {
        block(product, from + row * step, step, many, target.from(row));
    });
}

// As in structs.py. What stands behind attention in a layer: its product, and the MLP, both added to `hidden`.
struct Behind {
    Product out, up, down;
};

template <class T>
void behind(const Behind& layer, const T* attended, float* hidden, int64_t count, int threads) {
    const int64_t width = layer.out.weights.out, deep = layer.out.weights.width, inner = layer.up.weights.out;
    if (count <= FEW) {
        Room room;
        room.hold(count, std::max({layer.out.weights.deep, layer.up.weights.deep, layer.down.weights.deep}));
        Buffer<float> buffer;
        float* between = buffer.hold(count * inner);
        const Target onto{hidden, width, true, true};
#pragma omp parallel num_threads(threads)
        {
            together(layer.out, attended, deep, count, onto, room);
            together(layer.up, hidden, width, count, {between, inner, true, false}, room);
            together(layer.down, between, inner, count, onto, room);
        }
        return;
    }
    in_blocks(count, threads, [&](int64_t row, int64_t many) {
        static thread_local Buffer<float> buffer;
        float* between = buffer.hold(many * inner);
        float* to = hidden + row * width;
        const Target onto{to, width, true, true};
        block(layer.out, attended + row * deep, deep, many, onto);
        block(layer.up, to, width, many, {between, inner, true, false});
        block(layer.down, between, inner, many, onto);
    });
}

}  // namespace rows
