// Attention of single tokens, each to keys that lie in rows: as fast as they come from memory, where those that
// several tokens look at are read once.
#pragma once

#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "attention.hpp"

namespace alone {

// Where a token stands among the queries, and slots that it looks at. The looks of a token follow each other.
struct Look {
    int64_t row, begin, end;
};

struct Shape {
    int64_t key_heads, group, width, slots;  // slots: of the store, for each head
    float scale;
};

constexpr int64_t MOST = 256;  // keys in a piece

// Slots that some tokens look at together. Each finds something of its own there: these results follow each other.
struct Piece {
    int64_t begin, end, first, members;
};

// Who looks at what, and where results are: of each the row of its token, and those of each token in the order of
// its looks.
struct Plan {
    std::vector<Piece> pieces;
    std::vector<int64_t> rows, results, starts;

    // Looks are cut every MOST slots from where they begin: so those of several tokens have pieces in common, and
    // threads have something to do. What a token finds hangs neither on threads nor on whom it shares a piece with.
    Plan(const Look* looks, int64_t count) {
        std::vector<Look> cuts;
        for (const Look* look = looks; look < looks + count; look++) {
            if (look == looks || look->row != look[-1].row) starts.push_back(cuts.size());
            for (int64_t at = look->begin; at < look->end; at += MOST)
                cuts.push_back({look->row, at, std::min(look->end, at + MOST)});
        }
        starts.push_back(cuts.size());
        std::vector<int64_t> order(cuts.size());
        std::iota(order.begin(), order.end(), 0);
        const auto lies = [&](int64_t cut) { return std::tie(cuts[cut].begin, cuts[cut].end); };
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lies(a) < lies(b); });
        results.resize(order.size());
        for (const int64_t cut : order) {
            if (rows.empty() || lies(cut) != std::tie(pieces.back().begin, pieces.back().end))
                pieces.push_back({cuts[cut].begin, cuts[cut].end, (int64_t)rows.size(), 0});
            pieces.back().members++;
            results[cut] = rows.size();
            rows.push_back(cuts[cut].row);
        }
    }

    int64_t tokens() const { return starts.size() - 1; }

    // Slots that are read for each head of the keys.
    int64_t read() const {
        int64_t sum = 0;
        for (const auto& piece : pieces) sum += piece.end - piece.begin;
        return sum;
    }
};

// What pieces give, head by head of the keys, for each query head of each result: attention, and the log of the sum.
struct Found {
    Buffer<float> mixed, sums;

    Found(const Plan& plan, const Shape& shape) {
        const int64_t heads = plan.rows.size() * shape.key_heads * shape.group;
        mixed.hold(heads * shape.width);
        sums.hold(heads);
    }
};

// Results put together for one of the query heads of one head of the keys, whose results begin at `at`.
template <class O>
void merge(const Found& found, const int64_t* results, int64_t count, int64_t at, const Shape& shape, O* to) {
    static thread_local Buffer<float> buffer;
    float *weigh = buffer.hold(count), largest = -std::numeric_limits<float>::infinity(), sum = 0;
    const int64_t width = shape.width;
    const auto place = [&](int64_t i) { return at + results[i] * shape.group; };
    for (int64_t i = 0; i < count; i++) largest = std::max(largest, found.sums.data()[place(i)]);
    for (int64_t i = 0; i < count; i++) sum += weigh[i] = std::exp(found.sums.data()[place(i)] - largest);
    for (int64_t w = 0; w < width; w += LANES) {
        const auto mask = lanes(width - w);
        auto number = _mm512_setzero_ps();
        for (int64_t i = 0; i < count; i++)
            number = _mm512_fmadd_ps(load(found.mixed.data() + place(i) * width + w, mask),
                                     _mm512_set1_ps(weigh[i] / sum), number);
        store(to + w, mask, number);
    }
}

