// topk: pre_acts [N, L] → acts [N, k], indices [N, k].
//
// A row takes two passes. The first keeps the maxima of P > k interleaved groups of elements: the k-th largest of those
// maxima bounds the row's k-th largest element from below, and tightly (in a row without order about
// k·(P/k)·ln(P/(P − k)) elements reach it). The second marks the elements that reach the bound. They are few, and are
// sorted. The row comes from memory once: both passes prefetch the row after it, and the second finds it in the cache.
#include "selection.h"
#include "selection_sort.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

constexpr std::int64_t near_row_bytes = 1 << 18;  // a row and the next one stay in the second-level cache

// Fetches what is needed soon, a cache line at a call, while the processor is busy with something else.
struct Ahead {
    const char* at;
    void fetch() {
        __builtin_prefetch(at);
        at += 64;
    }
};

template <class T>
struct RowSelection {
    using io = Io<T>;
    using V = typename io::V;
    using Acc = typename io::Acc;
    using O = Order<Acc>;
    using Value = typename O::Value;
    using Key = typename O::Key;
    static constexpr int lanes = io::lanes;
#if defined(GROUPCC_ISA_AVX512)
    static constexpr int accumulators = 16;
#else
    static constexpr int accumulators = 8;
#endif
    static constexpr int panel = accumulators * lanes;  // group maxima kept in registers at a time

    std::int64_t L, k, n_groups, limit;
    std::uint64_t* bits;    // of blocks of 64 elements in which something is marked
    std::uint32_t* blocks;  // which blocks these are
    Key *keys, *spare;      // room for limit + 64
    Acc* maxima;
    std::uint32_t* histogram;

    static std::size_t rounded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

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
            used += rounded(bytes);
            return at;
        };
        const std::size_t n_blocks = std::size_t(L) / 64 + 1, room = std::size_t(limit) + ranked_at_once;
        bits = reinterpret_cast<std::uint64_t*>(take(n_blocks * sizeof *bits));
        blocks = reinterpret_cast<std::uint32_t*>(take(n_blocks * sizeof *blocks));
        keys = reinterpret_cast<Key*>(take(room * sizeof *keys));
        spare = reinterpret_cast<Key*>(take(room * sizeof *spare));
        maxima = reinterpret_cast<Acc*>(take(std::size_t(n_groups) * sizeof *maxima));
        histogram = reinterpret_cast<std::uint32_t*>(take(histogram_bytes));
        return used;
    }

    // First pass: maxima[P], NaN left out.
    void group_maxima(const T* row, Ahead& ahead) {
        const Acc lowest = O::back(O::of(Acc(-__builtin_inff())));
        for (std::int64_t p = 0; p < n_groups; p += panel) {
            V acc[accumulators];
            for (V& a : acc) a = lowest - V{};
            for (std::int64_t at = p; at + panel <= L; at += n_groups) {
#pragma GCC unroll 16
                for (int j = 0; j < accumulators; ++j) {
                    if (j % 2) ahead.fetch();
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

    // The least of the maxima among the largest of them, k or a few more.
    Acc bound() const {
        Value low = ~Value(0), high = 0;
        for (std::int64_t i = 0; i < n_groups; ++i) {
            const Value v = O::of(maxima[i]);
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        // At least k maxima reach `low`; fewer than k reach `high`, one beyond the largest.
        ++high;
        for (int step = 0; step < 16 && high - low > 1; ++step) {
            const Value middle = low + (high - low) / 2;
            const std::int64_t count = maxima_from(O::back(middle));
            (count < k ? high : low) = middle;
            if (count >= k && count <= k + k / 8) break;
        }
        const Acc t = O::back(low);
        Acc least = O::back(O::infinity);
        for (std::int64_t i = 0; i < n_groups; ++i) least = maxima[i] >= t && maxima[i] < least ? maxima[i] : least;
        return least;
    }

    // Marks the elements for which `ask` holds; how many blocks have one.
    template <Ask ask>
    std::int64_t mark(const T* row, Acc t, Ahead& ahead) {
        std::int64_t marked = 0;
        const std::int64_t n_blocks = L / 64;
        for (std::int64_t b = 0; b < n_blocks; ++b) {
            const T* const from = row + b * 64;
            std::uint64_t m = 0;
#pragma GCC unroll 32
            for (int i = 0; i < 64; i += lanes) {
                if (i / lanes % 2) ahead.fetch();
                m |= lanes_where<ask>(io::load(from + i), t - V{}) << i;
            }
            bits[marked] = m;
            blocks[marked] = std::uint32_t(b);
            marked += m != 0;
        }
        std::uint64_t m = 0;
        for (std::int64_t i = n_blocks * 64; i < L; ++i) m |= std::uint64_t(holds<ask>(io::get(row + i), t)) << i % 64;
        bits[marked] = m;
        blocks[marked] = std::uint32_t(n_blocks);
        return marked + (m != 0);
    }

    // Keys of what is marked, from `n` on, at most to `limit`; their number, or limit + 1 where there are more.
    std::int64_t gather(const T* row, std::int64_t marked, std::int64_t n) {
        for (std::int64_t g = 0; g < marked; ++g) {
            std::uint64_t m = bits[g];
            const std::int64_t base = std::int64_t(blocks[g]) * 64;
            if (n + __builtin_popcountll(m) > limit) return limit + 1;
            do {
                const std::int64_t i = base + __builtin_ctzll(m);
                keys[n++] = O::key(O::of(io::get(row + i)), i);
                m &= m - 1;
            } while (m);
        }
        return n;
    }

    // The k-th largest is `t`: all above it, and of those equal to it the first.
    std::int64_t gather_exact(const T* row, Acc t, Ahead& ahead) {
        std::int64_t n = t == t ? gather(row, mark<Ask::above>(row, t, ahead), 0) : 0;
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
            const std::int64_t n = gather(row, mark<Ask::at_least>(row, t, ahead), 0);
            if (n <= limit) return n;
            // Too many: either they are equal to the bound, which then is the k-th largest …
            const std::int64_t above = gather(row, mark<Ask::above>(row, t, ahead), 0);
            if (above < k) return gather_exact(row, t, ahead);
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
