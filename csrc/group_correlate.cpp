// group_correlate's transforms: acts [N, G, D], W [L, G, D] and products [N, L] of each coefficient, to and fro.
#include "group_correlate.h"

#include <stdexcept>

#include "bindings.h"
#include "group_fold_args.h"
#include "parallel.h"
#include "scalar.h"
#include "scratch.h"

namespace groupcc {
namespace {

void group_transform(std::uintptr_t in, std::uintptr_t out, const FoldArgs& folds, std::uintptr_t in_offset,
                     std::uintptr_t in_stride, std::uintptr_t out_offset, std::uintptr_t out_stride, std::int64_t N,
                     std::int64_t width, bool back, int dtype, int threads) {
    if (dtype != 0 && dtype != 1) throw std::invalid_argument("dtype: expected float32 or float64, code 0 or 1");
    const TransformArgs args{at<void>(in), at<void>(out), folds_of(folds),
                             at<std::int64_t>(in_offset), at<std::int64_t>(in_stride),
                             at<std::int64_t>(out_offset), at<std::int64_t>(out_stride), width, back};
    const auto kernel = group_correlate_kernels().transform[dtype];
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
    m.def("group_transform", &group_transform, "in_"_a, "out"_a, "folds"_a, "in_offset"_a, "in_stride"_a,
          "out_offset"_a, "out_stride"_a, "N"_a, "width"_a, "back"_a, "dtype"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
