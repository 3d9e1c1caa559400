// The entries of acts [N, K], indices [N, K] sorted by latent, so that each row of W_dec is read once.
#pragma once

#include <cstdint>

namespace groupcc {

class Scratch;

// Entries [begin, end) belong to `latent`.
struct Run {
    std::int64_t latent, begin, end;
};

template <class Acc>
struct Entry {
    std::int64_t row;  // counted from its chunk's first
    Acc act;
};

// Rows are indexed in chunks of `chunk_rows`; chunk c has runs [c · max_runs, c · max_runs + n_runs[c]), by rising
// latent, and the entries of a run are in row order. Entries of one row with the same latent are one, their acts
// summed; entry positions go up to N·K, with gaps where some were joined or left out.
template <class Acc>
struct LatentMajor {
    std::int64_t chunks, max_runs;
    const Run* runs;
    const std::int64_t* n_runs;
    const Entry<Acc>* entries;
    const std::int64_t* position;  // [N, K]: where the entry of (row, k) is; only with keep_zeros
};

// Counting sort. Entries of act 0 are left out unless `keep_zeros`. Throws std::out_of_range for an index outside
// [0, L). The result lives in `scratch`.
template <class Acc>
LatentMajor<Acc> latent_major(const Acc* acts, const std::int64_t* indices, std::int64_t N, std::int64_t K,
                              std::int64_t L, std::int64_t chunk_rows, bool keep_zeros, int threads, Scratch& scratch);

// Throws std::out_of_range for an index outside [0, L).
void check_indices(const std::int64_t* indices, std::int64_t count, std::int64_t L);

}  // namespace groupcc
