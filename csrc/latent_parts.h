// How gradients go over a latent-major index of one chunk: parts for threads, and the latents that it leaves out.
#pragma once

#include <cstring>

#include "latent_major.h"
#include "parallel.h"

namespace groupcc {

// The first run of part `part` of `parts` of an index of one chunk, of about equal cost.
template <class Acc>
std::int64_t part_begin(const LatentMajor<Acc>& index, std::int64_t part, std::int64_t parts) {
    constexpr std::int64_t row_cost = 4;  // of reading and writing a latent's rows, in entries
    const std::int64_t n = index.chunks == 0 ? 0 : index.n_runs[0];
    const auto cost = [&](std::int64_t run) { return index.runs[run].begin + row_cost * run; };
    if (part == parts || n == 0) return n;
    const std::int64_t wanted = (cost(n - 1) + row_cost) / parts * part;
    std::int64_t low = 0, high = n;
    while (low < high) {
        const std::int64_t middle = (low + high) / 2;
        if (cost(middle) < wanted) low = middle + 1; else high = middle;
    }
    return low;
}

// Zeroes the rows of `rows` [L, row_bytes] of the latents that an index of one chunk has no run of.
template <class Acc>
void zero_unused(const LatentMajor<Acc>& index, void* rows, std::int64_t row_bytes, std::int64_t L, int threads) {
    const std::int64_t n = index.chunks == 0 ? 0 : index.n_runs[0];
    parallel_for(n + 1, threads, [&](std::int64_t first, std::int64_t last, int) {
        for (std::int64_t run = first; run < last; ++run) {  // the latents before it
            const std::int64_t begin = run == 0 ? 0 : index.runs[run - 1].latent + 1;
            const std::int64_t end = run == n ? L : index.runs[run].latent;
            std::memset(static_cast<char*>(rows) + begin * row_bytes, 0, (end - begin) * row_bytes);
        }
    });
}

}  // namespace groupcc
