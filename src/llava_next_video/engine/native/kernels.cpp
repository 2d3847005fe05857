// Kernels for processors with AVX512-BF16 and VNNI, called with addresses and sizes.
#include "alone.hpp"
#include "attention.hpp"
#include "products.hpp"

using attention::Lie;
using attention::Shape;

extern "C" {

void attend(int wide_queries, int wide_keys, int wide_out, const void* queries, int64_t query_token, int64_t query_head,
            const void* key, const void* value, int64_t key_token, int64_t key_head, void* out, float* sums,
            int64_t rows, int64_t keys, int64_t key_heads, int64_t group, int64_t width, float scale,
            int64_t hidden, int threads) {
    const Shape shape{rows, keys, key_heads, group, width, scale, hidden};
    const Lie asked{query_token, query_head}, lie{key_token, key_head};
    const auto run = [&](auto query_kind, auto key_kind, auto out_kind) {
        using Q = decltype(query_kind);
        using K = decltype(key_kind);
        using O = decltype(out_kind);
        attention::attend((const Q*)queries, asked, (const K*)key, (const K*)value, lie, (O*)out, sums, shape, threads);
    };
    if (!wide_out) run(bf16{}, bf16{}, bf16{});
    else if (!wide_queries) run(bf16{}, bf16{}, float{});
    else if (wide_keys) run(float{}, float{}, float{});
    else run(float{}, bf16{}, float{});
}

void attend_alone(int wide_queries, const void* queries, const bf16* keys, const bf16* values, int64_t slots,
                  const int64_t* looks, int64_t count, void* out, int64_t key_heads, int64_t group, int64_t width,
                  float scale, int threads) {
    const alone::Shape shape{key_heads, group, width, slots, scale};
    const auto* at = (const alone::Look*)looks;
    if (wide_queries) alone::attend((const float*)queries, keys, values, at, count, (float*)out, shape, threads);
    else alone::attend((const bf16*)queries, keys, values, at, count, (bf16*)out, shape, threads);
}

void quantise(int kind, const float* numbers, const float* unit_before, const float* bias_before, const float* norm,
              const float* offset, float epsilon, int64_t rows, int64_t width, int zero_point, uint8_t* out, float* unit,
              int threads) {
    const products::Raw raw{numbers, unit_before, bias_before};
    products::quantise({(products::Kind)kind, raw, norm, offset, epsilon, rows, width, zero_point}, out, unit, threads);
}

void settle(const float* numbers, const float* unit, const float* bias, int64_t rows, int64_t width, int add, int wide,
            void* out, int threads) {
    if (wide) products::settle<float>({numbers, unit, bias}, rows, width, add, (float*)out, threads);
    else products::settle<bf16>({numbers, unit, bias}, rows, width, add, (bf16*)out, threads);
}

void few(int kind, const float* numbers, const float* unit_before, const float* bias_before, const float* norm,
         const float* offset, float epsilon, int64_t rows, int64_t width, int zero_point, const int8_t* weight,
         const float* scale, const int32_t* sums, const float* bias, int64_t out_width, int add, float* out,
         int threads) {
    const products::Raw raw{numbers, unit_before, bias_before};
    products::few({(products::Kind)kind, raw, norm, offset, epsilon, rows, width, zero_point},
                  {weight, scale, sums, bias, out_width, width}, add, out, threads);
}
}
