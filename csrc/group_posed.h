// The latents of all examples in the order in which group_decode goes over them, and the ranges of columns that it takes
// one after another.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "group_decode.h"
#include "latent_major.h"
#include "scratch.h"
#include "tensor.h"

namespace groupcc {
namespace posed {

constexpr std::int64_t l1_bytes = std::int64_t{1} << 15;  // of a core's L1, for the latents or rows of a set
constexpr std::int64_t l2_bytes = std::int64_t{1} << 19;  // of its L2, for no more of them
constexpr std::int64_t chunk_bytes = std::int64_t{1} << 17;  // of its L2, for the rows of a chunk
constexpr std::int64_t block_bytes = std::int64_t{1} << 12;  // of a latent's blocks in a range of columns, about
constexpr std::int64_t narrowest = 64, widest_bytes = 256;  // ranges: one line of the cache at least
constexpr std::int64_t taken_together = 4;  // see group_decode_kernels.cpp

struct GroupProblem {
    const std::int64_t *indices, *poses;  // [N, K]
    const std::int32_t* table;            // [G, G]: row h is what pose h makes of the blocks
    std::int64_t N, K, L, G, D;
    int dtype, threads;
};

// indices, poses [N, K] and table int32 [G, G] as Python passes them.
inline GroupProblem group_problem(const Tensor& indices, const Tensor& poses, const Tensor& table, std::int64_t L,
                                  std::int64_t D, int dtype, int threads) {
    const auto [N, K] = shape_of<2>(indices, "indices");
    const std::int64_t G = shape_of<2>(table, "table")[0];
    return {elements<std::int64_t>(indices, "indices", Dtype::int64, {N, K}),
            elements<std::int64_t>(poses, "poses", Dtype::int64, {N, K}),
            elements<std::int32_t>(table, "table", Dtype::int32, {G, G}),
            N, K, L, G, D, dtype, threads};
}

inline void check(const GroupProblem& p) {
    check_indices(p.indices, p.N * p.K, p.L);
    for (std::int64_t i = 0; i < p.N * p.K; ++i) {
        if (static_cast<std::uint64_t>(p.poses[i]) < static_cast<std::uint64_t>(p.G)) continue;
        throw std::out_of_range("poses: expected 0 to G - 1 = " + std::to_string(p.G - 1) + "; got " +
                                std::to_string(p.poses[i]) + ". Pass elements of the group.");
    }
}

// Column ranges of the blocks: range t begins at t · widest, and lies packed at [t · widest · rows] of its array.
struct Ranges {
    std::int64_t D, lanes, widest;
    Ranges(const GroupProblem& p, bool wide) : D(p.D), lanes(group_decode_kernels().lanes[wide]) {
        std::int64_t bytes = widest_bytes;
        while (bytes > narrowest && bytes * p.G > block_bytes) bytes /= 2;
        widest = std::min(bytes / (wide ? 8 : 4), std::max(lanes, padded()));  // of no columns there are no ranges
    }
    std::int64_t padded() const { return (D + lanes - 1) / lanes * lanes; }
    std::int64_t count() const { return (padded() + widest - 1) / widest; }
    std::int64_t columns(std::int64_t t) const { return std::min(widest, D - t * widest); }
    std::int64_t width(std::int64_t t) const { return std::min(widest, padded() - t * widest); }
};

// How many rows go over a range together.
inline std::int64_t rows_of_chunk(std::int64_t block, std::int64_t size) {
    const std::int64_t bytes = std::max<std::int64_t>(1, block * size);
    return std::max<std::int64_t>(1, std::min<std::int64_t>(64, chunk_bytes / bytes));
}

// How many of something, `block` elements each, make a set: as many as give what goes over it enough to be taken
// together, of `all` that have `per` in each, but no fewer than L1 holds and no more than L2 does.
inline std::int64_t set_size(std::int64_t all, std::int64_t per, std::int64_t block, std::int64_t size) {
    const std::int64_t bytes = std::max<std::int64_t>(1, block * size);
    const std::int64_t wanted = taken_together * all / std::max<std::int64_t>(1, per);
    return std::max({std::int64_t{1}, l1_bytes / bytes, std::min(wanted, l2_bytes / bytes)});
}

// Where poses find blocks, for ranges of either width.
class Offsets {
public:
    Offsets(const GroupProblem& p, const Ranges& ranges, std::int64_t size, Scratch& scratch)
        : ranges_(ranges), G_(p.G), table_(scratch.take<std::uint16_t>(2 * p.G * p.G)) {
        const std::int64_t widths[]{ranges.widest, ranges.count() == 0 ? 0 : ranges.width(ranges.count() - 1)};
        for (std::int64_t which = 0; which < 2; ++which) {
            const std::int64_t units = widths[which] * size / 8;
            if ((p.G - 1) * units > 0xffff) throw std::invalid_argument("G: expected at most 8192 elements");
            for (std::int64_t i = 0; i < p.G * p.G; ++i) {
                table_[which * p.G * p.G + i] = static_cast<std::uint16_t>(p.table[i] * units);
            }
        }
    }
    Blocks blocks(const void* packed, std::int64_t t) const {
        const bool last = t == ranges_.count() - 1;
        return {packed, table_ + (last ? G_ * G_ : 0), G_, ranges_.width(t)};
    }

private:
    const Ranges& ranges_;
    std::int64_t G_;
    std::uint16_t* table_;
};

// The latents of all examples, sorted by a key: those of key i are [starts[i], starts[i + 1]), of which those before
// zeros[i] have an act other than 0. Without acts, all are counted as 0.
template <class Acc>
struct Sorted {
    const std::int64_t *starts, *zeros;
    const Posed<Acc>* posed;
};

// key(n, l) and base(n, l) of each latent l of example n.
template <class Acc, class Key, class Base>
Sorted<Acc> sorted_by(const GroupProblem& p, const Acc* acts, std::int64_t keys, Scratch& scratch, const Key& key,
                      const Base& base) {
    std::int64_t* const starts = scratch.take<std::int64_t>(keys + 1);
    std::int64_t* const zeros = scratch.take<std::int64_t>(keys);
    std::int64_t* const next = scratch.take<std::int64_t>(2 * keys);
    Posed<Acc>* const posed = scratch.take<Posed<Acc>>(p.N * p.K);
    const std::int64_t *const indices = p.indices, *const poses = p.poses;
    std::fill(starts, starts + keys + 1, std::int64_t{0});
    std::fill(zeros, zeros + keys, std::int64_t{0});
    const auto is_zero = [&](std::int64_t i) { return acts == nullptr || acts[i] == 0; };
    for (std::int64_t i = 0; i < p.N * p.K; ++i) {
        const std::int64_t at_key = key(i / p.K, indices[i]);
        ++starts[at_key + 1];
        zeros[at_key] += !is_zero(i);
    }
    for (std::int64_t i = 0; i < keys; ++i) {
        starts[i + 1] += starts[i];
        zeros[i] += starts[i];
        next[2 * i] = starts[i];
        next[2 * i + 1] = zeros[i];
    }
    for (std::int64_t i = 0; i < p.N * p.K; ++i) {
        const std::int64_t n = i / p.K, l = indices[i];
        posed[next[2 * key(n, l) + is_zero(i)]++] = {acts == nullptr ? Acc{0} : acts[i],
                                                     static_cast<std::int32_t>(base(n, l)),
                                                     static_cast<std::int32_t>(poses[i]),
                                                     static_cast<std::int32_t>(i % p.K)};
    }
    return {starts, zeros, posed};
}

// The way of chunks of rows over sets of latents: visit(entries of row and set) in the same order for any threads.
template <class Acc>
class Sets {
public:
    Sets(const GroupProblem& p, const Acc* acts, std::int64_t chunk_rows, std::int64_t block, Scratch& scratch)
        : rows_(chunk_rows), latents_(set_size(p.L, p.K, block, sizeof(Acc))), sets_((p.L + latents_ - 1) / latents_) {
        const std::int64_t chunks = (p.N + rows_ - 1) / rows_;
        sorted_ = sorted_by(
            p, acts, chunks * sets_ * rows_, scratch,
            [&](std::int64_t n, std::int64_t l) { return key(n, l / latents_); },
            [](std::int64_t, std::int64_t l) { return l; });
    }
    std::int64_t count() const { return sets_; }
    std::int64_t key(std::int64_t n, std::int64_t set) const {
        return (n / rows_ * sets_ + set) * rows_ + n % rows_;
    }
    const Sorted<Acc>& sorted() const { return sorted_; }

private:
    std::int64_t rows_, latents_, sets_;
    Sorted<Acc> sorted_;
};

}  // namespace posed
}  // namespace groupcc
