// topk: pre_acts [N, L] → acts [N, k], indices [N, k].
//
// A row takes two passes. The first keeps the maxima of P > k interleaved groups of elements: the k-th largest of those
// maxima bounds the row's k-th largest element from below, and tightly (in a row without order about
// k·(P/k)·ln(P/(P − k)) elements reach it). The second marks the elements that reach the bound. They are few, and are
// sorted. The row comes from memory once: both passes prefetch the row after it, and the second finds it in the cache.
#include "selection.h"
#include "selection_marks.h"
#include "selection_sort.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

constexpr std::int64_t near_row_bytes = 1 << 18;  // a row and the next one stay in the second-level cache

template <class T>
struct RowSelection {
    using io = Io<T>;
    using V = typename io::V;
    using Acc = typename io::Acc;
    using O = Order<Acc>;
    using Value = typename O::Value;
    using Key = typename O::Key;
    static constexpr int lanes = io::lanes, vector_bytes = lanes * int(sizeof(T));
#if defined(GROUPCC_ISA_AVX512)
    static constexpr int accumulators = 16;
#else
    static constexpr int accumulators = 8;
#endif
    static constexpr int panel = accumulators * lanes;  // group maxima kept in registers at a time

    std::int64_t L, k, n_groups, limit;
    Marks<T> marks;
    Key *keys, *spare;  // room for limit + ranked_at_once
    Acc* maxima;
    std::uint32_t* histogram;
    Value last = O::zero;
    static constexpr Acc lowest = -__builtin_inff();
    static constexpr int first_step = sizeof(Acc) == 4 ? 17 : 46;  // 2^-6 of the value

    static std::int64_t limit_for(std::int64_t L, std::int64_t k) {
        const std::int64_t wanted = 2 * k + 256;
        return wanted < L ? wanted : L;
    }

    // 0 where groups would be too small to bound anything.
    static std::int64_t groups_for(std::int64_t L, std::int64_t k) {
        const std::int64_t least = k + k / 2 < 256 ? 256 : 2 * k, P = (least + panel - 1) / panel * panel;
        return 4 * P <= L ? P : 0;
    }

    // Lays out the scratch memory; its size where `base` is null.
    std::size_t lay_out(char* base, std::int64_t n_latents, std::int64_t n_chosen) {
        L = n_latents, k = n_chosen, n_groups = groups_for(L, k), limit = limit_for(L, k);
        std::size_t used = 0;
        const auto take = [&](std::size_t bytes) {
            char* const at = base + used;
            used += (bytes + 63) / 64 * 64;
            return at;
        };
        const std::size_t room = std::size_t(limit) + ranked_at_once;
        marks.lay_out(take(Marks<T>::bytes(L)), L);
        keys = reinterpret_cast<Key*>(take(room * sizeof *keys));
        spare = reinterpret_cast<Key*>(take(room * sizeof *spare));
        maxima = reinterpret_cast<Acc*>(take(std::size_t(n_groups) * sizeof *maxima));
        histogram = reinterpret_cast<std::uint32_t*>(take(histogram_bytes));
        return used;
    }

    // First pass: maxima[P], NaN left out.
    void group_maxima(const T* row, Ahead& ahead) {
        for (std::int64_t p = 0; p < n_groups; p += panel) {
            V acc[accumulators];
            for (V& a : acc) a = lowest - V{};
            for (std::int64_t at = p; at + panel <= L; at += n_groups) {
#pragma GCC unroll 16
                for (int j = 0; j < accumulators; ++j) {
                    if (j * vector_bytes % 128 == 0) ahead.fetch();
                    acc[j] = greatest(io::load(row + at + j * lanes), acc[j]);
                }
            }
            for (int j = 0; j < accumulators; ++j) __builtin_memcpy(maxima + p + j * lanes, &acc[j], sizeof(V));
        }
    }

    std::int64_t maxima_from(Acc t) const {
        std::int64_t count = 0;
        for (std::int64_t i = 0; i < n_groups; i += lanes) {
            count += __builtin_popcountll(lanes_where<Ask::at_least>(load_bytes<V>(maxima + i), t - V{}));
        }
        return count;
    }

