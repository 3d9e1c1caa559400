// orbit_gather: maps [B, S, H, W, D], points [G, P, 2] → acts [B·P, G, D], and the transpose, acts → maps.
#include "orbit_gather.h"

#include <cmath>

#include "vec.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

constexpr int max_taps = 9;
constexpr double on_pixel = 1e-6;  // ON_PIXEL of groupcc/ops/orbit_gather/taps.py

struct Axis {
    int n;
    std::int64_t at[3];
    double weight[3];
};

// The taps along one axis whose weight is not 0; false where x lies outside.
inline bool axis_taps(double x, std::int64_t size, bool bspline, Axis& axis) {
    const double margin = bspline ? 1 : 0;
    const double limit = double(size) - 1 - margin;
    if (!(x >= margin - on_pixel && x <= limit + on_pixel)) return false;
    const double nearest = std::floor(x + 0.5);
    if (std::fabs(x - nearest) < on_pixel) x = nearest;
    double base, weight[3];
    if (bspline) {
        base = std::floor(x + 0.5) - 1;
        const double t = x - (base + 1);
        weight[0] = (0.5 - t) * (0.5 - t) / 2;
        weight[1] = 0.75 - t * t;
        weight[2] = (0.5 + t) * (0.5 + t) / 2;
    } else {
        base = std::floor(x);
        weight[1] = x - base;
        weight[0] = 1 - weight[1];
    }
    axis.n = 0;
    for (int i = 0; i < (bspline ? 3 : 2); ++i) {
        if (weight[i] == 0) continue;
        const std::int64_t at = std::int64_t(base) + i;
        axis.at[axis.n] = at < 0 ? 0 : at > size - 1 ? size - 1 : at;
        axis.weight[axis.n++] = weight[i];
    }
    return true;
}

template <class Acc>
struct Taps {
    int n;
    std::int64_t pixel[max_taps];
    Acc weight[max_taps];
};

// Pixel y, x is y·stride_y + x·stride_x.
template <class Acc>
inline bool point_taps(const OrbitArgs& a, std::int64_t point, std::int64_t stride_y, std::int64_t stride_x,
                       Taps<Acc>& taps) {
    Axis x, y;
    const double* xy = a.points + 2 * point;
    if (!axis_taps(xy[0], a.W, a.bspline, x) || !axis_taps(xy[1], a.H, a.bspline, y)) return false;
    taps.n = 0;
    for (int i = 0; i < y.n; ++i) {
        for (int j = 0; j < x.n; ++j) {
            taps.pixel[taps.n] = y.at[i] * stride_y + x.at[j] * stride_x;
            taps.weight[taps.n++] = Acc(y.weight[i] * x.weight[j]);
        }
    }
    return true;
}

template <class T>
inline void stream_bytes(T* to, const void* from) {
    constexpr int bytes = Io<T>::lanes * int(sizeof(T));
#if defined(__AVX512F__)
    if constexpr (bytes == 64) return _mm512_stream_si512((__m512i*)to, load_bytes<__m512i>((const __m512i*)from));
#endif
#if defined(__AVX2__)
    if constexpr (bytes == 32) return _mm256_stream_si256((__m256i*)to, load_bytes<__m256i>((const __m256i*)from));
#endif
#if defined(__SSE2__)
    if constexpr (bytes == 16) return _mm_stream_si128((__m128i*)to, load_bytes<__m128i>((const __m128i*)from));
#endif
    __builtin_memcpy(to, from, bytes);
}

// Where the weighted rows of a sum come from: the taps of a point ...
template <class T>
struct TapRows {
    const T* map;
    const Taps<typename Io<T>::Acc>& taps;
    const T* row(int k) const { return map + taps.pixel[k]; }
    typename Io<T>::Acc weight(int k) const { return taps.weight[k]; }
};

template <class Acc>
struct Reader {
    std::int32_t position;
    Acc weight;
};

// ... or the positions that read a pixel.
template <class T>
struct ReaderRows {
    const T* acts;
    std::int64_t stride;
    const Reader<typename Io<T>::Acc>* entries;
    const T* row(int k) const { return acts + entries[k].position * stride; }
    typename Io<T>::Acc weight(int k) const { return entries[k].weight; }
};

// A row of finished sums.
template <class Acc>
struct WideRow {
    const Acc* sums;
    const Acc* row(int) const { return sums; }
    Acc weight(int) const { return 1; }
};

