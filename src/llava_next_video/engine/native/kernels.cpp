// Kernels for processors with AVX512-BF16 and VNNI, called with addresses and sizes.
#include "generate.hpp"

using attention::Lie;
using attention::Shape;

extern "C" {

// What structs.py must agree with: bytes of each struct, in the order there.
extern const int64_t struct_bytes[5];  // else only this file would see it
const int64_t struct_bytes[5] = {sizeof(panels::Weights), sizeof(rows::Product), sizeof(rows::Behind),
                                sizeof(generate::Layer), sizeof(generate::Decoder)};

void attend(int wide_queries, int wide_keys, const void* queries, int64_t query_token, int64_t query_head,
            const void* key, const void* value, int64_t key_token, int64_t key_head, void* out, float* sums,
            int64_t rows, int64_t keys, int64_t key_heads, int64_t group, int64_t width, float scale,
            int64_t hidden, int threads) {
    const Shape shape{rows, keys, key_heads, group, width, scale, hidden};
    const Lie asked{query_token, query_head}, lie{key_token, key_head};
    const auto run = [&](auto query_kind, auto key_kind) {
        using Q = decltype(query_kind);
        using K = decltype(key_kind);
        attention::attend((const Q*)queries, asked, (const K*)key, (const K*)value, lie, (Q*)out, sums, shape, threads);
    };
    if (!wide_queries) run(bf16{}, bf16{});
    else if (wide_keys) run(float{}, float{});
    else run(float{}, bf16{});
}

void attend_alone(int wide_queries, const void* queries, const bf16* keys, const bf16* values, int64_t slots,
                  const int64_t* looks, int64_t count, void* out, int64_t key_heads, int64_t group, int64_t width,
                  float scale, int threads) {
    const alone::Shape shape{key_heads, group, width, slots, scale};
    const auto* at = (const alone::Look*)looks;
    if (wide_queries) alone::attend((const float*)queries, keys, values, at, count, (float*)out, shape, threads);
    else alone::attend((const bf16*)queries, keys, values, at, count, (bf16*)out, shape, threads);
}

int64_t slots_read(const int64_t* looks, int64_t count) { return alone::Plan((const alone::Look*)looks, count).read(); }

void multiply(const rows::Product* product, int wide_in, const void* from, int64_t count, int wide, int add, void* to,
              int threads) {
    const rows::Target target{to, product->weights.out, wide != 0, add != 0};
    if (wide_in) rows::multiply(*product, (const float*)from, count, target, threads);
    else rows::multiply(*product, (const bf16*)from, count, target, threads);
}

void behind(const rows::Behind* layer, int wide, const void* attended, float* hidden, int64_t count, int threads) {
    if (wide) rows::behind(*layer, (const float*)attended, hidden, count, threads);
    else rows::behind(*layer, (const bf16*)attended, hidden, count, threads);
}

void place(float* heads, int64_t rows, int64_t queries, int64_t keys, int64_t width, const float* turns,
           const int64_t* at, bf16* store, int64_t slots, int threads) {
    const generate::Heads kinds{queries, keys, width};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++)
        generate::place(heads + row * kinds.all(), turns + row * width, at[row], kinds, store, slots);
}

void step(const generate::Decoder* decoder, bf16* store, int64_t all_slots, float* hidden, const float* turns,
          const int64_t* slots, int64_t rows, const int64_t* looks, int64_t count, float* logits, int threads) {
    generate::run(*decoder, {store, all_slots}, {hidden, turns, slots, rows}, (const alone::Look*)looks, count, logits, threads);
}
}
