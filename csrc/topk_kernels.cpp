// topk: pre_acts [N, L] → acts [N, k], indices [N, k].
//
// A row takes two passes. The first keeps the maxima of P > k interleaved groups of elements: the k-th largest of those
// maxima bounds the row's k-th largest element from below, and tightly (in a row without order about
// P·ln(P/(P − k)) elements reach it, 74 for k = 64 and P = 256). The second marks the elements that reach the bound.
// They are few, and are ranked by counting. The row comes from memory once, in its first pass; its second runs in the
// same loop as the first of the row after it, which waits for memory most of the time.
#include "topk.h"
#include "selection_marks.h"
#include "selection_sort.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

constexpr std::int64_t ahead_bytes = 4096;

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
    static constexpr Acc lowest = -__builtin_inff();
    static constexpr int first_step = sizeof(Acc) == 4 ? 17 : 46;  // of the search for the bound: 2^-6 of the value

    std::int64_t L, k, n_groups, limit;
    Marks<T> marks;
    std::int64_t* picked;    // indices of candidates, equal ones rising: room for limit + ranked_at_once, as all here
    Value *values, *ranks;   // of the candidates, where they are few
    Key *keys, *spare;       // theirs, where they are many
    Acc* maxima;
    std::uint32_t* histogram;
    Value last = O::zero;  // the bound of the row before

    static std::int64_t limit_for(std::int64_t L, std::int64_t k) {
        const std::int64_t wanted = 2 * k + 256;
        return wanted < L ? wanted : L;
    }

    // 0 where groups would be too small to bound anything.
    static std::int64_t groups_for(std::int64_t L, std::int64_t k) {
        const std::int64_t least = k + k / 2 < 128 ? 128 : k + k / 2, P = (least + panel - 1) / panel * panel;
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
        picked = reinterpret_cast<std::int64_t*>(take(room * sizeof *picked));
        values = reinterpret_cast<Value*>(take(ranked_at_once * sizeof *values));
        ranks = reinterpret_cast<Value*>(take(ranked_at_once * sizeof *ranks));
        keys = reinterpret_cast<Key*>(take(room * sizeof *keys));
        spare = reinterpret_cast<Key*>(take(room * sizeof *spare));
        maxima = reinterpret_cast<Acc*>(take(std::size_t(n_groups) * sizeof *maxima));
        histogram = reinterpret_cast<std::uint32_t*>(take(histogram_bytes));
        return used;
    }

    static V* cleared(V* acc) {
        for (int j = 0; j < accumulators; ++j) acc[j] = lowest - V{};
        return acc;
    }

    // NaN is left out.
    static void add_panel(V* acc, const T* from, Ahead& ahead) {
#pragma GCC unroll 16
        for (int j = 0; j < accumulators; ++j) {
            if (j * vector_bytes % 64 == 0) ahead.fetch();
            acc[j] = greatest(io::load(from + j * lanes), acc[j]);
        }
    }

    // First pass: maxima[P].
    void group_maxima(const T* row, Ahead& ahead) {
        for (std::int64_t p = 0; p < n_groups; p += panel) {
            V acc[accumulators];
            cleared(acc);
            for (std::int64_t at = p; at + panel <= L; at += n_groups) add_panel(acc, row + at, ahead);
            __builtin_memcpy(maxima + p, acc, sizeof acc);
        }
    }

    // Second pass of `row` and first of `next`, for P = panel.
    void both_passes(const T* row, Acc t, const T* next, Ahead& ahead) {
        constexpr int blocks = panel / 64;
        V acc[accumulators];
        cleared(acc);
        marks.start();
        std::int64_t block = 0;
        for (; (block + blocks) * 64 <= L; block += blocks) {
            add_panel(acc, next + block * 64, ahead);
#pragma GCC unroll 8
            for (int b = 0; b < blocks; ++b) marks.template mark_block<Ask::at_least>(row, t - V{}, block + b);
        }
        marks.template mark_rest<Ask::at_least>(row, t, block);
        __builtin_memcpy(maxima, acc, sizeof acc);
    }

    bool one_panel() const { return panel % 64 == 0 && n_groups == panel && L > limit; }

    std::int64_t maxima_from(Acc t) const {
        std::int64_t count = 0;
        for (std::int64_t i = 0; i < n_groups; i += lanes) {
            count += __builtin_popcountll(lanes_where<Ask::at_least>(load_bytes<V>(maxima + i), t - V{}));
        }
        return count;
    }

    // The least of the maxima among the largest of them, k or a few more.
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

    // picked: what is marked; how many, or limit + 1.
    std::int64_t pick() {
        std::int64_t* to = picked;
        return marks.each(limit, [&](std::int64_t i) { *to++ = i; });
    }

    // The k-th largest is `t`: all above it, and of those equal to it the first. Picks k.
    void pick_exact(const T* row, Acc t, Ahead& ahead) {
        std::int64_t n = 0;
        if (t == t) {
            marks.template mark<Ask::above>(row, t, ahead);
            n = pick();
        }
        for (std::int64_t i = 0; n < k; ++i) {
            const Acc x = io::get(row + i);
            if (x == t || (x != x && t != t)) picked[n++] = i;
        }
    }

    // Picks at most `limit` elements, the k largest among them, of a row whose marks reach the bound `t`.
    std::int64_t pick_marked(const T* row, Acc t, Ahead& ahead) {
        const std::int64_t n = pick();
        if (n <= limit) return n;
        // Too many: either they are equal to the bound, which then is the k-th largest …
        marks.template mark<Ask::above>(row, t, ahead);
        const std::int64_t above = pick();
        if (above < k) {
            pick_exact(row, t, ahead);
            return k;
        }
        // … or come beside as many larger ones as are wanted, or a few more …
        if (above <= limit) return above;
        // … or the largest lie in a few groups.
        return pick_unbounded(row, ahead);
    }

    std::int64_t pick_unbounded(const T* row, Ahead& ahead) {
        const auto value = [&](std::int64_t i) { return O::of(io::get(row + i)); };
        pick_exact(row, O::back(kth_largest<Value>(L, k, histogram, value)), ahead);
        return k;
    }

    std::int64_t pick_all() {
        for (std::int64_t i = 0; i < L; ++i) picked[i] = i;
        return L;
    }

    static void put(Value v, T* act) { io::put(act, v > O::zero ? O::back(v) : Acc(0)); }

    // Of n picked, the k largest in order.
    void write(const T* row, std::int64_t n, T* acts, std::int64_t* indices, Ahead& ahead) {
        if (n <= ranked_at_once) {
            for (std::int64_t i = 0; i < n; ++i) values[i] = O::of(io::get(row + picked[i]));
            rank(values, n, ranks, ahead);
            for (std::int64_t i = 0; i < n; ++i) {
                const auto at = std::int64_t(ranks[i]);
                if (at >= k) continue;
                put(values[i], acts + at);
                indices[at] = picked[i];
            }
            return;
        }
        for (std::int64_t i = 0; i < n; ++i) keys[i] = O::key(O::of(io::get(row + picked[i])), picked[i]);
        const Key* const largest = sorted(keys, spare, n);
        for (std::int64_t i = 0; i < k; ++i) {
            put(O::value(largest[i]), acts + i);
            indices[i] = O::index(largest[i]);
        }
    }
};

