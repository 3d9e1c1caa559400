// Comparisons of vectors with a threshold, as bits; and the order of elements as integers. For *_kernels.cpp alone.
#pragma once

#include "vec.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // the masked intrinsics' own undefined operands
#endif

namespace groupcc {
namespace GROUPCC_ISA {

typedef std::uint64_t vulong __attribute__((vector_size(GROUPCC_BYTES)));

// Fetches what is needed soon, a cache line at a call, while the processor is busy with something else.
struct Ahead {
    const char* at;
    void fetch() {
        __builtin_prefetch(at);
        at += 64;
    }
};

// What is asked of x beside a threshold t that is not NaN; is_nan ignores t.
enum class Ask { at_least, above, equal, is_nan };

template <Ask ask, class X>
inline bool holds(X x, X t) {
    switch (ask) {
        case Ask::at_least: return !(x < t);
        case Ask::above: return !(x <= t);
        case Ask::equal: return x == t;
        default: return x != x;
    }
}

// Bit i: whether it holds for lane i. greatest(x, y): the larger of each lane, y where x is NaN.
#if defined(GROUPCC_ISA_AVX512)
template <Ask ask>
constexpr int predicate() {
    return ask == Ask::at_least ? _CMP_NLT_UQ : ask == Ask::above ? _CMP_NLE_UQ : ask == Ask::equal ? _CMP_EQ_OQ
                                                                                                     : _CMP_UNORD_Q;
}
template <Ask ask>
inline std::uint64_t lanes_where(vfloat x, vfloat t) {
    return _mm512_cmp_ps_mask((__m512)x, (__m512)t, predicate<ask>());
}
template <Ask ask>
inline std::uint64_t lanes_where(vdouble x, vdouble t) {
    return _mm512_cmp_pd_mask((__m512d)x, (__m512d)t, predicate<ask>());
}
inline vfloat greatest(vfloat x, vfloat y) { return (vfloat)_mm512_max_ps((__m512)x, (__m512)y); }
inline vdouble greatest(vdouble x, vdouble y) { return (vdouble)_mm512_max_pd((__m512d)x, (__m512d)y); }
#elif defined(GROUPCC_ISA_AVX2)
template <Ask ask>
constexpr int predicate() {
    return ask == Ask::at_least ? _CMP_NLT_UQ : ask == Ask::above ? _CMP_NLE_UQ : ask == Ask::equal ? _CMP_EQ_OQ
                                                                                                     : _CMP_UNORD_Q;
}
template <Ask ask>
inline std::uint64_t lanes_where(vfloat x, vfloat t) {
    return unsigned(_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, (__m256)t, predicate<ask>())));
}
template <Ask ask>
inline std::uint64_t lanes_where(vdouble x, vdouble t) {
    return unsigned(_mm256_movemask_pd(_mm256_cmp_pd((__m256d)x, (__m256d)t, predicate<ask>())));
}
inline vfloat greatest(vfloat x, vfloat y) { return (vfloat)_mm256_max_ps((__m256)x, (__m256)y); }
inline vdouble greatest(vdouble x, vdouble y) { return (vdouble)_mm256_max_pd((__m256d)x, (__m256d)y); }
#elif defined(__SSE2__)
template <Ask ask>
inline std::uint64_t lanes_where(vfloat vx, vfloat vt) {
    const __m128 x = (__m128)vx, t = (__m128)vt;
    return unsigned(_mm_movemask_ps(ask == Ask::at_least ? _mm_cmpnlt_ps(x, t)
                                    : ask == Ask::above  ? _mm_cmpnle_ps(x, t)
                                    : ask == Ask::equal  ? _mm_cmpeq_ps(x, t)
                                                         : _mm_cmpunord_ps(x, x)));
}
template <Ask ask>
inline std::uint64_t lanes_where(vdouble vx, vdouble vt) {
    const __m128d x = (__m128d)vx, t = (__m128d)vt;
    return unsigned(_mm_movemask_pd(ask == Ask::at_least ? _mm_cmpnlt_pd(x, t)
                                    : ask == Ask::above  ? _mm_cmpnle_pd(x, t)
                                    : ask == Ask::equal  ? _mm_cmpeq_pd(x, t)
                                                         : _mm_cmpunord_pd(x, x)));
}
inline vfloat greatest(vfloat x, vfloat y) { return (vfloat)_mm_max_ps((__m128)x, (__m128)y); }
inline vdouble greatest(vdouble x, vdouble y) { return (vdouble)_mm_max_pd((__m128d)x, (__m128d)y); }
#else
template <Ask ask, class V>
inline std::uint64_t lanes_where(V x, V t) {
    std::uint64_t bits = 0;
    for (unsigned i = 0; i < sizeof x / sizeof x[0]; ++i) bits |= std::uint64_t(holds<ask>(x[i], t[i])) << i;
    return bits;
}
template <class V>
inline V greatest(V x, V y) {
    for (unsigned i = 0; i < sizeof x / sizeof x[0]; ++i) y[i] = x[i] > y[i] ? x[i] : y[i];
    return y;
}
#endif

// Denormals count as numbers while this lives, also where torch.set_flush_denormal(True) made them zeros.
struct KeepDenormals {
#if defined(__SSE2__)
    KeepDenormals() : before(_mm_getcsr()) { _mm_setcsr(before & ~0x8040u); }
    ~KeepDenormals() { _mm_setcsr(before); }
    KeepDenormals(const KeepDenormals&) = delete;
    KeepDenormals& operator=(const KeepDenormals&) = delete;
    unsigned before;
#endif
};

// Order<Acc>: values as unsigned integers that order as the ops do, from 1 to 2^bits - 2, and keys.
template <class Acc>
struct Order;

template <>
struct Order<float> {
    using Value = std::uint32_t;
    using Key = std::uint64_t;
    static constexpr Value zero = 0x80000000u, infinity = 0xff800000u, nan = 0xfffffffeu;
    static Value of(float x) {
        const auto bits = load_bytes<std::uint32_t>(&x);
        if (x != x) return nan;
        return bits >> 31 ? (bits == 0x80000000u ? zero : ~bits) : bits | 0x80000000u;
    }
    static float back(Value v) {
        const std::uint32_t bits = v & 0x80000000u ? v & 0x7fffffffu : ~v;
        return load_bytes<float>(&bits);
    }
    static Key key(Value v, std::int64_t index) { return Key(v) << 32 | std::uint32_t(~index); }
    static Value value(Key key) { return Value(key >> 32); }
    static std::int64_t index(Key key) { return std::int64_t(std::uint32_t(~key)); }
};

template <>
struct Order<double> {
    using Value = std::uint64_t;
    __extension__ typedef unsigned __int128 Key;
    static constexpr Value zero = Value(1) << 63, infinity = Value(0xfff) << 52, nan = ~Value(1);
    static Value of(double x) {
        const auto bits = load_bytes<std::uint64_t>(&x);
        if (x != x) return nan;
        return bits >> 63 ? (bits == zero ? zero : ~bits) : bits | zero;
    }
    static double back(Value v) {
        const std::uint64_t bits = v & zero ? v & ~zero : ~v;
        return load_bytes<double>(&bits);
    }
    static Key key(Value v, std::int64_t index) { return Key(v) << 64 | std::uint64_t(~index); }
    static Value value(Key key) { return Value(key >> 64); }
    static std::int64_t index(Key key) { return std::int64_t(~std::uint64_t(key)); }
};

}  // namespace GROUPCC_ISA
}  // namespace groupcc
