// Sixteen numbers at once: what all kernels of this folder are made of.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

using bf16 = uint16_t;

// Loops over registers: the compiler keeps arrays of vectors in them only where it unrolls all.
#define UNROLL _Pragma("GCC unroll 16")

constexpr int64_t LANES = 16;

inline int64_t whole(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

// The lanes that `left` numbers fill.
inline __mmask16 lanes(int64_t left) {
    return left >= LANES ? 0xFFFF : left <= 0 ? 0 : __mmask16((1u << left) - 1);
}

// Calls `what` with the largest of some numbers that is not above `most`, as a constant; they fall down to 1.
template <int... NUMBERS, class What>
inline void with_largest(int64_t most, What what) {
    (void)((most >= NUMBERS && (what(std::integral_constant<int, NUMBERS>{}), true)) || ...);
}

// Room for numbers that begins with a cache line, so that no vector lies in two.
template <class T>
class Buffer {
    struct alignas(64) Line {
        char bytes[64];
    };
    std::vector<Line> lines;

public:
    T* hold(int64_t count) {
        const size_t wanted = (count * sizeof(T) + sizeof(Line) - 1) / sizeof(Line);
        if (lines.size() < wanted) lines.resize(wanted);
        return data();
    }
    T* data() { return (T*)lines.data(); }
    const T* data() const { return (const T*)lines.data(); }
};

// All lanes: masks cost where they are not needed.
struct All {};

// Calls `what` for each sixteen of `count` numbers with where they begin and which lanes they fill.
template <class What>
inline void each(int64_t count, What what) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) what(i, All{});
    if (i < count) what(i, lanes(count - i));
}

inline __m512 load(const float* from, All) { return _mm512_loadu_ps(from); }

inline __m512 load(const bf16* from, All) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
}

inline void store(float* to, All, __m512 numbers) { _mm512_storeu_ps(to, numbers); }

inline void store(bf16* to, All, __m512 numbers) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(numbers)); }

inline __m512 load(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }

inline __m512 load(const bf16* from, __mmask16 mask) {
    const auto narrow = _mm256_maskz_loadu_epi16(mask, from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

inline void store(float* to, __mmask16 mask, __m512 numbers) { _mm512_mask_storeu_ps(to, mask, numbers); }

inline void store(bf16* to, __mmask16 mask, __m512 numbers) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(numbers));
}

// Up to 32 of `left` numbers, as pairs of bfloat16; zeros behind them.
inline __m512i pairs_of(const bf16* from, int64_t left) {
    return left >= 2 * LANES ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16((1u << std::max<int64_t>(left, 0)) - 1, from);
}

inline __m512i pairs_of(const float* from, int64_t left) {
    return (__m512i)_mm512_cvtne2ps_pbh(load(from + LANES, lanes(left - LANES)), load(from, lanes(left)));
}

// Sixteen numbers of each of two rows from the `first` on, side by side.
inline __m512i side_by_side(__m512i even, __m512i odd, int first) {
    const auto lane = _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                       _mm512_set1_epi32(first));
    const auto behind = _mm512_add_epi32(lane, _mm512_set1_epi32(2 * LANES));
    return _mm512_permutex2var_epi16(even, _mm512_or_si512(lane, _mm512_slli_epi32(behind, 16)), odd);
}

// Numbers in sixteen rows of sixteen to those in sixteen columns.
inline void turn_square(__m512i* v) {
    __m512i a[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2) {
        a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4)
        UNROLL for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    UNROLL for (int i = 0; i < 4; i++)
        UNROLL for (int j = 0; j < LANES; j += 8) {
            a[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0x88);
            a[i + j + 4] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0xdd);
        }
    UNROLL for (int i = 0; i < 8; i++) {
        v[i] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0xdd);
    }
}

template <class T>
inline void to_bf16(const T* from, bf16* to, int64_t count) {
    each(count, [&](int64_t i, auto mask) { store(to + i, mask, load(from + i, mask)); });
}

// 2 to the power of numbers that are not above 127; 3e-6 off at most: the best polynomial of degree 4 around
// the next integer.
inline __m512 exp2(__m512 power) {
    const auto near = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const auto rest = _mm512_sub_ps(power, near);
    auto sum = _mm512_set1_ps(0.0095701f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.05591786f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.24024745f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.69312181f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.99999926f));
    return _mm512_scalef_ps(sum, near);
}
