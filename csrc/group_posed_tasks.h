// How group_decode_loss and group_encode_at go over examples and latents in threads: packed columns of W, tasks, and the
// inner products that tasks leave.
#pragma once

#include <algorithm>

#include "group_posed.h"
#include "parallel.h"

namespace groupcc {
namespace posed {

// W [L, G, D] packed, range after range.
template <class Acc>
Acc* pack_all(const void* W, const GroupProblem& p, const Ranges& ranges, Scratch& scratch) {
    const auto pack = group_decode_kernels().pack[p.dtype];
    const std::int64_t rows = p.L * p.G;
    Acc* const packed = scratch.take<Acc>(rows * ranges.padded());
    parallel_for(ranges.count() * p.L, p.threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t t = i / p.L, l = i % p.L, column = t * ranges.widest;
            pack(static_cast<const char*>(W) + (l * p.G * p.D + column) * size_of(p.dtype),
                 packed + column * rows + l * p.G * ranges.width(t), p.G, p.D, ranges.columns(t), ranges.width(t));
        }
    });
    return packed;
}

// visit(range, first row, last row, thread) for every range and chunk of rows. A thread stays with a range.
template <class Visit>
void each_task(const GroupProblem& p, const Ranges& ranges, std::int64_t chunk_rows, const Visit& visit) {
    const std::int64_t chunks = (p.N + chunk_rows - 1) / chunk_rows;
    parallel_for(ranges.count() * chunks, p.threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t first = i % chunks * chunk_rows;
            visit(i / chunks, first, std::min(first + chunk_rows, p.N), thread);
        }
    });
}

// Asks for part `part` of `parts` of a row's blocks, which the CPU's own prefetching does not see coming: `columns`
// elements of each, a block `stride` elements after the other.
inline void ask_for(const void* row, std::int64_t part, std::int64_t parts, std::int64_t blocks, std::int64_t stride,
                    std::int64_t columns, std::int64_t size) {
    const char* const from = static_cast<const char*>(row);
    for (std::int64_t g = blocks * part / parts; g < blocks * (part + 1) / parts; ++g) {
        const char* const block = from + g * stride * size;
        for (std::int64_t byte = 0; byte < columns * size; byte += 64) __builtin_prefetch(block + byte, 0, 2);
    }
}

// What each range adds to the inner products of examples and their latents, and each chunk to the sums of columns.
template <class Acc>
class Answers {
public:
    Answers(const GroupProblem& p, const Ranges& ranges, std::int64_t chunk_rows, Acc* dots, Acc* column_sums,
            Scratch& scratch)
        : p_(p), ranges_(ranges), rows_(chunk_rows), dots_(dots), column_sums_(column_sums) {
        if (dots != nullptr) by_range_ = scratch.take<Acc>(ranges.count() * p.N * p.K);
        if (column_sums != nullptr) by_chunk_ = scratch.take<double>(chunks() * ranges.padded());
    }

    // Where the sums of a chunk's columns are gathered, in range t: [width], 0 at first; or null.
    double* columns(std::int64_t t, std::int64_t first) const {
        if (column_sums_ == nullptr) return nullptr;
        double* const sums = by_chunk_ + first / rows_ * ranges_.padded() + t * ranges_.widest;
        std::fill(sums, sums + ranges_.width(t), 0.0);
        return sums;
    }

    // Of rows x [last - first, G, width] of range t, packed.
    void add(const Sets<Acc>& sets, const Blocks& W, std::int64_t t, std::int64_t first, std::int64_t last,
             const Acc* x) const {
        const auto dot = group_decode_kernels().dot[sizeof(Acc) == 8];
        const Sorted<Acc>& sorted = sets.sorted();
        const std::int64_t block = p_.G * W.width;
        for (std::int64_t set = 0; dots_ != nullptr && set < sets.count(); ++set) {
            for (std::int64_t n = first; n < last; ++n) {
                const std::int64_t key = sets.key(n, set), start = sorted.starts[key];
                dot(sorted.posed + start, sorted.starts[key + 1] - start, W, x + (n - first) * block,
                    by_range_ + (t * p_.N + n) * p_.K);
            }
        }
    }

    void finish() const {
        if (dots_ != nullptr) {
            parallel_for(p_.N * p_.K, p_.threads, [&](std::int64_t begin, std::int64_t end, int) {
                for (std::int64_t i = begin; i < end; ++i) {
                    double sum = 0;  // of many ranges: one fp32 sum would lose digits
                    for (std::int64_t t = 0; t < ranges_.count(); ++t) sum += by_range_[t * p_.N * p_.K + i];
                    dots_[i] = static_cast<Acc>(sum);
                }
            });
        }
        for (std::int64_t m = 0; column_sums_ != nullptr && m < p_.D; ++m) {
            double sum = 0;
            for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) sum += by_chunk_[chunk * ranges_.padded() + m];
            column_sums_[m] = static_cast<Acc>(sum);
        }
    }

private:
    std::int64_t chunks() const { return (p_.N + rows_ - 1) / rows_; }
    const GroupProblem& p_;
    const Ranges& ranges_;
    std::int64_t rows_;
    Acc *dots_, *column_sums_, *by_range_ = nullptr;
    double* by_chunk_ = nullptr;
};

}  // namespace posed
}  // namespace groupcc