// What becomes of a sum: stored, stored past the caches, or added to what is there.
enum class Put { store, stream, add };

#define GROUPCC_INLINE inline __attribute__((always_inline))

// Where a sum starts: x + -0 is x for every x, so a copy keeps the sign of a zero. An empty sum is +0.
template <class Acc>
GROUPCC_INLINE Acc start(int n) {
    return n > 0 ? Acc(-0.0) : Acc(0);
}

template <int width, Put put, class T, class Rows, class U>
GROUPCC_INLINE void blend_vectors(const Rows& rows, int n, std::int64_t d, U* out) {
    using io = Io<T>;
    typename io::V sums[width];
    for (int i = 0; i < width; ++i) {
        if constexpr (put == Put::add) {
            sums[i] = Io<U>::load(out + d + i * io::lanes);
        } else {
            sums[i] = typename io::V{} + start<typename io::Acc>(n);
        }
    }
    for (int k = 0; k < n; ++k) {
        const T* row = rows.row(k) + d;
        const auto weight = rows.weight(k);
        for (int i = 0; i < width; ++i) sums[i] += weight * io::load(row + i * io::lanes);
    }
    for (int i = 0; i < width; ++i) {
        U* to = out + d + i * io::lanes;
        if constexpr (put == Put::stream) {
            U narrow[io::lanes];
            Io<U>::store(narrow, sums[i]);
            stream_bytes(to, narrow);
        } else {
            Io<U>::store(to, sums[i]);
        }
    }
}

template <Put put, class T, class Rows, class U>
GROUPCC_INLINE void blend_n(const Rows& rows, int n, std::int64_t D, U* out) {
    constexpr int lanes = Io<T>::lanes;
    std::int64_t d = 0;
    for (; d + 8 * lanes <= D; d += 8 * lanes) blend_vectors<8, put, T>(rows, n, d, out);
    for (; d + 2 * lanes <= D; d += 2 * lanes) blend_vectors<2, put, T>(rows, n, d, out);
    for (; d + lanes <= D; d += lanes) blend_vectors<1, put, T>(rows, n, d, out);
    for (; d < D; ++d) {
        auto sum = start<typename Io<T>::Acc>(n);
        if constexpr (put == Put::add) sum = Io<U>::get(out + d);
        for (int k = 0; k < n; ++k) sum += rows.weight(k) * Io<T>::get(rows.row(k) + d);
        Io<U>::put(out + d, sum);
    }
}

// out[d] = Σ_k weight(k) · row(k)[d] for d < D. The usual numbers of taps have loops of their own.
template <Put put, class T, class Rows, class U>
inline void blend(const Rows& rows, int n, std::int64_t D, U* out) {
    switch (n) {
        case 1: return blend_n<put, T>(rows, 1, D, out);
        case 2: return blend_n<put, T>(rows, 2, D, out);
        case 4: return blend_n<put, T>(rows, 4, D, out);
        case 9: return blend_n<put, T>(rows, 9, D, out);
        default: return blend_n<put, T>(rows, n, D, out);
    }
}

template <Put put, class T>
std::int64_t gather_rows(const OrbitArgs& a, std::int64_t begin, std::int64_t end) {
    const std::int64_t points = a.G * a.P;
    std::int64_t outside = points;
    for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t b = row / points, point = row % points, g = point / a.P, p = point % a.P;
        const T* map = static_cast<const T*>(a.maps) + b * a.stride_B + (a.S > 1 ? g * a.stride_S : 0);
        T* out = static_cast<T*>(a.acts) + ((b * a.P + p) * a.G + g) * a.D;
        Taps<typename Io<T>::Acc> taps;
        if (point_taps(a, point, a.stride_H, a.stride_W, taps)) {
            blend<put, T>(TapRows<T>{map, taps}, taps.n, a.D, out);
        } else if (point < outside) {
            outside = point;
        }
    }
    return outside;
}

// Stores that went past the caches are seen by other threads only after a fence.
inline void fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

template <class T>
std::int64_t gather(const OrbitArgs& a, std::int64_t begin, std::int64_t end) {
    if (!a.stream) return gather_rows<Put::store, T>(a, begin, end);
    const std::int64_t outside = gather_rows<Put::stream, T>(a, begin, end);
    fence();
    return outside;
}