// What Q queries find in `count` keys, which are read where they lie. Sums are added up in the order of features and of
// keys, whatever Q is.
template <int Q>
void one_piece(const bf16* asking, const bf16* keys, const bf16* values, int64_t count, int64_t width, float scale,
              float* out, float* sums) {
    static thread_local Buffer<float> score_buffer;
    static thread_local Buffer<bf16> share_buffer;
    const int64_t half = width / 2, padded = whole(count, LANES);
    float* scores = score_buffer.hold(Q * padded);
    bf16* shares = share_buffer.hold(Q * padded);
    const auto* pairs = (const int32_t*)asking;
    for (int64_t k = 0; k < count; k += LANES) {
        attention::ask_for(keys + (k + attention::AHEAD) * width, width, LANES, width);
        __m512 sum[Q];
        UNROLL for (int q = 0; q < Q; q++) sum[q] = _mm512_setzero_ps();
        for (int64_t pair = 0; pair < half; pair += LANES) {
            __m512i square[LANES];
            attention::turned_keys(keys + k * width, width, count - k, pair, width, square);
            const int64_t filled = std::min(LANES, half - pair);
            UNROLL for (int64_t i = 0; i < LANES; i++)
                if (i < filled)
                    UNROLL for (int q = 0; q < Q; q++)
                        sum[q] = _mm512_dpbf16_ps(sum[q], (__m512bh)_mm512_set1_epi32(pairs[q * half + pair + i]),
                                                  (__m512bh)square[i]);
        }
        UNROLL for (int q = 0; q < Q; q++) _mm512_storeu_ps(scores + q * padded + k, sum[q]);
    }
    float divide[Q];
    for (int q = 0; q < Q; q++) {
        float largest;
        divide[q] = attention::shares_of(scores + q * padded, shares + q * padded, count, padded,
                                         scale / attention::LN2, largest);
        sums[q] = largest * attention::LN2 + std::log(divide[q]);
    }
    for (int64_t w = 0; w < width; w += 4 * LANES) {
        __m512 sum[Q][4];
        UNROLL for (int q = 0; q < Q; q++)
            UNROLL for (int i = 0; i < 4; i++) sum[q][i] = _mm512_setzero_ps();
        for (int64_t k = 0; k < count; k += 2) {
            const bf16 *even = values + k * width + w, *odd = k + 1 < count ? even + width : even;  // whose share is 0
            attention::ask_for(even + attention::AHEAD * width, width, 2, std::min(4 * LANES, width - w));
            UNROLL for (int i = 0; i < 4; i += 2) {
                const int64_t left = width - w - i * LANES;
                const auto one = pairs_of(even + i * LANES, left), two = pairs_of(odd + i * LANES, left);
                const auto low = (__m512bh)side_by_side(one, two, 0), high = (__m512bh)side_by_side(one, two, LANES);
                UNROLL for (int q = 0; q < Q; q++) {
                    const auto share = (__m512bh)_mm512_set1_epi32(*(const int32_t*)(shares + q * padded + k));
                    sum[q][i] = _mm512_dpbf16_ps(sum[q][i], share, low);
                    sum[q][i + 1] = _mm512_dpbf16_ps(sum[q][i + 1], share, high);
                }
            }
        }
        UNROLL for (int q = 0; q < Q; q++)
            UNROLL for (int i = 0; i < 4; i++) {
                const int64_t at = w + LANES * i;
                store(out + q * width + at, lanes(width - at), _mm512_mul_ps(sum[q][i], _mm512_set1_ps(1 / divide[q])));
            }
    }
}

// By all threads of a parallel region: rows of attention, a token after the other as they come in the looks.
template <class Q, class O>
void together(const Q* queries, const bf16* keys, const bf16* values, O* out, const Shape& shape, const Plan& plan,
              Found& found) {
    const int64_t group = shape.group, heads = shape.key_heads * group, width = shape.width, all = plan.rows.size();
#pragma omp for collapse(2) schedule(dynamic)
    for (size_t number = 0; number < plan.pieces.size(); number++)
        for (int64_t head = 0; head < shape.key_heads; head++) {
            const Piece& piece = plan.pieces[number];
            const int64_t first = piece.first, members = piece.members, count = piece.end - piece.begin;
            static thread_local Buffer<bf16> buffer;
            bf16* asking = buffer.hold(members * group * width);
            for (int64_t i = 0; i < members; i++)
                to_bf16(queries + (plan.rows[first + i] * heads + head * group) * width, asking + i * group * width,
                        group * width);
            const int64_t from = (head * shape.slots + piece.begin) * width, at = (head * all + first) * group;
            const int64_t asked = members * group;
            for (int64_t done = 0; done < asked;)
                with_largest<6, 5, 4, 3, 2, 1>(asked - done, [&](auto q) {
                    one_piece<q.value>(asking + done * width, keys + from, values + from, count, width, shape.scale,
                                       found.mixed.data() + (at + done) * width, found.sums.data() + at + done);
                    done += q.value;
                });
        }
#pragma omp for collapse(2) schedule(static)
    for (int64_t token = 0; token < plan.tokens(); token++)
        for (int64_t head = 0; head < heads; head++) {
            const int64_t start = plan.starts[token];
            merge(found, plan.results.data() + start, plan.starts[token + 1] - start,
                  head / group * all * group + head % group, shape, out + (token * heads + head) * width);
        }
}

template <class Q>
void attend(const Q* queries, const bf16* keys, const bf16* values, const Look* looks, int64_t count, Q* out,
            const Shape& shape, int threads) {
    const Plan plan(looks, count);
    Found found(plan, shape);
#pragma omp parallel num_threads(threads)
    together(queries, keys, values, out, shape, plan, found);
}

}  // namespace alone
