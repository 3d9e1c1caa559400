// encode_topk's screening and gradients: x [N, M], W [L, M] (latent-major), b [L] → the k largest of x·Wᵀ + b, from a bfloat16 product.
#include <cmath>

#include "encode_topk.h"
#include "selection_vec.h"
#include "vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

using F = Io<float>;
using V = vfloat;
constexpr int lanes = F::lanes;

inline float total(V v) {
    float sum = 0;
    for (int i = 0; i < lanes; ++i) sum += v[i];
    return sum;
}

inline V magnitude(V v) { return v < 0 ? -v : v; }

// Σ a·b with 4 vectors of partial sums, whatever the alignment: equal rows give equal sums.
inline float dot(const float* a, const float* b, std::int64_t M) {
    V s0{}, s1{}, s2{}, s3{};
    std::int64_t m = 0;
    for (; m + 4 * lanes <= M; m += 4 * lanes) {
        s0 += F::load(a + m) * F::load(b + m);
        s1 += F::load(a + m + lanes) * F::load(b + m + lanes);
        s2 += F::load(a + m + 2 * lanes) * F::load(b + m + 2 * lanes);
        s3 += F::load(a + m + 3 * lanes) * F::load(b + m + 3 * lanes);
    }
    for (; m + lanes <= M; m += lanes) s0 += F::load(a + m) * F::load(b + m);
    float sum = total((s0 + s1) + (s2 + s3));
    float rest = 0;
    for (; m < M; ++m) rest += a[m] * b[m];
    return sum + rest;
}

void round_rows(const RoundArgs& a, std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
        const float* row = a.rows + r * a.M;
        bf16* out = reinterpret_cast<bf16*>(a.rounded + r * a.M);
        V size{}, rounded_size{}, error{};
        float size_rest = 0, rounded_rest = 0, error_rest = 0;
        std::int64_t m = 0;
        for (; m + lanes <= a.M; m += lanes) {
            const V value = F::load(row + m);
            const V shifted = a.shift ? value - F::load(a.shift + m) : value;
            Io<bf16>::store(out + m, shifted);
            const V rounded = Io<bf16>::load(out + m);
            const V lost = shifted - rounded;
            size += value * value;
            rounded_size += rounded * rounded;
            error += lost * lost;
        }
        for (; m < a.M; ++m) {
            const float shifted = a.shift ? row[m] - a.shift[m] : row[m];
            Io<bf16>::put(out + m, shifted);
            const float rounded = Io<bf16>::get(out + m);
            const float lost = shifted - rounded;
            size_rest += row[m] * row[m];
            rounded_rest += rounded * rounded;
            error_rest += lost * lost;
        }
        a.size[r] = std::sqrt(total(size) + size_rest);
        a.rounded_size[r] = std::sqrt(total(rounded_size) + rounded_rest);
        a.error[r] = std::sqrt(total(error) + error_rest);
        if (a.against) a.dot[r] = dot(row, a.against, a.M);
    }
}

void bounds(const BoundArgs& a) {
    for (std::int64_t i = 0; i < a.groups; ++i) a.maxima[i] = -INFINITY;
    const bf16* z_row = reinterpret_cast<const bf16*>(a.z);
    std::int64_t l = 0, group = 0;
    for (; l + lanes <= a.L; l += lanes) {
        const V z = Io<bf16>::load(z_row + l), h = F::load(a.h + l);
        const V bound = a.per_error * F::load(a.error + l) + (a.per_size * F::load(a.size + l) +
                        (a.per_z * magnitude(z) + (a.per_h * magnitude(h) + a.floor)));
        const V centre = z + h, lower = centre - bound, best = F::load(a.maxima + group);
        F::store(a.upper + l, centre + bound);
        F::store(a.maxima + group, lower > best ? lower : best);  // NaN is never larger
        group += lanes;
        if (group == a.groups) group = 0;
    }
    for (; l < a.L; ++l) {
        const float z = Io<bf16>::get(z_row + l), h = a.h[l];
        const float bound = a.per_error * a.error[l] + (a.per_size * a.size[l] +
                            (a.per_z * std::fabs(z) + (a.per_h * std::fabs(h) + a.floor)));
        const float lower = z + h - bound;
        a.upper[l] = z + h + bound;
        float& best = a.maxima[l % a.groups];
        if (lower > best) best = lower;
    }
}

std::int64_t at_least(const float* upper, std::int64_t L, float threshold, std::int32_t* found, std::int64_t room) {
    std::int64_t count = 0, l = 0;
    for (; l + lanes <= L; l += lanes) {
        for (auto mask = lanes_where<Ask::at_least>(F::load(upper + l), threshold - V{}); mask; mask &= mask - 1) {
            if (count < room) found[count] = std::int32_t(l + __builtin_ctzll(mask));
            ++count;
        }
    }
    for (; l < L; ++l) {
        if (upper[l] < threshold) continue;
        if (count < room) found[count] = std::int32_t(l);
        ++count;
    }
    return count;
}

void products(const float* x, const float* W, const float* b, std::int64_t M, const std::int32_t* row,
              const std::int32_t* latent, const std::int64_t* place, std::int64_t begin, std::int64_t end,
              float* values) {
    for (std::int64_t i = begin; i < end; ++i) {
        values[place[i]] = dot(x + row[i] * M, W + latent[i] * M, M) + b[latent[i]];
    }
}

// Columns of a latent's gradient, `width` vectors of them: few enough for the sums to stay in registers.
template <int width, class T, class Acc>
inline void add_rows(const T* x, std::int64_t M, const Entry<Acc>* first, const Entry<Acc>* last, T* out) {
    using io = Io<T>;
    typename io::V sum[width] = {};
    for (const Entry<Acc>* e = first; e < last; ++e) {
        const T* const row = x + e->row * M;
        for (int j = 0; j < width; ++j) sum[j] += e->act * io::load(row + j * io::lanes);
    }
    for (int j = 0; j < width; ++j) io::store(out + j * io::lanes, sum[j]);
}

template <class T>
void gradients(const EncodeGradArgs& a, std::int64_t begin, std::int64_t end) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    constexpr int width = 8;
    const T* const x = static_cast<const T*>(a.x);
    const Entry<Acc>* const entries = static_cast<const Entry<Acc>*>(a.entries);
    for (const Run* run = a.runs + begin; run < a.runs + end; ++run) {
        T* const out = static_cast<T*>(a.d_W) + run->latent * a.M;
        const Entry<Acc>* const first = entries + run->begin;
        const Entry<Acc>* const last = entries + run->end;
        Acc bias = 0;
        for (const Entry<Acc>* e = first; e < last; ++e) bias += e->act;
        io::put(static_cast<T*>(a.d_b) + run->latent, bias);
        std::int64_t m = 0;
        for (; m + width * io::lanes <= a.M; m += width * io::lanes) add_rows<width>(x + m, a.M, first, last, out + m);
        for (; m + io::lanes <= a.M; m += io::lanes) add_rows<1>(x + m, a.M, first, last, out + m);
        for (; m < a.M; ++m) {
            Acc sum = 0;
            for (const Entry<Acc>* e = first; e < last; ++e) sum += e->act * io::get(x + e->row * a.M + m);
            io::put(out + m, sum);
        }
    }
}

}  // namespace

const EncodeTopkKernels& encode_topk_kernels() {
    static constexpr EncodeTopkKernels table{
        {gradients<float>, gradients<double>, gradients<bf16>, gradients<fp16>}, round_rows, bounds, at_least, products};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
