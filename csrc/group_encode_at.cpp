// group_encode_at: x [N, G, D], indices, poses [N, K], W [L, G, D] → inner products of each example with its latents in their
// poses [N, K]; and backward, sums of examples by latent [L, G, D]. group_decode_loss's backward is made of both.
#include <algorithm>

#include "bindings.h"
#include "group_posed_tasks.h"

namespace groupcc {
namespace {

using namespace posed;

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

// dots [N, K] and column_sums [D] in the type of sums.
void group_encode_at(const Tensor& x, const Tensor& indices, const Tensor& poses, const Tensor& table, const Tensor& W,
                     const Tensor& dots, const MaybeTensor& column_sums, int threads) {
    const auto [L, G, D] = shape_of<3>(W, "W");
    const GroupProblem p = group_problem(indices, poses, table, L, D, floating(W, "W"), threads);
    const Dtype sums = type_of_sums(p.dtype);
    const void* const from_x = elements<void>(x, "x", *W.dtype, {p.N, p.G, p.D});
    const void* const from_W = elements<void>(W, "W", *W.dtype, {p.L, p.G, p.D});
    void* const to_dots = elements<void>(dots, "dots", sums, {p.N, p.K});
    void* const to_sums = elements<void>(column_sums, "column_sums", sums, {p.D});
    with_acc(p.dtype, [&](auto acc) {
        using Acc = decltype(acc);
        dots_of(p, from_x, from_W, static_cast<Acc*>(to_dots), static_cast<Acc*>(to_sums));
    });
}

// `table`: that of the inverse poses. acts [N, K] in the type of sums.
void group_encode_at_backward(const Tensor& x, const Tensor& acts, const Tensor& indices, const Tensor& poses,
                              const Tensor& table, const Tensor& d_W, int threads) {
    const auto [L, G, D] = shape_of<3>(d_W, "d_W");
    const GroupProblem p = group_problem(indices, poses, table, L, D, floating(x, "x"), threads);
    const void* const from_x = elements<void>(x, "x", *x.dtype, {p.N, p.G, p.D});
    const void* const from_acts = elements<void>(acts, "acts", type_of_sums(p.dtype), {p.N, p.K});
    void* const to = elements<void>(d_W, "d_W", *x.dtype, {p.L, p.G, p.D});
    with_acc(p.dtype, [&](auto acc) { sums_of(p, from_x, static_cast<const decltype(acc)*>(from_acts), to); });
}

}  // namespace

void bind_group_encode_at(pybind11::module_& m) {
    using namespace pybind11::literals;
    const pybind11::call_guard<pybind11::gil_scoped_release> no_gil;
    m.def("group_encode_at", &group_encode_at, "x"_a, "indices"_a, "poses"_a, "table"_a, "W"_a, "dots"_a,
          "column_sums"_a, "threads"_a, no_gil);
    m.def("group_encode_at_backward", &group_encode_at_backward, "x"_a, "acts"_a, "indices"_a, "poses"_a, "table"_a,
          "d_W"_a, "threads"_a, no_gil);
}

}  // namespace groupcc