    // The least of the maxima among the largest of them, k or a few more. `last`: the row before's, to start from.
    Acc bound() {
        // At least k maxima reach `low`, fewer than k reach `high`. Steps double away from the start, then halve.
        Value low = O::of(lowest), high = O::infinity + 1, step = Value(1) << first_step, probe = last;
        bool doubling = true, rising = false;
        for (int probes = 0; probes < 40 && high - low > 1; ++probes) {
            if (probe <= low || probe >= high) {
                doubling = false;
                probe = low + (high - low) / 2;
            }
            const std::int64_t count = maxima_from(O::back(probe));
            if (count >= k && count <= k + k / 8) {
                low = probe;
                break;
            }
            const bool up = count >= k;
            (up ? low : high) = probe;
            if (probes && up != rising) doubling = false;
            rising = up;
            probe = doubling ? (up ? probe + step : probe - step) : low + (high - low) / 2;
            step *= 2;
        }
        last = low;
        // An element, so that where many equal it, it is seen to be the k-th largest itself.
        const V t = O::back(low) - V{};
        V least = -lowest - V{};
        for (std::int64_t i = 0; i < n_groups; i += lanes) {
            const V m = load_bytes<V>(maxima + i);
            const V reaching = m >= t ? m : least;
            least = reaching < least ? reaching : least;
        }
        Acc found = least[0];
        for (int i = 1; i < lanes; ++i) found = least[i] < found ? least[i] : found;
        return found;
    }

    // The k-th largest is `t`: all above it, and of those equal to it the first.
    std::int64_t gather_exact(const T* row, Acc t, Ahead& ahead) {
        std::int64_t n = 0;
        if (t == t) {
            marks.template mark<Ask::above>(row, t, ahead);
            n = marks.gather(row, keys, limit);
        }
        for (std::int64_t i = 0; n < k; ++i) {
            const Acc x = io::get(row + i);
            if (x == t || (x != x && t != t)) keys[n++] = O::key(O::of(x), i);
        }
        return n;
    }

    // Keys of at most `limit` elements, the k largest among them; their number.
    std::int64_t candidates(const T* row, Ahead& ahead) {
        if (L <= limit) {
            for (std::int64_t i = 0; i < L; ++i) keys[i] = O::key(O::of(io::get(row + i)), i);
            return L;
        }
        if (n_groups) {
            group_maxima(row, ahead);
            const Acc t = bound();
            marks.template mark<Ask::at_least>(row, t, ahead);
            const std::int64_t n = marks.gather(row, keys, limit);
            if (n <= limit) return n;
            // Too many: either they are equal to the bound, which then is the k-th largest …
            marks.template mark<Ask::above>(row, t, ahead);
            if (marks.gather(row, keys, limit) < k) return gather_exact(row, t, ahead);
        }
        // … or the largest lie in a few groups, or there is no bound.
        const auto value = [&](std::int64_t i) { return O::of(io::get(row + i)); };
        return gather_exact(row, O::back(kth_largest<Value>(L, k, histogram, value)), ahead);
    }

    void write(const Key* chosen, T* acts, std::int64_t* indices) const {
        for (std::int64_t i = 0; i < k; ++i) {
            const Value v = O::value(chosen[i]);
            io::put(acts + i, v > O::zero ? O::back(v) : Acc(0));
            indices[i] = O::index(chosen[i]);
        }
    }

    const Key* largest(std::int64_t n) {
        if constexpr (sizeof(Key) == 8) {
            if (n <= ranked_at_once) {
                rank(keys, n, k, spare);
                return spare;
            }
        }
        return sorted(keys, spare, n);
    }
};

template <class T>
void topk(const Rows& rows, std::int64_t k, void* acts, std::int64_t* indices, std::int64_t begin, std::int64_t end,
          void* scratch) {
    const KeepDenormals keep;
    RowSelection<T> selection;
    selection.lay_out(static_cast<char*>(scratch), rows.L, k);
    const bool near = rows.L * std::int64_t(sizeof(T)) <= near_row_bytes;
    for (std::int64_t n = begin; n < end; ++n) {
        const T* const row = static_cast<const T*>(rows.pre_acts) + n * rows.stride;
        const std::int64_t next = near && n + 1 < end ? rows.stride : 1024;
        Ahead ahead{reinterpret_cast<const char*>(row + next)};
        const std::int64_t found = selection.candidates(row, ahead);
        selection.write(selection.largest(found), static_cast<T*>(acts) + n * k, indices + n * k);
    }
}

template <class T>
std::size_t scratch_bytes(std::int64_t L, std::int64_t k) {
    return RowSelection<T>().lay_out(nullptr, L, k);
}

}  // namespace

const SelectionKernels& selection_kernels() {
    static constexpr SelectionKernels table{
        {topk<float>, topk<double>, topk<bf16>, topk<fp16>},
        {scratch_bytes<float>, scratch_bytes<double>, scratch_bytes<bf16>, scratch_bytes<fp16>}};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
