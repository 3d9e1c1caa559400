// Sorting keys and finding the k-th largest value. For *_kernels.cpp alone.
#pragma once

#include "selection_vec.h"

namespace groupcc {
namespace GROUPCC_ISA {

// Keys are ranked in blocks of this many, by counting for each how many are larger; blocks are then merged.
constexpr std::int64_t ranked_at_once = 128;

// Each of n ≤ ranked_at_once different keys whose rank is below k is written to out[rank]. `keys` has room for
// ranked_at_once, and is written to beyond n.
inline void rank(std::uint64_t* keys, std::int64_t n, std::int64_t k, std::uint64_t* out) {
    typedef std::uint64_t Vec __attribute__((vector_size(GROUPCC_BYTES)));
    constexpr int lanes = GROUPCC_BYTES / 8, together = 4, block = lanes * together;
    for (std::int64_t i = n; i % block; ++i) keys[i] = 0;  // ranks after every key
    for (std::int64_t from = 0; from < n; from += block) {
        Vec own[together], larger[together] = {};
        for (int j = 0; j < together; ++j) own[j] = load_bytes<Vec>(keys + from + j * lanes);
        for (std::int64_t i = 0; i < n; ++i) {
            for (int j = 0; j < together; ++j) {
#if defined(GROUPCC_ISA_AVX512)
                const __m512i x = _mm512_set1_epi64((long long)keys[i]);
                const __mmask8 is = _mm512_cmpgt_epu64_mask(x, (__m512i)own[j]);
                larger[j] = (Vec)_mm512_mask_add_epi64((__m512i)larger[j], is, (__m512i)larger[j], _mm512_set1_epi64(1));
#else
                const Vec x = keys[i] - Vec{};
                larger[j] -= (Vec)(x > own[j]);
#endif
            }
        }
        for (int j = 0; j < block; ++j) {
            const std::uint64_t at = larger[j / lanes][j % lanes];
            if (at < std::uint64_t(k)) out[at] = keys[from + j];
        }
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
        std::uint64_t block[ranked_at_once];
        const std::int64_t m = n - i < ranked_at_once ? n - i : ranked_at_once;
        __builtin_memcpy(block, keys + i, std::size_t(m) * sizeof *keys);
        rank(block, m, m, out + i);
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

constexpr int digit_bits = 11, n_digits = 1 << digit_bits;
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
