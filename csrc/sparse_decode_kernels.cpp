// sparse_decode: acts [N, K], indices [N, K], W_dec [L, M], bias [M] → out [N, M], with M = G·D.
#include "sparse_decode.h"
#include "vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

// How far ahead W_dec, and d_W_dec with it, are asked for: rows are scattered, so that the CPU's own prefetching does
// not find them. Two streams at once fill the queue of misses sooner.
constexpr std::int64_t ahead_bytes = 8192, ahead_bytes_backward = 2048;

inline std::int64_t runs_ahead(std::int64_t bytes, std::int64_t segment) { return 1 + bytes / (segment + 64); }

inline void prefetch(const void* p, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(p) + i);
}

inline void prefetch_to_write(void* p, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<char*>(p) + i, 1);
}

template <class T>
void start_sums(const DecodeTile& t) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    for (std::int64_t r = 0; r < t.rows; ++r) {
        Acc* const sums = static_cast<Acc*>(t.sums) + r * t.stride;
        if (t.bias == nullptr) {
            for (std::int64_t m = 0; m < t.columns; ++m) sums[m] = 0;
            continue;
        }
        const T* const from = static_cast<const T*>(t.bias) + t.column;
        std::int64_t m = 0;
        for (; m + io::lanes <= t.columns; m += io::lanes) Io<Acc>::store(sums + m, io::load(from + m));
        for (; m < t.columns; ++m) sums[m] = io::get(from + m);
    }
}

// sums[row] += act · w for the entries of one run; w: `blocks` vectors.
template <int blocks, class T, class Acc>
inline void add_run(const T* w, const Entry<Acc>* entry, const Entry<Acc>* end, Acc* sums, std::int64_t stride) {
    using io = Io<T>;
    using V = typename io::V;
    V held[blocks];
    for (int b = 0; b < blocks; ++b) held[b] = io::load(w + b * io::lanes);
    for (; entry != end; ++entry) {
        Acc* const to = sums + entry->row * stride;
        for (int b = 0; b < blocks; ++b) {
            Acc* const p = to + b * io::lanes;
            Io<Acc>::store(p, Io<Acc>::load(p) + entry->act * held[b]);
        }
    }
}

template <class T>
void by_latent(const DecodeTile& t) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    start_sums<T>(t);
    const T* const W = static_cast<const T*>(t.W_dec) + t.column;
    const Entry<Acc>* const entries = static_cast<const Entry<Acc>*>(t.entries);
    Acc* const sums = static_cast<Acc*>(t.sums);
    const std::int64_t ahead = runs_ahead(ahead_bytes, t.columns * sizeof(T));
    for (std::int64_t i = 0; i < t.n_runs; ++i) {
        if (i + ahead < t.n_runs) prefetch(W + t.runs[i + ahead].latent * t.M, t.columns * sizeof(T));
        const T* const w = W + t.runs[i].latent * t.M;
        const Entry<Acc>* const begin = entries + t.runs[i].begin;
        const Entry<Acc>* const end = entries + t.runs[i].end;
        std::int64_t m = 0;
        for (; m + 8 * io::lanes <= t.columns; m += 8 * io::lanes) add_run<8>(w + m, begin, end, sums + m, t.stride);
        for (; m + io::lanes <= t.columns; m += io::lanes) add_run<1>(w + m, begin, end, sums + m, t.stride);
        for (; m < t.columns; ++m) {
            for (const Entry<Acc>* e = begin; e != end; ++e) sums[e->row * t.stride + m] += e->act * io::get(w + m);
        }
    }
}

// `blocks` vectors of one row: sums += Σ_k act · W_dec[index].
template <int blocks, class T, class Acc>
inline void add_row(const T* W, std::int64_t M, const Acc* acts, const std::int64_t* indices, std::int64_t K,
                    std::int64_t ahead, Acc* sums) {
    using io = Io<T>;
    using V = typename io::V;
    V sum[blocks];
    for (int b = 0; b < blocks; ++b) sum[b] = Io<Acc>::load(sums + b * io::lanes);
    for (std::int64_t k = 0; k < K; ++k) {
        if (k + ahead < K) prefetch(W + indices[k + ahead] * M, blocks * io::lanes * sizeof(T));
        if (acts[k] == 0) continue;
        const T* const w = W + indices[k] * M;
        for (int b = 0; b < blocks; ++b) sum[b] += acts[k] * io::load(w + b * io::lanes);
    }
    for (int b = 0; b < blocks; ++b) Io<Acc>::store(sums + b * io::lanes, sum[b]);
}

