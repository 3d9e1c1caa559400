// group_correlate_max: acts [N, G, D], coefficients of W, b [L] → values, poses [N, L].
#include "group_correlate_max.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <vector>

#include "bindings.h"
#include "group_correlate.h"
#include "group_fold_bindings.h"
#include "parallel.h"
#include "scratch.h"

namespace groupcc {
namespace {

constexpr std::int64_t chunk_bytes = std::int64_t{3} << 20;  // of a chunk's coefficients: W's are read once for each
constexpr std::int64_t most_rows = 96;

// B irreps of d × d coefficients of acts and d × c of W.
struct Irreps {
    std::int64_t B, d, c;
};

// W's coefficients, as [b, j, L, m, D] for each size of irrep in turn, in panels of columns (j, l), l padded to L_padded.
template <class T>
class Panels {
public:
    Panels(const std::vector<Irreps>& sizes, const T* W, std::int64_t L, std::int64_t D, int threads, Scratch& scratch)
        : widest_(group_correlate_max_kernels().panel[wide]), lanes_(group_correlate_max_kernels().lanes[wide]),
          padded_((L + lanes_ - 1) / lanes_ * lanes_) {
        std::int64_t all = 0;
        for (const Irreps& s : sizes) all += s.B * s.c * padded_ * s.d * D;
        T* to = scratch.take<T>(all);
        first_ = to;
        for (const Irreps& s : sizes) {
            const std::int64_t K = s.d * D, panels = count(s.c);
            parallel_for(s.B * panels, threads, [&](std::int64_t begin, std::int64_t end, int) {
                const void* from[128];
                for (std::int64_t i = begin; i < end; ++i) {
                    const std::int64_t b = i / panels, first = i % panels * widest_, columns = width(s.c, i % panels);
                    for (std::int64_t k = 0; k < columns; ++k) {
                        const std::int64_t j = (first + k) / padded_, l = (first + k) % padded_;
                        from[k] = l < L ? W + ((b * s.c + j) * L + l) * K : nullptr;
                    }
                    group_correlate_max_kernels().pack[wide](from, to + (b * s.c * padded_ + first) * K, K, columns);
                }
            });
            to += s.B * s.c * padded_ * K;
            W += s.B * s.c * L * K;
        }
    }
    std::int64_t padded() const { return padded_; }
    std::int64_t count(std::int64_t c) const { return (c * padded_ + widest_ - 1) / widest_; }
    std::int64_t width(std::int64_t c, std::int64_t panel) const {
        return std::min(widest_, c * padded_ - panel * widest_);
    }
    std::int64_t widest() const { return widest_; }
    const T* first() const { return first_; }

private:
    static constexpr bool wide = sizeof(T) == 8;
    std::int64_t widest_, lanes_, padded_;
    const T* first_;
};

struct Problem {
    const void *acts, *W, *b;
    void* values;
    std::int64_t* poses;
    Folds left, inverse;
    std::vector<Irreps> sizes;
    std::int64_t N, L, D;
    int threads;
};

// Where rows are in a chunk of n examples: those of acts [n, G, D], their coefficients (b, i, m) as [b, i, n, m, D], and
// the products (b, i, j) as [b, i, n, j, L].
struct Places {
    std::vector<std::int64_t> element, example, offset, stride, product, product_stride;
    Places(const Problem& p, std::int64_t n, std::int64_t padded) {
        const std::int64_t G = p.left.S * p.left.Q;
        for (std::int64_t g = 0; g < G; ++g) element.push_back(g * p.D);
        example.assign(static_cast<std::size_t>(G), G * p.D);
        std::int64_t begin = 0, out = 0;
        for (const Irreps& s : p.sizes) {
            for (std::int64_t bi = 0; bi < s.B * s.d; ++bi) {
                for (std::int64_t m = 0; m < s.d; ++m) offset.push_back(begin + (bi * n * s.d + m) * p.D);
                for (std::int64_t j = 0; j < s.c; ++j) product.push_back(out + (bi * n * s.c + j) * padded);
            }
            stride.insert(stride.end(), static_cast<std::size_t>(s.B * s.d * s.d), s.d * p.D);
            product_stride.insert(product_stride.end(), static_cast<std::size_t>(s.B * s.d * s.c), s.c * padded);
            begin += s.B * s.d * n * s.d * p.D;
            out += s.B * s.d * n * s.c * padded;
        }
    }
};

template <class T>
void strongest(const Problem& p) {
    constexpr bool wide = sizeof(T) == 8;
    const GroupCorrelateMaxKernels& kernels = group_correlate_max_kernels();
    const auto transform = group_correlate_kernels().transform[wide];
    const std::int64_t G = p.left.S * p.left.Q;
    Scratch scratch;
    const Panels<T> panels(p.sizes, static_cast<const T*>(p.W), p.L, p.D, p.threads, scratch);
    const std::int64_t padded = panels.padded(), bytes = p.left.R * p.D * static_cast<std::int64_t>(sizeof(T));
    std::int64_t rows = std::min(most_rows, chunk_bytes / std::max<std::int64_t>(1, bytes));
    rows = std::max<std::int64_t>(rows / kernels.rows * kernels.rows, 1);
    T* const all_acts = scratch.take<T>(p.threads * rows * p.left.R * p.D);
    T* const all_products = scratch.take<T>(p.threads * rows * p.inverse.R * padded);
    const std::int64_t buffer = fold_buffer(p.left);
    double* const buffers = scratch.take<double>(p.threads * buffer);
    T* const bias = scratch.take<T>(padded);
    std::copy(static_cast<const T*>(p.b), static_cast<const T*>(p.b) + p.L, bias);
    std::fill(bias + p.L, bias + padded, T{0});
    const Places places(p, rows, padded);
    std::int64_t* const all_rows = scratch.take<std::int64_t>(p.threads * p.inverse.R);
    parallel_for(p.N, p.threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        T* const acts = all_acts + thread * rows * p.left.R * p.D;
        T* const products = all_products + thread * rows * p.inverse.R * padded;
        double* const own = buffers + thread * buffer;
        std::int64_t* const at = all_rows + thread * p.inverse.R;
        for (std::int64_t first = begin; first < end; first += rows) {
            const std::int64_t n = std::min(rows, end - first);
            const TransformArgs args{static_cast<const T*>(p.acts) + first * G * p.D, acts, p.left,
                                     places.element.data(), places.example.data(),
                                     places.offset.data(), places.stride.data(), p.D, false};
            transform(args, 0, n, own);
            const T *A = acts, *W = panels.first();
            T* out = products;
            for (const Irreps& s : p.sizes) {
                const std::int64_t K = s.d * p.D, columns = s.c * padded;
                for (std::int64_t b = 0; b < s.B; ++b) {
                    for (std::int64_t panel = 0; panel < panels.count(s.c); ++panel) {
                        const std::int64_t column = panel * panels.widest(), width = panels.width(s.c, panel);
                        for (std::int64_t i = 0; i < s.d; ++i) {
                            kernels.product[wide]({A + i * rows * K, W + column * K, out + i * rows * columns + column,
                                                   n, K, K, columns, width});
                        }
                    }
                    A += s.d * rows * K;
                    W += columns * K;
                    out += s.d * rows * columns;
                }
            }
            for (std::int64_t i = 0; i < n; ++i) {
                for (std::int64_t r = 0; r < p.inverse.R; ++r) {
                    const auto row = static_cast<std::size_t>(r);
                    at[r] = places.product[row] + i * places.product_stride[row];
                }
                kernels.strongest[wide](p.inverse, products, at, bias, static_cast<T*>(p.values) + (first + i) * p.L,
                                        p.poses + (first + i) * p.L, p.L, own);
            }
        }
    });
}

// acts [N, G, D], the coefficients of W, flat, b [L] → values, poses [N, L]; `sizes`: (B, d, c) of the irreps of each size.
void group_correlate_max(const Tensor& acts, const Tensor& W, const Tensor& b, const Tensor& values, const Tensor& poses,
                         const FoldsOf& left, const FoldsOf& inverse,
                         const std::vector<std::array<std::int64_t, 3>>& sizes, int threads) {
    const auto [N, G, D] = shape_of<3>(acts, "acts");
    const std::int64_t L = shape_of<1>(b, "b")[0];
    const Dtype dtype = static_cast<Dtype>(left.dtype);
    Problem p{nullptr, nullptr, nullptr, nullptr, nullptr, left.folds, inverse.folds, {}, N, L, D, threads};
    std::int64_t rows_left = 0, rows_inverse = 0;  // of W's coefficients there are as many rows as of the inverse's
    for (const auto& [B, d, c] : sizes) {
        p.sizes.push_back({B, d, c});
        rows_left += B * d * d;
        rows_inverse += B * d * c;
    }
    if (left.G() != G || left.folds.R != rows_left) throw std::invalid_argument("left: expected G columns, ΣBdd rows");
    if (inverse.dtype != left.dtype || inverse.G() != G || inverse.folds.R != rows_inverse) {
        throw std::invalid_argument("inverse: expected G columns, ΣBdc rows, in the type of left");
    }
    p.acts = elements<void>(acts, "acts", dtype, {N, G, D});
    p.W = checked_flat(W, "W", dtype, rows_inverse * L * D);
    p.b = elements<void>(b, "b", dtype, {L});
    p.values = elements<void>(values, "values", dtype, {N, L});
    p.poses = elements<std::int64_t>(poses, "poses", Dtype::int64, {N, L});
    dtype == Dtype::float32 ? strongest<float>(p) : strongest<double>(p);
}

}  // namespace

void bind_group_correlate_max(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("group_correlate_max", &group_correlate_max, "acts"_a, "W"_a, "b"_a, "values"_a, "poses"_a, "left"_a,
          "inverse"_a, "sizes"_a, "threads"_a, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
