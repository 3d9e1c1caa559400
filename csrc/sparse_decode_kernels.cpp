// sparse_decode: acts [N, K], indices [N, K], W_dec [L, M], bias [M] → out [N, M], with M = G·D.
#include "sparse_decode.h"
#include "vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

template <class T>
void decode(const DecodeArgs& a, std::int64_t begin, std::int64_t end) {
    using io = Io<T>;
    using V = typename io::V;
    const T* acts = static_cast<const T*>(a.acts);
    const T* W = static_cast<const T*>(a.W_dec);
    const T* bias = static_cast<const T*>(a.bias);
    T* out = static_cast<T*>(a.out);
    for (std::int64_t n = begin; n < end; ++n) {
        std::int64_t m = 0;
        for (; m + io::lanes <= a.M; m += io::lanes) {
            V sum = bias ? io::load(bias + m) : V{};
            for (std::int64_t k = 0; k < a.K; ++k) {
                sum += io::get(acts + n * a.K + k) * io::load(W + a.indices[n * a.K + k] * a.M + m);
            }
            io::store(out + n * a.M + m, sum);
        }
        for (; m < a.M; ++m) {
            typename io::Acc sum = bias ? io::get(bias + m) : 0;
            for (std::int64_t k = 0; k < a.K; ++k) {
                sum += io::get(acts + n * a.K + k) * io::get(W + a.indices[n * a.K + k] * a.M + m);
            }
            io::put(out + n * a.M + m, sum);
        }
    }
}

}  // namespace

const SparseDecodeKernels& sparse_decode_kernels() {
    static constexpr SparseDecodeKernels table{{decode<float>, decode<double>, decode<bf16>, decode<fp16>}};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