template <class T>
void by_row(const DecodeTile& t) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    constexpr int wide = GROUPCC_BYTES == 64 ? 16 : 8;
    start_sums<T>(t);
    const T* const W = static_cast<const T*>(t.W_dec) + t.column;
    const std::int64_t ahead = runs_ahead(ahead_bytes, wide * io::lanes * sizeof(T));
    for (std::int64_t r = 0; r < t.rows; ++r) {
        const Acc* const acts = static_cast<const Acc*>(t.acts) + (t.row + r) * t.K;
        const std::int64_t* const indices = t.indices + (t.row + r) * t.K;
        Acc* const sums = static_cast<Acc*>(t.sums) + r * t.stride;
        std::int64_t m = 0;
        for (; m + wide * io::lanes <= t.columns; m += wide * io::lanes) {
            add_row<wide>(W + m, t.M, acts, indices, t.K, ahead, sums + m);
        }
        for (; m + io::lanes <= t.columns; m += io::lanes) add_row<1>(W + m, t.M, acts, indices, t.K, t.K, sums + m);
        for (; m < t.columns; ++m) {
            for (std::int64_t k = 0; k < t.K; ++k) {
                if (acts[k] != 0) sums[m] += acts[k] * io::get(W + indices[k] * t.M + m);
            }
        }
    }
}

template <class T>
void store(const DecodeTile& t, void* out) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    for (std::int64_t r = 0; r < t.rows; ++r) {
        const Acc* const sums = static_cast<const Acc*>(t.sums) + r * t.stride;
        T* const to = static_cast<T*>(out) + (t.row + r) * t.M + t.column;
        std::int64_t m = 0;
        for (; m + io::lanes <= t.columns; m += io::lanes) io::store(to + m, Io<Acc>::load(sums + m));
        for (; m < t.columns; ++m) io::put(to + m, sums[m]);
    }
}

template <class T>
void pack(const BackwardTile& t) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    const T* const grad = static_cast<const T*>(t.grad) + t.column;
    const Acc* const scale = t.scale == nullptr ? nullptr : static_cast<const Acc*>(t.scale) + t.column;
    for (std::int64_t n = 0; n < t.N; ++n) {
        const T* const from = grad + n * t.M;
        Acc* const to = static_cast<Acc*>(t.packed) + n * t.stride;
        std::int64_t m = 0;
        for (; m + io::lanes <= t.columns; m += io::lanes) {
            const auto v = io::load(from + m);
            Io<Acc>::store(to + m, scale == nullptr ? v : v * Io<Acc>::load(scale + m));
        }
        for (; m < t.columns; ++m) to[m] = scale == nullptr ? io::get(from + m) : io::get(from + m) * scale[m];
    }
    if (t.d_bias == nullptr) return;
    // Sums of 16 rows, then of those in double: over many rows one fp32 sum would lose digits.
    constexpr std::int64_t strip = 64;
    for (std::int64_t m0 = 0; m0 < t.columns; m0 += strip) {
        const std::int64_t width = t.columns - m0 < strip ? t.columns - m0 : strip;
        double sums[strip] = {};
        for (std::int64_t n0 = 0; n0 < t.N; n0 += 16) {
            Acc part[strip] = {};
            for (std::int64_t n = n0; n < t.N && n < n0 + 16; ++n) {
                const Acc* const from = static_cast<const Acc*>(t.packed) + n * t.stride + m0;
                for (std::int64_t m = 0; m < width; ++m) part[m] += from[m];
            }
            for (std::int64_t m = 0; m < width; ++m) sums[m] += part[m];
        }
        Acc* const d_bias = static_cast<Acc*>(t.d_bias) + t.column + m0;
        for (std::int64_t m = 0; m < width; ++m) d_bias[m] = static_cast<Acc>(sums[m]);
    }
}

