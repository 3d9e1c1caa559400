// group_correlate's transforms: acts [N, G, D], W [L, G, D] and products [N, L] of each coefficient, to and fro.
#include "group_correlate.h"

#include <stdexcept>

#include "bindings.h"
#include "parallel.h"
#include "scalar.h"

namespace groupcc {
namespace {

void group_transform(std::uintptr_t in, std::uintptr_t out, std::uintptr_t matrix, std::uintptr_t in_offset,
                     std::uintptr_t in_stride, std::uintptr_t out_offset, std::uintptr_t out_stride, std::int64_t N,
                     std::int64_t C, std::int64_t R, std::int64_t width, int dtype, int threads) {
    if (dtype != 0 && dtype != 1) throw std::invalid_argument("dtype: expected float32 or float64, code 0 or 1");
    const TransformArgs args{at<void>(in), at<void>(out), at<void>(matrix),
                             at<std::int64_t>(in_offset), at<std::int64_t>(in_stride),
                             at<std::int64_t>(out_offset), at<std::int64_t>(out_stride), C, R, width};
    const auto kernel = group_correlate_kernels().transform[dtype];
    parallel_for(N, threads, [&](std::int64_t begin, std::int64_t end, int) { kernel(args, begin, end); });
}

}  // namespace

void bind_group_correlate(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("group_transform", &group_transform, "in_"_a, "out"_a, "matrix"_a, "in_offset"_a, "in_stride"_a,
          "out_offset"_a, "out_stride"_a, "N"_a, "C"_a, "R"_a, "width"_a, "dtype"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
