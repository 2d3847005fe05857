// Sixteen numbers at once: what all kernels of this folder are made of.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

using bf16 = uint16_t;

constexpr int64_t LANES = 16;

inline int64_t whole(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

// The lanes that `left` numbers fill.
inline __mmask16 lanes(int64_t left) {
    return left >= LANES ? 0xFFFF : left <= 0 ? 0 : __mmask16((1u << left) - 1);
}

inline __m512 load(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }

inline __m512 load(const bf16* from, __mmask16 mask) {
    const auto narrow = _mm256_maskz_loadu_epi16(mask, from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

inline void store(float* to, __mmask16 mask, __m512 numbers) { _mm512_mask_storeu_ps(to, mask, numbers); }

inline void store(bf16* to, __mmask16 mask, __m512 numbers) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(numbers));
}

template <class T>
inline void to_bf16(const T* from, bf16* to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(to + i, lanes(count - i), load(from + i, lanes(count - i)));
}

// 2 to the power of numbers that are not above 127; 3e-6 off at most (Taylor series around the next integer).
inline __m512 exp2(__m512 power) {
    power = _mm512_max_ps(power, _mm512_set1_ps(-127));
    const auto near = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const auto rest = _mm512_sub_ps(power, near);
    auto sum = _mm512_set1_ps(1.3333558e-3f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(9.6181291e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.5504109e-2f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.4022651e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.9314718e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1));
    return _mm512_scalef_ps(sum, near);
}
