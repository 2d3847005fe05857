// A whole step of the decoder for a few rows, each of which generates: from embeddings to logits.
#pragma once

#include "alone.hpp"
#include "rows.hpp"

namespace generate {

using panels::Target;
using rows::Product;
using rows::together;

struct Heads {
    int64_t queries, keys, width;  // as many heads of values as of keys; features of each

    int64_t asked() const { return queries * width; }
    int64_t all() const { return asked() + 2 * keys * width; }
};

// As in structs.py.
struct Layer {
    Product heads;
    rows::Behind behind;
};

struct Decoder {
    const Layer* layers;
    int64_t count;
    Product head;
    Heads heads;
};

// Keys and values of all layers, in bfloat16: layer, side, head, slot, feature.
struct Store {
    bf16* numbers;
    int64_t slots;
};

// What a step is about: of each row its embedding, the turn of its position, the slot of its keys and values.
struct Batch {
    float* hidden;
    const float* turns;
    const int64_t* slots;
    int64_t rows;
};

// Pairs of features as complex numbers times the turn of their place.
inline void turn(float* head, const float* turns, int64_t width) {
    each(width, [&](int64_t w, auto mask) {
        const auto pair = load(head + w, mask), by = load(turns + w, mask);
        const auto swapped = _mm512_mul_ps(_mm512_permute_ps(pair, 0xB1), _mm512_movehdup_ps(by));
        store(head + w, mask, _mm512_fmaddsub_ps(pair, _mm512_moveldup_ps(by), swapped));
    });
}

// The heads of a row: queries and keys are turned, keys and values go into its slot of a layer.
inline void place(float* heads, const float* turns, int64_t slot, const Heads& count, bf16* keys, int64_t slots) {
    const int64_t width = count.width;
    for (int64_t head = 0; head < count.queries + count.keys; head++) turn(heads + head * width, turns, width);
    for (int64_t head = 0; head < 2 * count.keys; head++)
        to_bf16(heads + (count.queries + head) * width, keys + (head * slots + slot) * width, width);
}

// All layers and the head, by all threads of one region.
inline void run(const Decoder& decoder, const Store& store, const Batch& batch, const alone::Look* looks, int64_t count,
                float* logits, int threads) {
    const Heads& kinds = decoder.heads;
    const int64_t rows = batch.rows, width = decoder.head.weights.width, asked = kinds.asked(), all = kinds.all();
    const alone::Shape shape{kinds.keys, kinds.queries / kinds.keys, kinds.width, store.slots,
                             1 / std::sqrt((float)kinds.width)};
    const alone::Plan plan(looks, count);
    alone::Found found(plan, shape);
    int64_t deepest = decoder.head.weights.deep, widest = 0;
    for (int64_t i = 0; i < decoder.count; i++) {
        const auto& behind = decoder.layers[i].behind;
        deepest = std::max({deepest, behind.out.weights.deep, behind.down.weights.deep});
        widest = std::max(widest, behind.up.weights.out);
    }
    rows::Room room;
    room.hold(rows, deepest);
    Buffer<float> heads_room, queries_room, attended_room, between_room;
    float *heads = heads_room.hold(rows * all), *queries = queries_room.hold(rows * asked);
    float *attended = attended_room.hold(rows * asked), *between = between_room.hold(rows * widest);
    const Target onto{batch.hidden, width, true, true};
#pragma omp parallel num_threads(threads)
    {
        for (int64_t i = 0; i < decoder.count; i++) {
            const Layer& layer = decoder.layers[i];
            const int64_t side = kinds.keys * store.slots * kinds.width;
            bf16* keys = store.numbers + 2 * i * side;
            together(layer.heads, batch.hidden, width, rows, {heads, all, true, false}, room);
#pragma omp for schedule(static)
            for (int64_t row = 0; row < rows; row++) {
                place(heads + row * all, batch.turns + row * kinds.width, batch.slots[row], kinds, keys, store.slots);
                std::copy_n(heads + row * all, asked, queries + row * asked);
            }
            alone::together(queries, keys, keys + side, attended, shape, plan, found);
            const auto& [out, up, down] = layer.behind;
            together(out, attended, asked, rows, onto, room);
            together(up, batch.hidden, width, rows, {between, up.weights.out, true, false}, room);
            together(down, between, up.weights.out, rows, onto, room);
        }
        together(decoder.head, batch.hidden, width, rows, {logits, decoder.head.weights.out, true, false}, room);
    }
}

}  // namespace generate
