// Products with the matrix that Folds has in parts; included by *_kernels.cpp alone.
#pragma once

#include "group_fold.h"
#include "vec.h"

namespace groupcc {
namespace GROUPCC_ISA {

// Rows that are summed together, in registers.
constexpr int fold_rows = GROUPCC_BYTES == 64 ? 8 : 4;

// `left` elements are there; a vector of fewer has zeros behind them.
template <class T>
inline typename Io<T>::V load_left(const T* p, std::int64_t left) {
    using io = Io<T>;
    if (left >= io::lanes) return io::load(p);
    typename io::V v{};
    for (std::int64_t i = 0; i < left; ++i) v[i] = p[i];
    return v;
}

template <class T>
inline void store_left(T* p, typename Io<T>::V v, std::int64_t left) {
    using io = Io<T>;
    if (left >= io::lanes) return io::store(p, v);
    for (std::int64_t i = 0; i < left; ++i) p[i] = v[i];
}

// x[s] = Σ_σ (−1)^(bits of s & σ) x[σ].
template <int S, class V>
inline void fold(V* x) {
    if (S >= 2) {
        const V a = x[0], b = x[1];
        x[0] = a + b;
        x[1] = a - b;
    }
    if (S == 4) {
        const V a = x[0], b = x[1], c = x[2] + x[3], d = x[2] - x[3];
        x[0] = a + c;
        x[1] = b + d;
        x[2] = a - c;
        x[3] = b - d;
    }
}

// Of G rows, row elements[q · S + s] at from(…), to row s · Q + q of to(…), or the other way round.
template <int S, int vectors, class T, class From, class To>
inline void fold_rows_of(std::int64_t Q, const From& from, const To& to, std::int64_t left_in, std::int64_t left_out) {
    using io = Io<T>;
    for (std::int64_t q = 0; q < Q; ++q) {
        for (int v = 0; v < vectors; ++v) {
            typename io::V x[S];
            for (int s = 0; s < S; ++s) {
                const T* const at = from(s * Q + q) + v * io::lanes;
                x[s] = vectors == 1 ? load_left(at, left_in) : io::load(at);
            }
            fold<S>(x);
            for (int s = 0; s < S; ++s) {
                T* const at = to(s * Q + q) + v * io::lanes;
                vectors == 1 ? store_left(at, x[s], left_out) : io::store(at, x[s]);
            }
        }
    }
}

template <int vectors, class T, class From, class To>
inline void fold_all(const Folds& f, const From& from, const To& to, std::int64_t left_in, std::int64_t left_out) {
    if (f.S == 4) return fold_rows_of<4, vectors, T>(f.Q, from, to, left_in, left_out);
    if (f.S == 2) return fold_rows_of<2, vectors, T>(f.Q, from, to, left_in, left_out);
    fold_rows_of<1, vectors, T>(f.Q, from, to, left_in, left_out);
}

// out(r + i) [v] = Σ_c factors[c, r + i] · from(c) [v] for i < rows: `from` and `out` give the address of a vector.
template <int rows, int vectors, class T, class From, class Out>
inline void sum_rows(const T* factors, std::int64_t C, std::int64_t R, std::int64_t r, const From& from,
                     const Out& out) {
    using io = Io<T>;
    typename io::V sums[rows][vectors] = {};
    factors += r;
    for (std::int64_t c = 0; c < C; ++c, factors += R) {
        const T* const x = from(c);
        typename io::V held[vectors];
        for (int v = 0; v < vectors; ++v) held[v] = io::load(x + v * io::lanes);
        for (int i = 0; i < rows; ++i) {
            for (int v = 0; v < vectors; ++v) sums[i][v] += factors[i] * held[v];
        }
    }
    for (int i = 0; i < rows; ++i) {
        T* const to = out(r + i);
        for (int v = 0; v < vectors; ++v) io::store(to + v * io::lanes, sums[i][v]);
    }
}

template <int vectors, class T, class From, class Out>
inline void all_rows(const T* factors, std::int64_t C, std::int64_t R, const From& from, const Out& out) {
    std::int64_t r = 0;
    for (; r + fold_rows <= R; r += fold_rows) sum_rows<fold_rows, vectors>(factors, C, R, r, from, out);
    for (; r < R; ++r) sum_rows<1, vectors>(factors, C, R, r, from, out);
}

// Coefficients of G rows: out(r) [vectors] = Σ_g matrix[r, g] · in(g). `buffer` holds G · vectors vectors; of one vector
// `left` elements count.
template <int vectors, class T, class In, class Out>
inline void forth(const Folds& f, const In& in, const Out& out, T* buffer, std::int64_t left) {
    using io = Io<T>;
    constexpr std::int64_t lanes = io::lanes, wide = vectors * lanes;
    const auto given = [&](std::int64_t i) { return in(f.elements[i]); };
    const auto kept = [&](std::int64_t i) { return buffer + i * wide; };
    fold_all<vectors, T>(f, given, kept, left, lanes);
    const T* factors = static_cast<const T*>(f.forth);
    for (std::int64_t s = 0; s < f.S; ++s) {
        const std::int64_t first = f.starts[s], count = f.starts[s + 1] - first;
        const T* const folded = buffer + s * f.Q * wide;
        const auto from = [&](std::int64_t q) { return folded + q * wide; };
        const auto to = [&](std::int64_t i) { return out(f.order[first + i]); };
        if (vectors == 1 && left < lanes) {
            for (std::int64_t r = 0; r < count; ++r) {
                typename io::V sum{};
                for (std::int64_t q = 0; q < f.Q; ++q) sum += factors[q * count + r] * io::load(from(q));
                store_left(to(r), sum, left);
            }
        } else {
            all_rows<vectors>(factors, f.Q, count, from, to);
        }
        factors += f.Q * count;
    }
}

// And G rows of coefficients: out(g) = Σ_r matrix[r, g] · in(r).
template <int vectors, class T, class In, class Out>
inline void back(const Folds& f, const In& in, const Out& out, T* buffer, std::int64_t left) {
    using io = Io<T>;
    constexpr std::int64_t lanes = io::lanes, wide = vectors * lanes;
    const T* factors = static_cast<const T*>(f.back);
    for (std::int64_t s = 0; s < f.S; ++s) {
        const std::int64_t first = f.starts[s], count = f.starts[s + 1] - first;
        T* const folded = buffer + s * f.Q * wide;
        const auto from = [&](std::int64_t i) { return in(f.order[first + i]); };
        const auto to = [&](std::int64_t q) { return folded + q * wide; };
        if (vectors == 1 && left < lanes) {
            for (std::int64_t q = 0; q < f.Q; ++q) {
                typename io::V sum{};
                for (std::int64_t i = 0; i < count; ++i) sum += factors[i * f.Q + q] * load_left(from(i), left);
                io::store(to(q), sum);
            }
        } else {
            all_rows<vectors>(factors, count, f.Q, from, to);
        }
        factors += f.Q * count;
    }
    const auto kept = [&](std::int64_t i) { return buffer + i * wide; };
    const auto wanted = [&](std::int64_t i) { return out(f.elements[i]); };
    fold_all<vectors, T>(f, kept, wanted, lanes, left);
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
