#include "latent_major.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "parallel.h"
#include "scratch.h"

namespace groupcc {

void check_indices(const std::int64_t* indices, std::int64_t count, std::int64_t L) {
    std::uint64_t largest = 0;  // a negative index is a huge one
    for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<std::uint64_t>(indices[i]));
    if (count == 0 || largest < static_cast<std::uint64_t>(L)) return;
    throw std::out_of_range("indices: expected 0 to L - 1 = " + std::to_string(L - 1) + "; got " +
                            std::to_string(static_cast<std::int64_t>(largest)) +
                            ". Pass the indices that ops.topk returns for this dictionary.");
}

template <class Acc>
LatentMajor<Acc> latent_major(const Acc* acts, const std::int64_t* indices, std::int64_t N, std::int64_t K,
                              std::int64_t L, std::int64_t chunk_rows, bool keep_zeros, int threads,
                              Scratch& scratch) {
    check_indices(indices, N * K, L);
    const std::int64_t chunks = N == 0 ? 0 : (N + chunk_rows - 1) / chunk_rows;
    const std::int64_t max_runs = std::min(L, std::min(chunk_rows, N) * K);
    threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, chunks)));
    Run* const runs = scratch.take<Run>(chunks * max_runs);
    std::int64_t* const n_runs = scratch.take<std::int64_t>(chunks);
    Entry<Acc>* const entries = scratch.take<Entry<Acc>>(N * K);
    std::int64_t* const position = keep_zeros ? scratch.take<std::int64_t>(N * K) : nullptr;
    std::int64_t* const ends = scratch.take<std::int64_t>(threads * L);
    parallel_for(chunks, threads, [&](std::int64_t first, std::int64_t last, int thread) {
        // Of each latent: first how many entries it has, then where its last one is.
        std::int64_t* const end = ends + thread * L;
        for (std::int64_t c = first; c < last; ++c) {
            const std::int64_t row = c * chunk_rows, rows = std::min(chunk_rows, N - row);
            const std::int64_t i0 = row * K, i1 = i0 + rows * K;
            std::fill(end, end + L, 0);
            for (std::int64_t i = i0; i < i1; ++i) end[indices[i]] += keep_zeros || acts[i] != 0;
            Run* const mine = runs + c * max_runs;
            std::int64_t count = 0, begin = i0;
            for (std::int64_t l = 0; l < L; ++l) {
                const std::int64_t n = end[l];
                end[l] = begin;
                if (n == 0) continue;
                mine[count++] = {l, begin, 0};
                entries[begin].row = -1;  // nothing there yet
                begin += n;
            }
            for (std::int64_t r = 0; r < rows; ++r) {
                for (std::int64_t i = i0 + r * K; i < i0 + (r + 1) * K; ++i) {
                    if (!keep_zeros && acts[i] == 0) continue;
                    std::int64_t& at = end[indices[i]];
                    if (entries[at].row == r) {
                        entries[at].act += acts[i];
                    } else {
                        at += entries[at].row >= 0;
                        entries[at] = {r, acts[i]};
                    }
                    if (position != nullptr) position[i] = at;
                }
            }
            for (std::int64_t run = 0; run < count; ++run) mine[run].end = end[mine[run].latent] + 1;
            n_runs[c] = count;
        }
    });
    return {chunks, max_runs, runs, n_runs, entries, position};
}

template LatentMajor<float> latent_major(const float*, const std::int64_t*, std::int64_t, std::int64_t, std::int64_t,
                                         std::int64_t, bool, int, Scratch&);
template LatentMajor<double> latent_major(const double*, const std::int64_t*, std::int64_t, std::int64_t, std::int64_t,
                                          std::int64_t, bool, int, Scratch&);

}  // namespace groupcc
