// group_correlate's transforms: acts [N, G, D], W [L, G, D] and products [N, L] of each coefficient, to and fro.
#include "group_correlate.h"

#include <stdexcept>

#include "bindings.h"
#include "group_fold_bindings.h"
#include "parallel.h"
#include "scratch.h"

namespace groupcc {
namespace {

// The rows of x, which lie as `source` says, to those of `out`, which lie as `target` says: coefficients of elements, or
// with `back` elements of coefficients.
void group_correlate_transform(const Tensor& x, const Tensor& out, const FoldsOf& matrix, const Layout& source,
                               const Layout& target, bool back, int threads) {
    const std::int64_t N = source.N, G = matrix.G(), R = matrix.folds.R;
    if (target.N != N || target.width != source.width) throw std::invalid_argument("target: expected N and width of source");
    if (source.rows != (back ? R : G)) throw std::invalid_argument("source: expected a row for each column of the matrix");
    if (target.rows != (back ? G : R)) throw std::invalid_argument("target: expected a row for each row of the matrix");
    const Dtype dtype = static_cast<Dtype>(matrix.dtype);
    const TransformArgs args{checked_flat(x, "x", dtype, source.count()), checked_flat(out, "out", dtype, target.count()),
                             matrix.folds, source.offset, source.stride, target.offset, target.stride, source.width, back};
    const auto kernel = group_correlate_kernels().transform[matrix.dtype];
    Scratch scratch;
    const std::int64_t buffer = fold_buffer(args.folds);
    double* const buffers = scratch.take<double>(threads * buffer);
    parallel_for(N, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernel(args, begin, end, buffers + thread * buffer);
    });
}

}  // namespace

void bind_group_correlate(pybind11::module_& m) {
    using namespace pybind11::literals;
    pybind11::class_<FoldsOf>(m, "Folds", "The matrix of a transform in parts, see csrc/group_fold.h.")
        .def(pybind11::init<const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&>(), "elements"_a,
             "order"_a, "starts"_a, "forth"_a, "back"_a, pybind11::keep_alive<1, 2>(), pybind11::keep_alive<1, 3>(),
             pybind11::keep_alive<1, 4>(), pybind11::keep_alive<1, 5>(), pybind11::keep_alive<1, 6>());
    pybind11::class_<Layout>(m, "Layout", "Where the rows of a transform's input or output lie.")
        .def(pybind11::init<const Tensor&, const Tensor&, std::int64_t, std::int64_t>(), "offset"_a, "stride"_a, "N"_a,
             "width"_a, pybind11::keep_alive<1, 2>(), pybind11::keep_alive<1, 3>());
    m.def("group_correlate_transform", &group_correlate_transform, "x"_a, "out"_a, "folds"_a, "source"_a, "target"_a,
          "back"_a, "threads"_a, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
