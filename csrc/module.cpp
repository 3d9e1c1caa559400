// groupcc._C: the C++ extension. Raw pointers and plain numbers in, no libtorch.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

namespace {

// Instruction sets beyond the baseline that this CPU and its operating system offer, narrowest first.
std::vector<std::string> cpu_features() {
    std::vector<std::string> found;
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.emplace_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        found.emplace_back("avx512");
    }
#endif
    return found;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "groupcc's C++ extension";
    m.def("cpu_features", &cpu_features, "Instruction sets beyond the baseline that run here, narrowest first.");
}
