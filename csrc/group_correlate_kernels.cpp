// group_correlate's transforms: out[n, r, :] = Σ_c matrix[c, r] · in[n, c, :], the matrix in parts.
//
// A few vectors of all rows in stay in L1 while the rows out are summed, several rows at a time in registers: each
// element is read from memory once, where a product of matrices would first have to pack it.
#include "group_correlate.h"
#include "group_fold_vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

template <int vectors, class T>
inline void columns(const TransformArgs& a, std::int64_t n, std::int64_t w, std::int64_t left, T* buffer) {
    const auto in = [&](std::int64_t c) {
        return static_cast<const T*>(a.in) + a.in_offset[c] + n * a.in_stride[c] + w;
    };
    const auto out = [&](std::int64_t r) {
        return static_cast<T*>(a.out) + a.out_offset[r] + n * a.out_stride[r] + w;
    };
    a.back ? back<vectors>(a.folds, in, out, buffer, left) : forth<vectors>(a.folds, in, out, buffer, left);
}

template <class T>
void transform(const TransformArgs& a, std::int64_t begin, std::int64_t end, void* buffer) {
    constexpr std::int64_t lanes = Io<T>::lanes, wide = GROUPCC_BYTES == 64 ? 3 : 2;
    T* const own = static_cast<T*>(buffer);
    for (std::int64_t n = begin; n < end; ++n) {
        std::int64_t w = 0;
        for (; w + wide * lanes <= a.width; w += wide * lanes) columns<wide>(a, n, w, lanes, own);
        for (; w < a.width; w += lanes) columns<1>(a, n, w, a.width - w, own);
    }
}

}  // namespace

const GroupCorrelateKernels& group_correlate_kernels() {
    static constexpr GroupCorrelateKernels table{{transform<float>, transform<double>}};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
