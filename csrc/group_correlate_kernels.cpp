// group_correlate: out[n, r, :] = Σ_c matrix[c, r] · in[n, c, :].
//
// A few vectors of all C rows in stay in L1 while the rows out are summed, several rows at a time in registers: each
// element is read from memory once, where a product of matrices would first have to pack it.
#include "group_correlate.h"
#include "vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

// `rows` rows out from r on, `vectors` vectors of each from column w on.
template <int rows, int vectors, class T>
inline void sum_rows(const TransformArgs& a, std::int64_t n, std::int64_t r, std::int64_t w) {
    using io = Io<T>;
    using V = typename io::V;
    V sums[rows][vectors] = {};
    const T* factors = static_cast<const T*>(a.matrix) + r;
    for (std::int64_t c = 0; c < a.C; ++c, factors += a.R) {
        const T* const from = static_cast<const T*>(a.in) + a.in_offset[c] + n * a.in_stride[c] + w;
        V held[vectors];
        for (int v = 0; v < vectors; ++v) held[v] = io::load(from + v * io::lanes);
        for (int i = 0; i < rows; ++i) {
            for (int v = 0; v < vectors; ++v) sums[i][v] += factors[i] * held[v];
        }
    }
    for (int i = 0; i < rows; ++i) {
        T* const to = static_cast<T*>(a.out) + a.out_offset[r + i] + n * a.out_stride[r + i] + w;
        for (int v = 0; v < vectors; ++v) io::store(to + v * io::lanes, sums[i][v]);
    }
}

template <int vectors, class T>
inline void all_rows(const TransformArgs& a, std::int64_t n, std::int64_t w) {
    constexpr int rows = GROUPCC_BYTES == 64 ? 8 : 4;
    std::int64_t r = 0;
    for (; r + rows <= a.R; r += rows) sum_rows<rows, vectors, T>(a, n, r, w);
    for (; r < a.R; ++r) sum_rows<1, vectors, T>(a, n, r, w);
}

template <class T>
void transform(const TransformArgs& a, std::int64_t begin, std::int64_t end) {
    constexpr int lanes = Io<T>::lanes, wide = GROUPCC_BYTES == 64 ? 3 : 2;
    for (std::int64_t n = begin; n < end; ++n) {
        std::int64_t w = 0;
        for (; w + wide * lanes <= a.width; w += wide * lanes) all_rows<wide, T>(a, n, w);
        for (; w + lanes <= a.width; w += lanes) all_rows<1, T>(a, n, w);
        for (; w < a.width; ++w) {
            for (std::int64_t r = 0; r < a.R; ++r) {
                T sum = 0;
                for (std::int64_t c = 0; c < a.C; ++c) {
                    sum += static_cast<const T*>(a.matrix)[c * a.R + r] *
                           static_cast<const T*>(a.in)[a.in_offset[c] + n * a.in_stride[c] + w];
                }
                static_cast<T*>(a.out)[a.out_offset[r] + n * a.out_stride[r] + w] = sum;
            }
        }
    }
}

}  // namespace

const GroupCorrelateKernels& group_correlate_kernels() {
    static constexpr GroupCorrelateKernels table{{transform<float>, transform<double>}};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
