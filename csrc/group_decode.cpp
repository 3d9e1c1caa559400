// group_decode: acts [N, K], indices, poses [N, K], W [L, G, D] → sums of translated blocks, and their gradients.
#include "group_decode.h"

#include <algorithm>
#include <cstring>

#include "bindings.h"
#include "group_posed.h"
#include "parallel.h"
#include "scalar.h"
#include "scratch.h"

namespace groupcc {
namespace {

using namespace posed;

constexpr std::int64_t far_bytes = std::int64_t{1} << 24;  // an output of so much is not in the cache when read again

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

// residual [N, G, D] = Σ − target, in the type of the tensors; returns Σ residual². Unless null, dots and
// all_column_sums are as `dots_of` has them of the residual.
template <class Acc>
double decode_loss(const GroupProblem& p, const Acc* acts, const void* W, const void* bias, const void* target,
                   void* residual, Acc* dots, Acc* all_column_sums) {
    const GroupDecodeKernels& kernels = group_decode_kernels();
    constexpr bool wide = sizeof(Acc) == 8;
    check(p);
    const Ranges ranges(p, wide);
    const std::int64_t block = p.G * ranges.widest, size = size_of(p.dtype);
    const std::int64_t chunk_rows = rows_of_chunk(block, sizeof(Acc));
    Scratch scratch;
    const Acc* const packed = pack_all<Acc>(W, p, ranges, scratch);
    const Offsets offsets(p, ranges, sizeof(Acc), scratch);
    const Sets<Acc> sets(p, acts, chunk_rows, block, scratch);
    const Sorted<Acc>& sorted = sets.sorted();
    const Answers<Acc> answers(p, ranges, chunk_rows, dots, all_column_sums, scratch);
    Acc* const all_sums = scratch.take<Acc>(p.threads * chunk_rows * block);
    Acc* const biases = scratch.take<Acc>(ranges.padded());
    double* const squares = scratch.take<double>(ranges.count() * p.N);
    const bool far = p.N * p.G * p.D * size >= far_bytes;
    if (bias == nullptr) {
        std::fill(biases, biases + ranges.padded(), Acc{0});
    } else {
        kernels.pack[p.dtype](bias, biases, 1, 0, p.D, ranges.padded());
    }
    each_task(p, ranges, chunk_rows, [&](std::int64_t t, std::int64_t first, std::int64_t last, int thread) {
        const std::int64_t column = t * ranges.widest, width = ranges.width(t), columns = ranges.columns(t);
        const Blocks blocks = offsets.blocks(packed + column * p.L * p.G, t);
        Acc* const sums = all_sums + thread * chunk_rows * block;
        const auto place = [&](std::int64_t n) { return (n * p.G * p.D + column) * size; };
        for (std::int64_t g = 0; g < (last - first) * p.G; ++g) {
            std::memcpy(sums + g * width, biases + column, static_cast<std::size_t>(width) * sizeof(Acc));
        }
        for (std::int64_t set = 0; set < sets.count(); ++set) {
            for (std::int64_t n = first; n < last; ++n) {
                const std::int64_t key = sets.key(n, set), start = sorted.starts[key];
                ask_for(static_cast<const char*>(target) + place(n), set, sets.count(), p.G, p.D, columns, size);
                kernels.add[wide](sorted.posed + start, sorted.zeros[key] - start, blocks,
                                  sums + (n - first) * p.G * width);
            }
        }
        double* const column_sums = answers.columns(t, first);
        for (std::int64_t n = first; n < last; ++n) {
            squares[t * p.N + n] = kernels.compare[p.dtype](
                sums + (n - first) * p.G * width, static_cast<const char*>(target) + place(n),
                static_cast<char*>(residual) + place(n), p.G, p.D, columns, width, far, column_sums);
        }
        kernels.settle();
        answers.add(sets, blocks, t, first, last, sums);
    });
    answers.finish();
    double loss = 0;
    for (std::int64_t i = 0; i < ranges.count() * p.N; ++i) loss += squares[i];
    return loss;
}

// dots[n, k] = Σ_g ⟨x[n, g], W[index, g·pose]⟩; unless null, column_sums [D] = Σ_n Σ_g x.
template <class Acc>
void dots_of(const GroupProblem& p, const void* x, const void* W, Acc* dots, Acc* column_sums) {
    const GroupDecodeKernels& kernels = group_decode_kernels();
    check(p);
    const Ranges ranges(p, sizeof(Acc) == 8);
    const std::int64_t block = p.G * ranges.widest, size = size_of(p.dtype);
    const std::int64_t chunk_rows = rows_of_chunk(block, sizeof(Acc));
    Scratch scratch;
    const Acc* const packed = pack_all<Acc>(W, p, ranges, scratch);
    const Offsets offsets(p, ranges, sizeof(Acc), scratch);
    const Sets<Acc> sets(p, static_cast<const Acc*>(nullptr), chunk_rows, block, scratch);
    const Answers<Acc> answers(p, ranges, chunk_rows, dots, column_sums, scratch);
    Acc* const all_x = scratch.take<Acc>(p.threads * chunk_rows * block);
    each_task(p, ranges, chunk_rows, [&](std::int64_t t, std::int64_t first, std::int64_t last, int thread) {
        const std::int64_t column = t * ranges.widest, width = ranges.width(t);
        Acc* const rows = all_x + thread * chunk_rows * block;
        const auto from = [&](std::int64_t n) { return static_cast<const char*>(x) + (n * p.G * p.D + column) * size; };
        for (std::int64_t n = first; n < last; ++n) {
            if (n + 2 < p.N) ask_for(from(n + 2), 0, 1, p.G, p.D, ranges.columns(t), size);
            kernels.pack[p.dtype](from(n), rows + (n - first) * p.G * width, p.G, p.D, ranges.columns(t), width);
        }
        answers.add(sets, offsets.blocks(packed + column * p.L * p.G, t), t, first, last, rows);
        double* const sums = answers.columns(t, first);
        for (std::int64_t n = 0; sums != nullptr && n < last - first; ++n) {
            kernels.sum_blocks[sizeof(Acc) == 8](rows + n * p.G * width, p.G, width, sums);
        }
    });
    answers.finish();
}

// d_W[l, g] = Σ over the entries of l of act · x[n, table[g]], with the table of the inverse poses.
template <class Acc>
void sums_of(const GroupProblem& p, const void* x, const Acc* acts, void* d_W) {
    const GroupDecodeKernels& kernels = group_decode_kernels();
    constexpr bool wide = sizeof(Acc) == 8;
    check(p);
    if (p.L == 0 || p.D == 0) return;
    const Ranges ranges(p, wide);
    const std::int64_t block = p.G * ranges.widest, size = size_of(p.dtype);
    const std::int64_t chunk_rows = std::max<std::int64_t>(1, std::min(p.N, set_size(p.L, p.K, block, sizeof(Acc))));
    const std::int64_t chunks = (p.N + chunk_rows - 1) / chunk_rows;
    // Where there are fewer ranges than threads, latents are shared out too; their sums stay in one order.
    const std::int64_t parts = std::min<std::int64_t>(p.L, (p.threads + ranges.count() - 1) / ranges.count());
    Scratch scratch;
    const Offsets offsets(p, ranges, sizeof(Acc), scratch);
    const Sorted<Acc> sorted = sorted_by(
        p, acts, chunks * p.L, scratch,
        [&](std::int64_t n, std::int64_t l) { return n / chunk_rows * p.L + l; },
        [&](std::int64_t n, std::int64_t) { return n % chunk_rows; });
    Acc* const all_x = scratch.take<Acc>(p.threads * chunk_rows * block);
    Acc* const all_sums = scratch.take<Acc>(p.threads * ((p.L + parts - 1) / parts) * block);
    parallel_for(ranges.count() * parts, p.threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t task = begin; task < end; ++task) {
            const std::int64_t t = task / parts, part = task % parts, column = t * ranges.widest;
            const std::int64_t width = ranges.width(t), columns = ranges.columns(t);
            const std::int64_t first = p.L * part / parts, last = p.L * (part + 1) / parts;
            Acc* const rows = all_x + thread * chunk_rows * block;
            Acc* const sums = all_sums + thread * ((p.L + parts - 1) / parts) * block;
            const Blocks blocks = offsets.blocks(rows, t);
            std::fill(sums, sums + (last - first) * p.G * width, Acc{0});
            for (std::int64_t c = 0; c < chunks; ++c) {
                const std::int64_t n = c * chunk_rows, count = std::min(chunk_rows, p.N - n);
                const char* const from = static_cast<const char*>(x) + (n * p.G * p.D + column) * size;
                kernels.pack[p.dtype](from, rows, count * p.G, p.D, columns, width);
                const std::int64_t next = std::min(chunk_rows, p.N - n - count);
                for (std::int64_t l = first; l < last; ++l) {
                    const std::int64_t key = c * p.L + l, start = sorted.starts[key];
                    ask_for(from + count * p.G * p.D * size, l - first, last - first, next * p.G, p.D, columns, size);
                    kernels.add[wide](sorted.posed + start, sorted.zeros[key] - start, blocks,
                                      sums + (l - first) * p.G * width);
                }
            }
            kernels.unpack[p.dtype](sums, static_cast<char*>(d_W) + (first * p.G * p.D + column) * size,
                                    (last - first) * p.G, p.D, columns, width);
        }
    });
}

