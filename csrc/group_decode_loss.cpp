// group_decode_loss: acts, indices, poses [N, K], W [L, G, D], target [N, G, D] → Σ residual², residual [N, G, D].
#include <algorithm>
#include <cstring>

#include "bindings.h"
#include "group_posed_tasks.h"

namespace groupcc {
namespace {

using namespace posed;

constexpr std::int64_t far_bytes = std::int64_t{1} << 24;  // an output of so much is not in the cache when read again

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

// bias [1, D]; dots [N, K] and column_sums [D] in the type of sums, as acts are.
double group_decode_loss(const Tensor& acts, const Tensor& indices, const Tensor& poses, const Tensor& table,
                         const Tensor& W, const MaybeTensor& bias, const Tensor& target, const Tensor& residual,
                         const MaybeTensor& dots, const MaybeTensor& column_sums, int threads) {
    const auto [L, G, D] = shape_of<3>(W, "W");
    const GroupProblem p = group_problem(indices, poses, table, L, D, floating(W, "W"), threads);
    const Dtype dtype = *W.dtype, sums = type_of_sums(p.dtype);
    const void* const from_acts = elements<void>(acts, "acts", sums, {p.N, p.K});
    const void* const from_W = elements<void>(W, "W", dtype, {p.L, p.G, p.D});
    const void* const from_bias = elements<void>(bias, "bias", dtype, {1, p.D});
    const void* const from_target = elements<void>(target, "target", dtype, {p.N, p.G, p.D});
    void* const to = elements<void>(residual, "residual", dtype, {p.N, p.G, p.D});
    void* const to_dots = elements<void>(dots, "dots", sums, {p.N, p.K});
    void* const to_sums = elements<void>(column_sums, "column_sums", sums, {p.D});
    double loss = 0;
    with_acc(p.dtype, [&](auto acc) {
        using Acc = decltype(acc);
        loss = decode_loss(p, static_cast<const Acc*>(from_acts), from_W, from_bias, from_target, to,
                           static_cast<Acc*>(to_dots), static_cast<Acc*>(to_sums));
    });
    return loss;
}

}  // namespace

void bind_group_decode_loss(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("group_decode_loss", &group_decode_loss, "acts"_a, "indices"_a, "poses"_a, "table"_a, "W"_a, "bias"_a,
          "target"_a, "residual"_a, "dots"_a, "column_sums"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
