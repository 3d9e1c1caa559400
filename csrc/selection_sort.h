// Sorting keys and finding the k-th largest value. For *_kernels.cpp alone.
#pragma once

#include "selection.h"
#include "selection_vec.h"

namespace groupcc {
namespace GROUPCC_ISA {

// So many values are ranked by counting for each how many come before it; more are sorted in blocks and merged.
constexpr std::int64_t ranked_at_once = 128;

// Lanes of r plus 1 where x > y; likewise x == y in the lanes from `first` on.
#if defined(GROUPCC_ISA_AVX512)
inline vuint plus_more(vuint r, std::uint32_t x, vuint y) {
    const __mmask16 is = _mm512_cmpgt_epu32_mask(_mm512_set1_epi32(int(x)), (__m512i)y);
    return (vuint)_mm512_mask_sub_epi32((__m512i)r, is, (__m512i)r, _mm512_set1_epi32(-1));
}
inline vuint plus_same(vuint r, std::uint32_t x, vuint y, std::int64_t first) {
    const __mmask16 is = _mm512_mask_cmpeq_epu32_mask(__mmask16(0xffffu << first), _mm512_set1_epi32(int(x)), (__m512i)y);
    return (vuint)_mm512_mask_sub_epi32((__m512i)r, is, (__m512i)r, _mm512_set1_epi32(-1));
}
inline vulong plus_more(vulong r, std::uint64_t x, vulong y) {
    const __mmask8 is = _mm512_cmpgt_epu64_mask(_mm512_set1_epi64((long long)x), (__m512i)y);
    return (vulong)_mm512_mask_sub_epi64((__m512i)r, is, (__m512i)r, _mm512_set1_epi64(-1));
}
inline vulong plus_same(vulong r, std::uint64_t x, vulong y, std::int64_t first) {
    const __mmask8 is = _mm512_mask_cmpeq_epu64_mask(__mmask8(0xffu << first), _mm512_set1_epi64((long long)x), (__m512i)y);
    return (vulong)_mm512_mask_sub_epi64((__m512i)r, is, (__m512i)r, _mm512_set1_epi64(-1));
}
#else
template <class V, class X>
inline V plus_more(V r, X x, V y) {
    return r - (V)(x - V{} > y);
}
template <class V, class X>
inline V plus_same(V r, X x, V y, std::int64_t first) {
    V lane;
    for (unsigned i = 0; i < sizeof lane / sizeof lane[0]; ++i) lane[i] = i;
    return r - ((V)(x - V{} == y) & (V)(lane >= X(first) - V{}));
}
#endif

vuint vector_of(std::uint32_t);
vulong vector_of(std::uint64_t);

// ranks[i]: how many of n values are larger than values[i], or equal to it and before it. All values are above 0;
// `values` and `ranks` have room for ranked_at_once, and are written to beyond n.
template <class Value>
inline void rank(Value* values, std::int64_t n, Value* ranks, Ahead& ahead) {
    using V = decltype(vector_of(Value()));
    constexpr std::int64_t lanes = sizeof(V) / sizeof(Value), block = 2 * lanes;
    for (std::int64_t i = n; i % block; ++i) values[i] = 0;
    for (std::int64_t from = 0; from < n; from += block) {
        const V a = load_bytes<V>(values + from), b = load_bytes<V>(values + from + lanes);
        V ra = {}, rb = {};
        std::int64_t i = 0;
        for (; i < from; ++i) {  // equal ones before the block count too: x ≥ y, which is x + 1 > y
            if (i % 2) ahead.fetch();
            ra = plus_more(ra, Value(values[i] + 1), a);
            rb = plus_more(rb, Value(values[i] + 1), b);
        }
        const std::int64_t end = from + block < n ? from + block : n;
        for (; i < end; ++i) {
            ra = plus_more(ra, values[i], a);
            rb = plus_more(rb, values[i], b);
            if (i < from + lanes) {
                ra = plus_same(ra, values[i], a, i - from + 1);
                rb = plus_same(rb, values[i], b, 0);
            } else {
                rb = plus_same(rb, values[i], b, i - from - lanes + 1);
            }
        }
        for (; i < n; ++i) {
            if (i % 2) ahead.fetch();
            ra = plus_more(ra, values[i], a);
            rb = plus_more(rb, values[i], b);
        }
        __builtin_memcpy(ranks + from, &ra, sizeof ra);
        __builtin_memcpy(ranks + from + lanes, &rb, sizeof rb);
    }
}

template <class Key>
inline void merge(const Key* a, const Key* a_end, const Key* b, const Key* b_end, Key* out) {
    while (a < a_end && b < b_end) {
        const bool first = *a > *b;
        *out++ = first ? *a : *b;
        a += first;
        b += !first;
    }
    while (a < a_end) *out++ = *a++;
    while (b < b_end) *out++ = *b++;
}

inline std::int64_t sort_blocks(std::uint64_t* keys, std::int64_t n, std::uint64_t* out) {
    for (std::int64_t i = 0; i < n; i += ranked_at_once) {
        std::uint64_t block[ranked_at_once], ranks[ranked_at_once];
        const std::int64_t m = n - i < ranked_at_once ? n - i : ranked_at_once;
        __builtin_memcpy(block, keys + i, std::size_t(m) * sizeof *keys);
        Ahead nothing{reinterpret_cast<const char*>(keys)};
        rank(block, m, ranks, nothing);
        for (std::int64_t j = 0; j < m; ++j) out[i + std::int64_t(ranks[j])] = block[j];
    }
    return ranked_at_once;
}

__extension__ typedef unsigned __int128 Key128;

inline std::int64_t sort_blocks(Key128* keys, std::int64_t n, Key128* out) {
    constexpr std::int64_t width = 16;
    for (std::int64_t begin = 0; begin < n; begin += width) {
        for (std::int64_t i = begin; i < n && i < begin + width; ++i) {
            std::int64_t at = i;
            for (; at > begin && out[at - 1] < keys[i]; --at) out[at] = out[at - 1];
            out[at] = keys[i];
        }
    }
    return width;
}

// n different keys, falling: returns where they are, `keys` or `spare`.
template <class Key>
inline Key* sorted(Key* keys, Key* spare, std::int64_t n) {
    std::int64_t width = sort_blocks(keys, n, spare);
    Key *from = spare, *to = keys;
    for (; width < n; width *= 2) {
        for (std::int64_t i = 0; i < n; i += 2 * width) {
            const std::int64_t middle = i + width < n ? i + width : n, end = i + 2 * width < n ? i + 2 * width : n;
            merge(from + i, from + middle, from + middle, from + end, to + i);
        }
        Key* const swap = from;
        from = to;
        to = swap;
    }
    return from;
}

constexpr std::size_t histogram_bytes = 4 * n_digits * sizeof(std::uint32_t);

// The k-th largest of value(0) … value(n - 1), unsigned integers; k from 1 to n < 2^32. One digit a pass, the highest
// first; four histograms in turn, so that equal values don't wait for one counter.
template <class Value, class Get>
inline Value kth_largest(std::int64_t n, std::int64_t k, std::uint32_t* histogram, const Get& value) {
    Value known = 0, mask = 0;
    int shift = int(sizeof(Value)) * 8;
    while (shift > 0) {
        const int bits = shift < digit_bits ? shift : digit_bits;
        shift -= bits;
        __builtin_memset(histogram, 0, histogram_bytes);
        for (std::int64_t i = 0; i < n; ++i) {
            const Value v = value(i);
            if ((v & mask) == known) ++histogram[(i & 3) * n_digits + (v >> shift & ((1 << bits) - 1))];
        }
        Value digit = Value(1) << bits;
        std::int64_t here = 0;
        do {
            --digit;
            k -= here;
            here = std::int64_t(histogram[digit]) + histogram[n_digits + digit] + histogram[2 * n_digits + digit] +
                   histogram[3 * n_digits + digit];
        } while (here < k);
        known |= digit << shift;
        mask |= ((Value(1) << bits) - 1) << shift;
    }
    return known;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
