// topk: pre_acts [N, L] → acts [N, k], indices [N, k].
#include "selection.h"

#include <cstdlib>
#include <memory>
#include <new>

#include "bindings.h"
#include "parallel.h"
#include "scalar.h"

namespace groupcc {
namespace {

void topk(std::uintptr_t pre_acts, std::int64_t stride, std::int64_t N, std::int64_t L, std::int64_t k,
          std::uintptr_t acts, std::uintptr_t indices, int dtype, int threads) {
    const Rows rows{at<void>(pre_acts), stride, N, L};
    const SelectionKernels& kernels = selection_kernels();
    if (threads > N) threads = N < 1 ? 1 : static_cast<int>(N);
    const std::size_t bytes = kernels.scratch_bytes[dtype](L, k);
    const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, bytes * std::size_t(threads)), std::free);
    if (!scratch) throw std::bad_alloc();
    parallel_for(N, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels.topk[dtype](rows, k, at<void>(acts), at<std::int64_t>(indices), begin, end,
                            static_cast<char*>(scratch.get()) + bytes * std::size_t(thread));
    });
}

}  // namespace

void bind_selection(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("topk", &topk, "pre_acts"_a, "stride"_a, "N"_a, "L"_a, "k"_a, "acts"_a, "indices"_a, "dtype"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
