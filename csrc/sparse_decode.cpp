// sparse_decode: acts [N, K], indices [N, K], W_dec [L, M], bias [M] → out [N, M], with M = G·D.
#include "sparse_decode.h"

#include "bindings.h"
#include "parallel.h"
#include "scalar.h"

namespace groupcc {
namespace {

void sparse_decode(std::uintptr_t acts, std::uintptr_t indices, std::uintptr_t W_dec, std::uintptr_t bias,
                   std::uintptr_t out, std::int64_t N, std::int64_t K, std::int64_t L, std::int64_t M, int dtype,
                   int threads) {
    const DecodeArgs args{at<void>(acts), at<std::int64_t>(indices), at<void>(W_dec), at<void>(bias), at<void>(out),
                          N, K, L, M};
    const auto kernel = sparse_decode_kernels().decode[dtype];
    parallel_for(N, threads, [&](std::int64_t begin, std::int64_t end, int) { kernel(args, begin, end); });
}

}  // namespace

void bind_sparse_decode(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("sparse_decode", &sparse_decode, "acts"_a, "indices"_a, "W_dec"_a, "bias"_a, "out"_a, "N"_a, "K"_a, "L"_a,
          "M"_a, "dtype"_a, "threads"_a, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
