// group_correlate_max: the products of coefficients, and the strongest pose out of these.
#include "group_correlate_max.h"

#include "group_fold_vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

// Sums of a product that stay in registers: rows (three to an address) by vectors.
constexpr int product_rows = GROUPCC_BYTES == 64 ? 12 : 6;
constexpr int product_vectors = 2;
// Products that one sum takes, and so one round of rows: over more, an fp32 sum would lose digits, and L1 the rows.
constexpr std::int64_t product_depth = 384;

template <class T>
void pack(const void* const* from, void* to, std::int64_t K, std::int64_t columns) {
    T* const out = static_cast<T*>(to);
    constexpr std::int64_t together = 64 / sizeof(T);
    for (std::int64_t begin = 0; begin < K; begin += together) {
        const std::int64_t end = begin + together < K ? begin + together : K;
        for (std::int64_t c = 0; c < columns; ++c) {
            const T* const in = static_cast<const T*>(from[c]);
            for (std::int64_t k = begin; k < end; ++k) out[k * columns + c] = in == nullptr ? T{0} : in[k];
        }
    }
}

template <int rows, int vectors, class T>
inline void product_of(const ProductArgs& p, std::int64_t m, std::int64_t first, std::int64_t last) {
    using io = Io<T>;
    using V = typename io::V;
    constexpr int bases = (rows + 2) / 3;
    V sums[rows][vectors] = {};
    const T* A[bases];
    for (int i = 0; i < bases; ++i) A[i] = static_cast<const T*>(p.A) + (m + 3 * i) * p.stride;
    const T* W = static_cast<const T*>(p.W) + first * vectors * io::lanes;
    for (std::int64_t k = first; k < last; ++k, W += vectors * io::lanes) {
        V held[vectors];
        for (int v = 0; v < vectors; ++v) held[v] = io::load(W + v * io::lanes);
        for (int i = 0; i < rows; ++i) {
            const T a = A[i / 3][i % 3 * p.stride + k];
            for (int v = 0; v < vectors; ++v) sums[i][v] += a * held[v];
        }
    }
    for (int i = 0; i < rows; ++i) {
        T* const out = static_cast<T*>(p.out) + (m + i) * p.out_stride;
        for (int v = 0; v < vectors; ++v) {
            T* const to = out + v * io::lanes;
            io::store(to, first == 0 ? sums[i][v] : io::load(to) + sums[i][v]);
        }
    }
}

template <int vectors, class T>
inline void all_rows_of(const ProductArgs& p) {
    std::int64_t first = 0;
    do {
        const std::int64_t last = first + product_depth < p.K ? first + product_depth : p.K;
        std::int64_t m = 0;
        for (; m + product_rows <= p.M; m += product_rows) product_of<product_rows, vectors, T>(p, m, first, last);
        for (; m + 3 <= p.M; m += 3) product_of<3, vectors, T>(p, m, first, last);
        for (; m < p.M; ++m) product_of<1, vectors, T>(p, m, first, last);
        first = last;
    } while (first < p.K);
}

template <class T>
void product(const ProductArgs& p) {
    p.columns == Io<T>::lanes ? all_rows_of<1, T>(p) : all_rows_of<product_vectors, T>(p);
}

template <class T>
struct Integer;
template <>
struct Integer<float> {
    using Scalar = std::int32_t;
    typedef std::int32_t V __attribute__((vector_size(GROUPCC_BYTES)));
};
template <>
struct Integer<double> {
    using Scalar = std::int64_t;
    typedef std::int64_t V __attribute__((vector_size(GROUPCC_BYTES)));
};

template <class T>
void strongest(const Folds& f, const void* products, const std::int64_t* rows, const void* b, void* values,
               std::int64_t* poses, std::int64_t L, void* buffer) {
    using io = Io<T>;
    using V = typename io::V;
    using Index = typename Integer<T>::V;
    const std::int64_t G = f.S * f.Q;
    T* const z = static_cast<T*>(buffer) + G * io::lanes;
    for (std::int64_t l = 0; l < L; l += io::lanes) {
        const auto in = [&](std::int64_t r) { return static_cast<const T*>(products) + rows[r] + l; };
        const auto out = [&](std::int64_t h) { return z + h * io::lanes; };
        back<1>(f, in, out, static_cast<T*>(buffer), io::lanes);
        const V bias = io::load(static_cast<const T*>(b) + l);
        V best = io::load(z) + bias;
        Index pose{};
        for (std::int64_t h = 1; h < G; ++h) {
            const V value = io::load(z + h * io::lanes) + bias;
            const Index larger = (value > best) | ((value != value) & (best == best));
            best = larger ? value : best;
            pose = larger ? Index{} + static_cast<typename Integer<T>::Scalar>(h) : pose;
        }
        const std::int64_t count = L - l < io::lanes ? L - l : io::lanes;
        store_left(static_cast<T*>(values) + l, best, count);
        for (std::int64_t i = 0; i < count; ++i) poses[l + i] = pose[i];
    }
}

}  // namespace

const GroupCorrelateMaxKernels& group_correlate_max_kernels() {
    static constexpr GroupCorrelateMaxKernels table{
        {Io<float>::lanes, Io<double>::lanes},
        {product_vectors * Io<float>::lanes, product_vectors * Io<double>::lanes},
        product_rows,
        {pack<float>, pack<double>},
        {product<float>, product<double>},
        {strongest<float>, strongest<double>},
    };
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
