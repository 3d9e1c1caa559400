// pose_maxima: z [N, L, G], near [L, G] → the poses that non-maximum suppression takes, [N, count].
#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "bindings.h"
#include "parallel.h"
#include "scratch.h"

namespace groupcc {
namespace {

// As torch.max has it: NaN is the largest, and of equals the first counts.
template <class T>
inline bool larger(T a, T b) {
    return a > b || (a != a && b == b);
}

template <class T>
std::int64_t first_largest(const T* values, std::int64_t count) {
    std::int64_t best = 0;
    for (std::int64_t i = 1; i < count; ++i) {
        if (larger(values[i], values[best])) best = i;
    }
    return best;
}

struct Maxima {
    std::int64_t N, L, G, count;
    std::int64_t stride_n, stride_l, stride_g;  // of z, in elements
    const std::uint8_t* near;                   // [L, G]
    const std::int64_t* between;                // [G, G]: h⁻¹h' at (h, h')
};

template <class T>
void maxima(const Maxima& m, const T* z, std::int64_t* taken, T* values, int threads) {
    Scratch scratch;
    T* const all_left = scratch.take<T>(threads * m.L * m.G);
    T* const all_best = scratch.take<T>(threads * m.L);
    std::int64_t* const all_poses = scratch.take<std::int64_t>(threads * m.L);
    parallel_for(m.N, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        T* const left = all_left + thread * m.L * m.G;
        T* const best = all_best + thread * m.L;
        std::int64_t* const pose = all_poses + thread * m.L;
        for (std::int64_t n = begin; n < end; ++n) {
            for (std::int64_t g = 0; g < m.G; ++g) {
                const T* const from = z + n * m.stride_n + g * m.stride_g;
                for (std::int64_t l = 0; l < m.L; ++l) left[l * m.G + g] = from[l * m.stride_l];
            }
            for (std::int64_t l = 0; l < m.L; ++l) {
                pose[l] = first_largest(left + l * m.G, m.G);
                best[l] = left[l * m.G + pose[l]];
            }
            for (std::int64_t i = n * m.count; i < (n + 1) * m.count; ++i) {
                const std::int64_t l = first_largest(best, m.L);
                T* const row = left + l * m.G;
                taken[i] = l * m.G + pose[l];
                values[i] = best[l];
                const std::int64_t* const from_here = m.between + pose[l] * m.G;
                for (std::int64_t g = 0; g < m.G; ++g) {
                    if (m.near[l * m.G + from_here[g]]) row[g] = -std::numeric_limits<T>::infinity();
                }
                pose[l] = first_largest(row, m.G);
                best[l] = row[pose[l]];
            }
        }
    });
}

// z: float32 or float64, in any order; `between` [G, G] holds numbers of elements.
void pose_maxima(const Tensor& z, const Tensor& near, const Tensor& between, const Tensor& taken, const Tensor& values,
                 int threads) {
    const auto [N, L, G] = shape_of<3>(z, "z");
    const std::int64_t count = shape_of<2>(taken, "taken")[1];
    const int dtype = floating(z, "z");
    if (dtype > 1) throw std::invalid_argument("z: expected float32 or float64");
    if (count > L * G) throw std::invalid_argument("taken: expected at most L·G columns");
    const Maxima m{N, L, G, count, z.strides[0], z.strides[1], z.strides[2],
                   elements<std::uint8_t>(near, "near", Dtype::boolean, {L, G}),
                   elements<std::int64_t>(between, "between", Dtype::int64, {G, G})};
    const void* const from = checked_strided(z, "z", *z.dtype, {N, L, G});
    auto* const to = elements<std::int64_t>(taken, "taken", Dtype::int64, {N, count});
    void* const found = elements<void>(values, "values", *z.dtype, {N, count});
    with_acc(dtype, [&](auto acc) {
        using T = decltype(acc);
        maxima(m, static_cast<const T*>(from), to, static_cast<T*>(found), threads);
    });
}

}  // namespace

void bind_pose_maxima(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("pose_maxima", &pose_maxima, "z"_a, "near"_a, "between"_a, "taken"_a, "values"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