template <class T>
void invert(const OrbitArgs& a, const Readers& readers, std::int64_t begin, std::int64_t end) {
    using Acc = typename Io<T>::Acc;
    const std::int64_t pixels = a.H * a.W;
    for (std::int64_t g = begin; g < end; ++g) {
        std::int32_t* start = readers.start + g * (pixels + 1);
        Reader<Acc>* entries = static_cast<Reader<Acc>*>(readers.entries) + g * a.P * readers.taps;
        for (std::int64_t i = 0; i <= pixels; ++i) start[i] = 0;
        Taps<Acc> taps;
        for (std::int64_t p = 0; p < a.P; ++p) {
            if (!point_taps(a, g * a.P + p, a.W, std::int64_t{1}, taps)) continue;
            for (int k = 0; k < taps.n; ++k) ++start[taps.pixel[k]];
        }
        std::int32_t total = 0;
        for (std::int64_t i = 0; i <= pixels; ++i) {
            total += start[i];
            start[i] = total;  // the end of pixel i; filling from the last position on turns it into the start
        }
        for (std::int64_t p = a.P - 1; p >= 0; --p) {
            if (!point_taps(a, g * a.P + p, a.W, std::int64_t{1}, taps)) continue;
            for (int k = taps.n - 1; k >= 0; --k) {
                entries[--start[taps.pixel[k]]] = {std::int32_t(p), taps.weight[k]};
            }
        }
    }
}

// For each pixel of a map, the sum over the positions of element g that read it, of the channels from `acts` on. Pixel
// y, x goes to out + y·stride_y + x·stride_x.
template <Put put, class T, class U>
void pull(const OrbitArgs& a, const Readers& readers, std::int64_t g, const T* acts, std::int64_t channels, U* out,
          std::int64_t stride_y, std::int64_t stride_x) {
    using E = Reader<typename Io<T>::Acc>;
    const std::int32_t* start = readers.start + g * (a.H * a.W + 1);
    const E* entries = static_cast<const E*>(readers.entries) + g * a.P * readers.taps;
    for (std::int64_t y = 0; y < a.H; ++y) {
        for (std::int64_t x = 0; x < a.W; ++x, ++start) {
            const int n = start[1] - start[0];
            if (put == Put::add && n == 0) continue;
            const ReaderRows<T> rows{acts, a.G * a.D, entries + start[0]};
            blend<put, T>(rows, n, channels, out + y * stride_y + x * stride_x);
        }
    }
}

template <class T>
void scatter(const OrbitArgs& a, const Readers& readers, const MapPart& part, void* sums) {
    using Acc = typename Io<T>::Acc;
    const std::int64_t channels = part.last - part.first;
    const T* acts = static_cast<const T*>(a.acts) + part.b * a.P * a.G * a.D + part.first;
    T* out = static_cast<T*>(a.maps) + part.b * a.stride_B + part.s * a.stride_S + part.first;
    if (!a.shared) {
        const T* own = acts + part.s * a.D;
        if (a.stream) {
            pull<Put::stream>(a, readers, part.s, own, channels, out, a.stride_H, a.stride_W);
        } else {
            pull<Put::store>(a, readers, part.s, own, channels, out, a.stride_H, a.stride_W);
        }
    } else {
        // Every element adds to the one map, in wide sums that stay in cache; then each is rounded once.
        Acc* wide = static_cast<Acc*>(sums);
        __builtin_memset(wide, 0, std::size_t(a.H * a.W * channels) * sizeof(Acc));
        for (std::int64_t g = 0; g < a.G; ++g) {
            pull<Put::add>(a, readers, g, acts + g * a.D, channels, wide, a.W * channels, channels);
        }
        for (std::int64_t i = 0; i < a.H * a.W; ++i) {
            const WideRow<Acc> sum{wide + i * channels};
            blend_n<Put::store, Acc>(sum, 1, channels, out + i / a.W * a.stride_H + i % a.W * a.stride_W);
        }
    }
    if (a.stream) fence();
}

}  // namespace

const OrbitGatherKernels& orbit_gather_kernels() {
    static constexpr OrbitGatherKernels table{
        {gather<float>, gather<double>, gather<bf16>, gather<fp16>},
        {invert<float>, invert<double>, invert<bf16>, invert<fp16>},
        {scatter<float>, scatter<double>, scatter<bf16>, scatter<fp16>},
        {sizeof(Reader<float>), sizeof(Reader<double>), sizeof(Reader<float>), sizeof(Reader<float>)},
    };
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