// One run over `blocks` vectors of columns: d_w = Σ act · grad[row] and d_act += ⟨grad[row], w⟩.
template <int blocks, class T, class Acc>
inline void backward_run(const T* w, const Entry<Acc>* entry, const Entry<Acc>* end, const Acc* grad,
                         std::int64_t stride, Acc* d_acts, T* d_w) {
    using io = Io<T>;
    using V = typename io::V;
    V held[blocks], sum[blocks];
    for (int b = 0; b < blocks; ++b) {
        held[b] = io::load(w + b * io::lanes);
        sum[b] = V{};
    }
    for (; entry != end; ++entry, ++d_acts) {
        const Acc* const from = grad + entry->row * stride;
        V dot[2] = {V{}, V{}};
        for (int b = 0; b < blocks; ++b) {
            const V g = Io<Acc>::load(from + b * io::lanes);
            sum[b] += entry->act * g;
            dot[b % 2] += g * held[b];
        }
        *d_acts += total(dot[0] + dot[1]);
    }
    // Not past the caches: between loads from L2, such stores took twice as long as these, whose lines were asked for.
    for (int b = 0; b < blocks; ++b) io::store(d_w + b * io::lanes, sum[b]);
}

template <class T>
void backward(const BackwardTile& t) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    constexpr int wide = GROUPCC_BYTES == 64 ? 8 : 4;
    const T* const W = static_cast<const T*>(t.W_dec) + t.column;
    T* const d_W = static_cast<T*>(t.d_W_dec) + t.column;
    const Entry<Acc>* const entries = static_cast<const Entry<Acc>*>(t.entries);
    const Acc* const grad = static_cast<const Acc*>(t.packed);
    const std::int64_t ahead = runs_ahead(ahead_bytes_backward, t.columns * sizeof(T));
    for (std::int64_t i = 0; i < t.n_runs; ++i) {
        if (i + ahead < t.n_runs) {
            const std::int64_t next = t.runs[i + ahead].latent * t.M;
            prefetch(W + next, t.columns * sizeof(T));
            prefetch_to_write(d_W + next, t.columns * sizeof(T));
        }
        const T* const w = W + t.runs[i].latent * t.M;
        T* const d_w = d_W + t.runs[i].latent * t.M;
        const Entry<Acc>* const begin = entries + t.runs[i].begin;
        const Entry<Acc>* const end = entries + t.runs[i].end;
        Acc* const d_acts = static_cast<Acc*>(t.d_acts) + t.runs[i].begin;
        std::int64_t m = 0;
        for (; m + wide * io::lanes <= t.columns; m += wide * io::lanes) {
            backward_run<wide>(w + m, begin, end, grad + m, t.stride, d_acts, d_w + m);
        }
        for (; m + io::lanes <= t.columns; m += io::lanes) {
            backward_run<1>(w + m, begin, end, grad + m, t.stride, d_acts, d_w + m);
        }
        for (; m < t.columns; ++m) {
            const Acc w_m = io::get(w + m);
            Acc sum = 0;
            for (const Entry<Acc>* e = begin; e != end; ++e) {
                const Acc g = grad[e->row * t.stride + m];
                sum += e->act * g;
                d_acts[e - begin] += g * w_m;
            }
            io::put(d_w + m, sum);
        }
    }
}

}  // namespace

const SparseDecodeKernels& sparse_decode_kernels() {
    static constexpr SparseDecodeKernels table{
        {by_latent<float>, by_latent<double>, by_latent<bf16>, by_latent<fp16>},
        {by_row<float>, by_row<double>, by_row<bf16>, by_row<fp16>},
        {store<float>, store<double>, store<bf16>, store<fp16>},
        {pack<float>, pack<double>, pack<bf16>, pack<fp16>},
        {backward<float>, backward<double>, backward<bf16>, backward<fp16>},
    };
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
