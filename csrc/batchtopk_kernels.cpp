// batchtopk: pre_acts [N, L] → acts [N, K], indices [N, K], threshold []; csrc/batchtopk.cpp puts these parts together.
#include "batchtopk.h"
#include "selection_marks.h"
#include "selection_sort.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

template <class T>
struct Batch {
    using io = Io<T>;
    using Acc = typename io::Acc;
    using O = Order<Acc>;
    using Value = typename O::Value;
    using Key = typename O::Key;

    static const T* row_of(const Rows& rows, std::int64_t row) {
        return static_cast<const T*>(rows.pre_acts) + row * rows.stride;
    }

    static std::size_t scratch_bytes(std::int64_t L, std::int64_t K) {
        const std::size_t keys = 2 * std::size_t(K + ranked_at_once) * sizeof(Key), marks = Marks<T>::bytes(L);
        return ((keys > marks ? keys : marks) + 63) / 64 * 64;
    }

    static std::uint64_t sample(const Rows& rows, std::int64_t count, double share) {
        constexpr int run = 16;  // neighbours come in the same cache line or two
        constexpr std::int64_t most = 1 << 15;
        Value values[run], all[most];
        std::uint32_t histogram[histogram_bytes / sizeof(std::uint32_t)];
        std::int64_t n = 0;
        std::uint64_t random = 1;
        const std::int64_t runs = (count < most ? count : most) / run;
        for (std::int64_t r = 0; r < runs; ++r) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            const std::int64_t column = std::int64_t((random >> 33) % std::uint64_t(rows.L / run)) * run;
            const T* const from = row_of(rows, r * rows.N / runs) + column;
            for (int i = 0; i < run; ++i) values[i] = O::of(io::get(from + i));
            __builtin_memcpy(all + n, values, sizeof values);
            n += run;
        }
        // Lower than the share asks for, so that too few reach it hardly ever.
        const double expected = share * double(n);
        const auto rank = std::int64_t(1.15 * expected + 5 * __builtin_sqrt(expected) + 16);
        return rank >= n ? 0 : kth_largest<Value>(n, rank, histogram, [&](std::int64_t i) { return all[i]; });
    }

    template <Ask ask>
    static Marks<T> marked(const Rows& rows, std::int64_t row, std::uint64_t value, void* scratch) {
        const KeepDenormals keep;
        Marks<T> marks;
        marks.lay_out(static_cast<char*>(scratch), rows.L);
        const T* const from = row_of(rows, row);
        Ahead ahead{reinterpret_cast<const char*>(from) + 4096};
        marks.template mark<ask, sizeof(T)>(from, O::back(Value(value)), ahead);
        return marks;
    }

    static std::int64_t collect(const Rows& rows, std::int64_t row, std::uint64_t value, void* keys, std::int64_t room,
                                void* scratch) {
        return gather(marked<Ask::at_least>(rows, row, value, scratch), row_of(rows, row), static_cast<Key*>(keys), room);
    }

    static std::int64_t gather(const Marks<T>& marks, const T* row, Key* keys, std::int64_t room) {
        return marks.each(room, [&](std::int64_t i) { *keys++ = O::key(O::of(io::get(row + i)), i); });
    }

    static std::int64_t collect_exact(const Rows& rows, std::int64_t row, std::uint64_t value, std::int64_t equals,
                                      void* keys, std::int64_t room, void* scratch) {
        Key* const to = static_cast<Key*>(keys);
        const T* const from = row_of(rows, row);
        std::int64_t n = 0;
        if (Value(value) != O::nan) n = gather(marked<Ask::above>(rows, row, value, scratch), from, to, room);
        for (std::int64_t i = 0; equals; ++i) {
            const Value v = O::of(io::get(from + i));
            if (v != Value(value)) continue;
            to[n++] = O::key(v, i);
            --equals;
        }
        return n;
    }

    static void tally(const Rows& rows, std::int64_t row, std::uint64_t value, std::int64_t* above,
                      std::int64_t* equal, void* scratch) {
        if (Value(value) == O::nan) {
            *above = 0;
            *equal = marked<Ask::is_nan>(rows, row, O::zero, scratch).count();
        } else {
            *above = marked<Ask::above>(rows, row, value, scratch).count();
            *equal = marked<Ask::equal>(rows, row, value, scratch).count();
        }
    }

    static void tally_keys(const void* keys, std::int64_t n, std::uint64_t value, std::int64_t* above,
                           std::int64_t* equal) {
        const Key* const from = static_cast<const Key*>(keys);
        std::int64_t more = 0, same = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const Value v = O::value(from[i]);
            more += v > Value(value);
            same += v == Value(value);
        }
        *above = more, *equal = same;
    }

    static void count_digit(Value v, std::uint64_t known, std::uint64_t mask, int shift, std::uint64_t* histogram) {
        if ((v & Value(mask)) == Value(known)) ++histogram[(v >> shift) & (n_digits - 1)];
    }

    static void digits(const Rows& rows, std::int64_t row, std::uint64_t known, std::uint64_t mask, int shift,
                       std::uint64_t* histogram) {
        const T* const from = row_of(rows, row);
        for (std::int64_t i = 0; i < rows.L; ++i) count_digit(O::of(io::get(from + i)), known, mask, shift, histogram);
    }

    static void digits_of_keys(const void* keys, std::int64_t n, std::uint64_t known, std::uint64_t mask, int shift,
                               std::uint64_t* histogram) {
        const Key* const from = static_cast<const Key*>(keys);
        for (std::int64_t i = 0; i < n; ++i) count_digit(O::value(from[i]), known, mask, shift, histogram);
    }

    static void write(const void* keys, std::int64_t n, std::uint64_t value, std::int64_t equals, std::int64_t K,
                      void* acts, std::int64_t* indices, void* scratch) {
        Key* const chosen = static_cast<Key*>(scratch);
        std::int64_t m = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const Key key = static_cast<const Key*>(keys)[i];
            const Value v = O::value(key);
            const bool tied = v == Value(value) && equals > 0;
            chosen[m] = key;
            m += v > Value(value) || tied;
            equals -= tied;
        }
        const Key* const from = sorted(chosen, chosen + K + ranked_at_once, m);
        T* const to = static_cast<T*>(acts);
        for (std::int64_t i = 0; i < m; ++i) {
            io::put(to + i, O::back(O::value(from[i])));
            indices[i] = O::index(from[i]);
        }
        for (std::int64_t i = m; i < K; ++i) {
            io::put(to + i, 0);
            indices[i] = 0;
        }
    }

    static double back(std::uint64_t value) { return double(O::back(Value(value))); }

    static constexpr BatchKernels kernels{sizeof(Key),   int(sizeof(Value)) * 8, O::zero, O::infinity,
                                          scratch_bytes, sample,                 collect, collect_exact,
                                          tally,         tally_keys,             digits,  digits_of_keys,
                                          write,         back};
};

}  // namespace

const BatchTable& batch_kernels() {
    static constexpr BatchTable table{
        {Batch<float>::kernels, Batch<double>::kernels, Batch<bf16>::kernels, Batch<fp16>::kernels}};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