double group_decode_loss(std::uintptr_t acts, std::uintptr_t indices, std::uintptr_t poses, std::uintptr_t table,
                         std::uintptr_t W, std::uintptr_t bias, std::uintptr_t target, std::uintptr_t residual,
                         std::uintptr_t dots, std::uintptr_t column_sums, std::int64_t N, std::int64_t K,
                         std::int64_t L, std::int64_t G, std::int64_t D, int dtype, int threads) {
    const GroupProblem p{indices, poses, table, N, K, L, G, D, dtype, threads};
    double loss = 0;
    with_acc(dtype, [&](auto acc) {
        using Acc = decltype(acc);
        loss = decode_loss(p, at<Acc>(acts), at<void>(W), at<void>(bias), at<void>(target), at<void>(residual),
                           at<Acc>(dots), at<Acc>(column_sums));
    });
    return loss;
}

void group_dots(std::uintptr_t x, std::uintptr_t indices, std::uintptr_t poses, std::uintptr_t table,
                std::uintptr_t W, std::uintptr_t dots, std::uintptr_t column_sums, std::int64_t N, std::int64_t K,
                std::int64_t L, std::int64_t G, std::int64_t D, int dtype, int threads) {
    const GroupProblem p{indices, poses, table, N, K, L, G, D, dtype, threads};
    with_acc(dtype, [&](auto acc) {
        using Acc = decltype(acc);
        dots_of(p, at<void>(x), at<void>(W), at<Acc>(dots), at<Acc>(column_sums));
    });
}

