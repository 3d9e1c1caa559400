// Vectors of the instruction set that this file is compiled for; included by *_kernels.cpp alone. Such files use no
// C++ library templates: an inline function compiled for AVX-512 could be the copy that the linker keeps for all.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "scalar.h"

#if defined(GROUPCC_ISA_AVX512)
#define GROUPCC_BYTES 64
#elif defined(GROUPCC_ISA_AVX2)
#define GROUPCC_BYTES 32
#else
#define GROUPCC_BYTES 16
#endif

namespace groupcc {
namespace GROUPCC_ISA {

typedef float vfloat __attribute__((vector_size(GROUPCC_BYTES)));
typedef double vdouble __attribute__((vector_size(GROUPCC_BYTES)));
typedef std::uint32_t vuint __attribute__((vector_size(GROUPCC_BYTES)));
typedef std::uint16_t vhalf __attribute__((vector_size(GROUPCC_BYTES / 2)));

template <class V, class T>
inline V load_bytes(const T* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

// Io<T>: how elements of type T are read into and written from the vector they are computed in.
// Acc: the scalar of accumulation (float; double for double); V: its vector, of `lanes` elements.
template <class T>
struct Io;

template <>
struct Io<float> {
    using Acc = float;
    using V = vfloat;
    static constexpr int lanes = GROUPCC_BYTES / 4;
    static V load(const float* p) { return load_bytes<V>(p); }
    static void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof v); }
    static Acc get(const float* p) { return *p; }
    static void put(float* p, Acc x) { *p = x; }
};

template <>
struct Io<double> {
    using Acc = double;
    using V = vdouble;
    static constexpr int lanes = GROUPCC_BYTES / 8;
    static V load(const double* p) { return load_bytes<V>(p); }
    static void store(double* p, V v) { __builtin_memcpy(p, &v, sizeof v); }
    static Acc get(const double* p) { return *p; }
    static void put(double* p, Acc x) { *p = x; }
};

template <>
struct Io<bf16> {
    using Acc = float;
    using V = vfloat;
    static constexpr int lanes = GROUPCC_BYTES / 4;
    static V load(const bf16* p) {
        const vuint wide = __builtin_convertvector(load_bytes<vhalf>(p), vuint) << 16;
        return load_bytes<V>(&wide);
    }
    static void store(bf16* p, V v) {
        // Round to nearest even; NaN stays NaN, made quiet so that rounding cannot turn it into infinity.
        const vuint bits = load_bytes<vuint>(&v);
        const vuint rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        const vuint quiet = (bits >> 16) | 0x40;
        const auto is_nan = v != v;
        const vuint mask = load_bytes<vuint>(&is_nan);
        const vhalf out = __builtin_convertvector((rounded & ~mask) | (quiet & mask), vhalf);
        __builtin_memcpy(p, &out, sizeof out);
    }
    static Acc get(const bf16* p) {
        const std::uint32_t wide = std::uint32_t(p->bits) << 16;
        return load_bytes<float>(&wide);
    }
    static void put(bf16* p, Acc x) {
        const auto bits = load_bytes<std::uint32_t>(&x);
        p->bits = x != x ? std::uint16_t((bits >> 16) | 0x40) : std::uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
};

template <>
struct Io<fp16> {
    using Acc = float;
    using V = vfloat;
    static constexpr int lanes = GROUPCC_BYTES / 4;
#if defined(GROUPCC_ISA_AVX512)
    // The forms with a mask, which is full: the others leave GCC warning of an uninitialised operand.
    static V load(const fp16* p) { return (V)_mm512_maskz_cvtph_ps(0xffff, load_bytes<__m256i>(p)); }
    static void store(fp16* p, V v) {
        constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        const __m256i out = _mm512_maskz_cvtps_ph(0xffff, (__m512)v, nearest);
        __builtin_memcpy(p, &out, sizeof out);
    }
    static Acc get(const fp16* p) { return _cvtsh_ss(p->bits); }
    static void put(fp16* p, Acc x) { p->bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(GROUPCC_ISA_AVX2)
    static V load(const fp16* p) { return (V)_mm256_cvtph_ps(load_bytes<__m128i>(p)); }
    static void store(fp16* p, V v) {
        const __m128i out = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
        __builtin_memcpy(p, &out, sizeof out);
    }
    static Acc get(const fp16* p) { return _cvtsh_ss(p->bits); }
    static void put(fp16* p, Acc x) { p->bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
#else
    static V load(const fp16* p) {
        V v;
        for (int i = 0; i < lanes; ++i) v[i] = get(p + i);
        return v;
    }
    static void store(fp16* p, V v) {
        for (int i = 0; i < lanes; ++i) put(p + i, v[i]);
    }
    static Acc get(const fp16* p) {
        const std::uint32_t sign = std::uint32_t(p->bits & 0x8000) << 16, body = p->bits & 0x7fff;
        std::uint32_t bits;
        if (body >= 0x7c00) {
            bits = sign | 0x7f800000 | (body & 0x3ff) << 13;  // infinity, NaN
        } else if (body >= 0x400) {
            bits = sign | ((body << 13) + 0x38000000);
        } else {
            const float tiny = float(body) * 0x1p-24f;
            bits = sign | load_bytes<std::uint32_t>(&tiny);
        }
        return load_bytes<float>(&bits);
    }
    static void put(fp16* p, Acc x) {
        const auto bits = load_bytes<std::uint32_t>(&x);
        const std::uint16_t sign = (bits >> 16) & 0x8000;
        const std::uint32_t body = bits & 0x7fffffff;
        if (body > 0x7f800000) {
            p->bits = sign | 0x7e00;
        } else if (body >= 0x477ff000) {
            p->bits = sign | 0x7c00;  // 65520 and above round to infinity
        } else if (body >= 0x38800000) {
            p->bits = sign | std::uint16_t((body - 0x38000000 + 0xfff + ((body >> 13) & 1)) >> 13);
        } else {
            // Adding 0.5 leaves the subnormal's bits, rounded to nearest even, at the bottom of the sum's.
            const float shifted = load_bytes<float>(&body) + 0.5f;
            p->bits = sign | std::uint16_t(load_bytes<std::uint32_t>(&shifted) - 0x3f000000);
        }
    }
#endif
};

// Sum over the lanes, in a fixed order: halves are added until one is left.
inline float total(vfloat v) {
#if GROUPCC_BYTES == 64
    const __m256 high = _mm512_maskz_extractf32x8_ps(0xff, (__m512)v, 1);
    const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, (__m512)v, 0), high);
#elif GROUPCC_BYTES == 32
    const __m256 half = (__m256)v;
#endif
#if GROUPCC_BYTES >= 32
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

inline double total(vdouble v) {
    double sum = 0;
    for (int i = 0; i < GROUPCC_BYTES / 8; ++i) sum += v[i];
    return sum;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
