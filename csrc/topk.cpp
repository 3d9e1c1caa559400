// topk: pre_acts [N, L] → acts [N, k], indices [N, k].
#include "topk.h"

#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>

#include "bindings.h"
#include "parallel.h"

namespace groupcc {
namespace {

void topk(const Tensor& pre_acts, const Tensor& acts, const Tensor& indices, int threads) {
    const int dtype = floating(pre_acts, "pre_acts");
    const Rows rows = rows_of(pre_acts);
    const std::int64_t k = shape_of<2>(acts, "acts")[1];
    if (k < 1 || k > rows.L) throw std::invalid_argument("acts: expected from 1 to L columns");
    void* const to = elements<void>(acts, "acts", *pre_acts.dtype, {rows.N, k});
    auto* const chosen = elements<std::int64_t>(indices, "indices", Dtype::int64, {rows.N, k});
    const TopkKernels& kernels = topk_kernels();
    if (threads > rows.N) threads = rows.N < 1 ? 1 : static_cast<int>(rows.N);
    const std::size_t bytes = kernels.scratch_bytes[dtype](rows.L, k);
    const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, bytes * std::size_t(threads)), std::free);
    if (!scratch) throw std::bad_alloc();
    parallel_for(rows.N, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.topk[dtype](rows, k, to, chosen, begin, end,
                            static_cast<char*>(scratch.get()) + bytes * std::size_t(thread));
    });
}

}  // namespace

Rows rows_of(const Tensor& pre_acts) {
    const auto [N, L] = shape_of<2>(pre_acts, "pre_acts");
    const void* const data = checked_strided(pre_acts, "pre_acts", *pre_acts.dtype, {N, L});
    if (L > 1 && pre_acts.strides[1] != 1) throw std::invalid_argument("pre_acts: expected contiguous rows");
    return {data, pre_acts.strides[0], N, L};
}

void bind_topk(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("topk", &topk, "pre_acts"_a, "acts"_a, "indices"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