void group_sums(std::uintptr_t x, std::uintptr_t acts, std::uintptr_t indices, std::uintptr_t poses,
                std::uintptr_t table, std::uintptr_t d_W, std::int64_t N, std::int64_t K, std::int64_t L,
                std::int64_t G, std::int64_t D, int dtype, int threads) {
    const GroupProblem p{indices, poses, table, N, K, L, G, D, dtype, threads};
    with_acc(dtype, [&](auto acc) { sums_of(p, at<void>(x), at<decltype(acc)>(acts), at<void>(d_W)); });
}

}  // namespace

void bind_group_decode(pybind11::module_& m) {
    using namespace pybind11::literals;
    const pybind11::call_guard<pybind11::gil_scoped_release> no_gil;
    m.def("group_decode_loss", &group_decode_loss, "acts"_a, "indices"_a, "poses"_a, "table"_a, "W"_a, "bias"_a,
          "target"_a, "residual"_a, "dots"_a, "column_sums"_a, "N"_a, "K"_a, "L"_a, "G"_a, "D"_a, "dtype"_a,
          "threads"_a, no_gil);
    m.def("group_dots", &group_dots, "x"_a, "indices"_a, "poses"_a, "table"_a, "W"_a, "dots"_a, "column_sums"_a, "N"_a,
          "K"_a, "L"_a, "G"_a, "D"_a, "dtype"_a, "threads"_a, no_gil);
    m.def("group_sums", &group_sums, "x"_a, "acts"_a, "indices"_a, "poses"_a, "table"_a, "d_W"_a, "N"_a, "K"_a, "L"_a,
          "G"_a, "D"_a, "dtype"_a, "threads"_a, no_gil);
}

}  // namespace groupcc