template <class T>
void topk(const Rows& rows, std::int64_t k, void* acts, std::int64_t* indices, std::int64_t begin, std::int64_t end,
          void* scratch) {
    const KeepDenormals keep;
    RowSelection<T> selection;
    selection.lay_out(static_cast<char*>(scratch), rows.L, k);
    const auto row_of = [&](std::int64_t n) { return static_cast<const T*>(rows.pre_acts) + n * rows.stride; };
    Ahead ahead{reinterpret_cast<const char*>(row_of(begin)) + ahead_bytes};
    const bool one_panel = selection.one_panel();
    if (one_panel && begin < end) selection.group_maxima(row_of(begin), ahead);
    for (std::int64_t n = begin; n < end; ++n) {
        const T* const row = row_of(n);
        std::int64_t found;
        if (one_panel) {
            const T* const next = row_of(n + 1 < end ? n + 1 : n);
            const char* const soon = reinterpret_cast<const char*>(next) + ahead_bytes;
            if (ahead.at < soon || ahead.at > soon + ahead_bytes) ahead.at = soon;
            const typename Io<T>::Acc t = selection.bound();
            selection.both_passes(row, t, next, ahead);
            found = selection.pick_marked(row, t, ahead);
        } else if (selection.L <= selection.limit) {
            found = selection.pick_all();
        } else if (selection.n_groups) {
            ahead.at = reinterpret_cast<const char*>(row) + ahead_bytes;
            selection.group_maxima(row, ahead);
            const typename Io<T>::Acc t = selection.bound();
            selection.marks.template mark<Ask::at_least>(row, t, ahead);
            found = selection.pick_marked(row, t, ahead);
        } else {
            found = selection.pick_unbounded(row, ahead);
        }
        selection.write(row, found, static_cast<T*>(acts) + n * k, indices + n * k, ahead);
    }
}

template <class T>
std::size_t scratch_bytes(std::int64_t L, std::int64_t k) {
    return RowSelection<T>().lay_out(nullptr, L, k);
}

}  // namespace

const TopkKernels& topk_kernels() {
    static constexpr TopkKernels table{
        {topk<float>, topk<double>, topk<bf16>, topk<fp16>},
        {scratch_bytes<float>, scratch_bytes<double>, scratch_bytes<bf16>, scratch_bytes<fp16>}};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
