// Which elements of a row reach a threshold: bits first, without a branch on the data, then the few that do.
// For *_kernels.cpp alone.
#pragma once

#include "selection_vec.h"

namespace groupcc {
namespace GROUPCC_ISA {

template <class T>
struct Marks {
    using io = Io<T>;
    using V = typename io::V;
    using Acc = typename io::Acc;

    std::int64_t L, n;      // n: how many blocks of 64 elements have something marked
    std::uint64_t* bits;    // what is marked in each of these
    std::uint32_t* blocks;  // which blocks they are

    static std::size_t bytes(std::int64_t L) { return (std::size_t(L) / 64 + 1) * (sizeof *bits + sizeof *blocks); }

    void lay_out(char* base, std::int64_t n_latents) {
        L = n_latents, n = 0;
        bits = reinterpret_cast<std::uint64_t*>(base);
        blocks = reinterpret_cast<std::uint32_t*>(bits + L / 64 + 1);
    }

    // Marks the elements for which `ask` holds; `lines`: how many cache lines are fetched ahead at each block.
    template <Ask ask, int lines = (sizeof(T) + 1) / 2>
    void mark(const T* row, Acc t, Ahead& ahead) {
        start();
        for (std::int64_t b = 0; b < L / 64; ++b) {
#pragma GCC unroll 8
            for (int i = 0; i < lines; ++i) ahead.fetch();
            mark_block<ask>(row, t - V{}, b);
        }
        mark_rest<ask>(row, t, L / 64);
    }

    // The same in parts: start, the blocks in order, the elements after the last whole block or before it.
    void start() { n = 0; }

    template <Ask ask>
    void mark_block(const T* row, V t, std::int64_t block) {
        std::uint64_t m = 0;
#pragma GCC unroll 32
        for (int i = 0; i < 64; i += io::lanes) m |= lanes_where<ask>(io::load(row + block * 64 + i), t) << i;
        put(m, block);
    }

    template <Ask ask>
    void mark_rest(const T* row, Acc t, std::int64_t from_block) {
        for (; from_block < L / 64; ++from_block) mark_block<ask>(row, t - V{}, from_block);
        std::uint64_t m = 0;
        for (std::int64_t i = from_block * 64; i < L; ++i) m |= std::uint64_t(holds<ask>(io::get(row + i), t)) << i % 64;
        put(m, from_block);
    }

    void put(std::uint64_t m, std::int64_t block) {
        bits[n] = m;
        blocks[n] = std::uint32_t(block);
        n += m != 0;
    }

    // How many are marked.
    std::int64_t count() const {
        std::int64_t found = 0;
        for (std::int64_t g = 0; g < n; ++g) found += __builtin_popcountll(bits[g]);
        return found;
    }

    // Calls take(i) for each marked index i, rising, and returns how many; limit + 1 where there are more than `limit`.
    template <class Take>
    std::int64_t each(std::int64_t limit, const Take& take) const {
        std::int64_t found = 0;
        for (std::int64_t g = 0; g < n; ++g) {
            std::uint64_t m = bits[g];
            const std::int64_t base = std::int64_t(blocks[g]) * 64;
            found += __builtin_popcountll(m);
            if (found > limit) return limit + 1;
            do {
                take(base + __builtin_ctzll(m));
                m &= m - 1;
            } while (m);
        }
        return found;
    }
};

}  // namespace GROUPCC_ISA
}  // namespace groupcc
