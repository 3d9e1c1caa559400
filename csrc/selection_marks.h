// Which elements of a row reach a threshold: bits first, without a branch on the data, then the keys of the few that do.
// For *_kernels.cpp alone.
#pragma once

#include "selection_vec.h"

namespace groupcc {
namespace GROUPCC_ISA {

// Fetches what is needed soon, a cache line at a call, while the processor is busy with something else.
struct Ahead {
    const char* at;
    void fetch() {
        __builtin_prefetch(at);
        at += 64;
    }
};

template <class T>
struct Marks {
    using io = Io<T>;
    using V = typename io::V;
    using Acc = typename io::Acc;
    using O = Order<Acc>;
    using Key = typename O::Key;

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
        std::int64_t marked = 0;
        const std::int64_t n_blocks = L / 64;
        for (std::int64_t b = 0; b < n_blocks; ++b) {
            std::uint64_t m = 0;
#pragma GCC unroll 8
            for (int i = 0; i < lines; ++i) ahead.fetch();
#pragma GCC unroll 32
            for (int i = 0; i < 64; i += io::lanes) m |= lanes_where<ask>(io::load(row + b * 64 + i), t - V{}) << i;
            bits[marked] = m;
            blocks[marked] = std::uint32_t(b);
            marked += m != 0;
        }
        std::uint64_t m = 0;
        for (std::int64_t i = n_blocks * 64; i < L; ++i) m |= std::uint64_t(holds<ask>(io::get(row + i), t)) << i % 64;
        bits[marked] = m;
        blocks[marked] = std::uint32_t(n_blocks);
        n = marked + (m != 0);
    }

    // How many are marked.
    std::int64_t count() const {
        std::int64_t found = 0;
        for (std::int64_t g = 0; g < n; ++g) found += __builtin_popcountll(bits[g]);
        return found;
    }

    // The keys of what is marked, by rising index: their number, or limit + 1 where there are more than `limit`.
    std::int64_t gather(const T* row, Key* keys, std::int64_t limit) const {
        std::int64_t found = 0;
        for (std::int64_t g = 0; g < n; ++g) {
            std::uint64_t m = bits[g];
            if (found + __builtin_popcountll(m) > limit) return limit + 1;
            do {
                const std::int64_t i = std::int64_t(blocks[g]) * 64 + __builtin_ctzll(m);
                keys[found++] = O::key(O::of(io::get(row + i)), i);
                m &= m - 1;
            } while (m);
        }
        return found;
    }
};

}  // namespace GROUPCC_ISA
}  // namespace groupcc
