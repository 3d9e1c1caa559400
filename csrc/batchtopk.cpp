// batchtopk: pre_acts [N, L] → acts [N, K], indices [N, K], threshold [].
//
// A sample gives a value that a little more than N·k elements reach. One pass over pre_acts collects these; the exact
// N·k-th largest is found among them, digit by digit. Only positive ones are ever needed: the ReLU makes the others 0.
// Where the sample misled, or too many elements equal one another, the digits of all of pre_acts are counted instead.
#include "batchtopk.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "bindings.h"
#include "parallel.h"
#include "scratch.h"

namespace groupcc {
namespace {

class BatchTopk {
  public:
    BatchTopk(const Tensor& pre_acts, std::int64_t k, int threads)
        : dtype(floating(pre_acts, "pre_acts")),
          rows(rows_of(pre_acts)),
          kernels(batch_kernels().of[dtype]),
          key_bytes(static_cast<std::int64_t>(kernels.key_bytes)),
          wanted(rows.N * k),
          n_threads(static_cast<int>(std::min<std::int64_t>(std::max(threads, 1), std::max<std::int64_t>(rows.N, 1)))),
          room(std::min(3 * wanted + rows.L, rows.N * rows.L)),
          parts(static_cast<std::size_t>(rows.N)) {
        if (k < 1 || k > rows.L) throw std::invalid_argument("k: expected from 1 to L");
        if (rows.N == 0) return;
        for (int t = 0; t < n_threads; ++t) collected.push_back(memory.take<char>(room * key_bytes));
        find();
    }

    std::int64_t K() const { return most; }
    double threshold() const { return least; }

    void write(const Tensor& acts, const Tensor& indices) {
        char* const to = elements<char>(acts, "acts", static_cast<Dtype>(dtype), {rows.N, most});
        auto* const chosen = elements<std::int64_t>(indices, "indices", Dtype::int64, {rows.N, most});
        each_row(most, [&](std::int64_t row, void* scratch) {
            const Part& part = parts[static_cast<std::size_t>(row)];
            const std::int64_t from = row * most;
            kernels.write(part.keys, part.n, cut, part.equals, most,
                          to + from * size_of(dtype), chosen + from, scratch);
        });
    }

  private:
    // What was collected of a row, and how many of its keys equal to `cut` are chosen.
    struct Part {
        const char* keys = nullptr;
        std::int64_t n = 0, equals = 0;
    };

    void find() {
        const std::uint64_t positive = kernels.zero + 1;
        const double share = static_cast<double>(wanted) / (static_cast<double>(rows.N) * static_cast<double>(rows.L));
        std::uint64_t from = positive;
        if (rows.N * rows.L > 1 << 18 && rows.L >= 64) {
            from = std::min(std::max(kernels.sample(rows, 1 << 15, share), positive), kernels.infinity);
        }
        std::int64_t found = collect(from);
        if (found < 0 || (found < wanted && from > positive)) {
            cut = kth([&](std::int64_t row, std::uint64_t known, std::uint64_t mask, int shift, std::uint64_t* h) {
                kernels.digits(rows, row, known, mask, shift, h);
            });
            if (cut < positive) {
                found = collect(positive);
            } else {
                collect_exact();
                found = wanted;
            }
        }
        cut = kernels.zero;
        if (found >= wanted) {
            cut = kth([&](std::int64_t row, std::uint64_t known, std::uint64_t mask, int shift, std::uint64_t* h) {
                const Part& part = parts[static_cast<std::size_t>(row)];
                kernels.digits_of_keys(part.keys, part.n, known, mask, shift, h);
            });
        }
        least = kernels.back(cut);
        choose();
    }

    // body(row, scratch) for every row, in order within a thread.
    template <class Body>
    void each_row(std::int64_t K, const Body& body) {
        const auto bytes = static_cast<std::int64_t>(kernels.scratch_bytes(rows.L, K));
        Scratch working;
        char* const scratch = working.take<char>(bytes * n_threads);
        parallel_for(rows.N, n_threads, [&](std::int64_t begin, std::int64_t end, int thread) {
            for (std::int64_t row = begin; row < end; ++row) {
                body(row, scratch + bytes * thread);
            }
        });
    }

    // get(row, scratch, keys, room) → how many keys it wrote, or room + 1; the sum, or -1 where there was no room.
    template <class Get>
    std::int64_t fill(const Get& get) {
        std::vector<std::int64_t> used(static_cast<std::size_t>(n_threads), 0);
        const auto bytes = static_cast<std::int64_t>(kernels.scratch_bytes(rows.L, 0));
        Scratch working;
        char* const scratch = working.take<char>(bytes * n_threads);
        std::atomic<bool> full{false};
        parallel_for(rows.N, n_threads, [&](std::int64_t begin, std::int64_t end, int thread) {
            const auto t = static_cast<std::size_t>(thread);
            std::int64_t n = 0;
            for (std::int64_t row = begin; row < end && !full; ++row) {
                char* const keys = collected[t] + n * key_bytes;
                const std::int64_t found = get(row, scratch + bytes * thread, keys, room - n);
                if (found > room - n) {
                    full = true;
                    break;
                }
                parts[static_cast<std::size_t>(row)] = Part{keys, found, 0};
                n += found;
            }
            used[t] = n;
        });
        if (full) return -1;
        std::int64_t sum = 0;
        for (const std::int64_t n : used) sum += n;
        return sum;
    }

    std::int64_t collect(std::uint64_t value) {
        return fill([&](std::int64_t row, void* scratch, void* keys, std::int64_t space) {
            return kernels.collect(rows, row, value, keys, space, scratch);
        });
    }

    // The keys of the chosen alone, where `cut` is known.
    void collect_exact() {
        std::vector<std::int64_t> above(static_cast<std::size_t>(rows.N)), equal(above.size());
        each_row(0, [&](std::int64_t row, void* scratch) {
            const auto n = static_cast<std::size_t>(row);
            kernels.tally(rows, row, cut, &above[n], &equal[n], scratch);
        });
        share_out(above, equal);
        fill([&](std::int64_t row, void* scratch, void* keys, std::int64_t space) {
            return kernels.collect_exact(rows, row, cut, equal[static_cast<std::size_t>(row)], keys, space, scratch);
        });
    }

    // Of what equals `cut`, the first fill the places that are left: `equal` becomes each row's part of them.
    void share_out(const std::vector<std::int64_t>& above, std::vector<std::int64_t>& equal) const {
        std::int64_t left = wanted;
        for (const std::int64_t n : above) left -= n;
        for (std::int64_t& n : equal) {
            n = std::min(n, left);
            left -= n;
        }
    }

    void choose() {
        std::vector<std::int64_t> above(parts.size()), equal(parts.size());
        each_row(0, [&](std::int64_t row, void*) {
            const auto n = static_cast<std::size_t>(row);
            kernels.tally_keys(parts[n].keys, parts[n].n, cut, &above[n], &equal[n]);
        });
        share_out(above, equal);
        for (std::size_t n = 0; n < parts.size(); ++n) {
            parts[n].equals = equal[n];
            most = std::max(most, above[n] + equal[n]);
        }
    }

    // The value of the `wanted`-th largest; count(row, known, mask, shift, histogram) counts the digits of a row.
    template <class Count>
    std::uint64_t kth(const Count& count) const {
        std::uint64_t known = 0, mask = 0;
        std::int64_t rank = wanted;
        for (int bits_left = kernels.value_bits; bits_left > 0;) {
            const int shift = std::max(bits_left - digit_bits, 0);
            // A last, shorter step counts some known bits again; they are the same in all that is counted.
            std::vector<std::uint64_t> histograms(static_cast<std::size_t>(n_digits) * static_cast<std::size_t>(n_threads), 0);
            parallel_for(rows.N, n_threads, [&](std::int64_t begin, std::int64_t end, int thread) {
                for (std::int64_t row = begin; row < end; ++row) {
                    count(row, known, mask, shift, histograms.data() + n_digits * static_cast<std::size_t>(thread));
                }
            });
            auto digit = static_cast<std::size_t>(n_digits);
            std::int64_t here = 0;
            do {
                --digit;
                rank -= here;
                here = 0;
                for (std::size_t t = 0; t < static_cast<std::size_t>(n_threads); ++t) {
                    here += static_cast<std::int64_t>(histograms[t * n_digits + digit]);
                }
            } while (here < rank);
            known |= static_cast<std::uint64_t>(digit) << shift;
            mask |= static_cast<std::uint64_t>(n_digits - 1) << shift;
            bits_left = shift;
        }
        return known;
    }

    const int dtype;
    const Rows rows;
    const BatchKernels& kernels;
    const std::int64_t key_bytes;
    const std::int64_t wanted;
    const int n_threads;
    const std::int64_t room;  // keys that a thread may collect
    Scratch memory;
    std::vector<char*> collected;  // each thread's keys
    std::vector<Part> parts;
    std::uint64_t cut = 0;
    std::int64_t most = 1;
    double least = 0;
};

}  // namespace

void bind_batchtopk(pybind11::module_& m) {
    using namespace pybind11::literals;
    using Release = pybind11::call_guard<pybind11::gil_scoped_release>;
    pybind11::class_<BatchTopk>(m, "BatchTopk", "The N·k largest of a batch.")
        .def(pybind11::init<const Tensor&, std::int64_t, int>(), "pre_acts"_a, "k"_a, "threads"_a, Release(),
             pybind11::keep_alive<1, 2>())
        .def_property_readonly("K", &BatchTopk::K)
        .def_property_readonly("threshold", &BatchTopk::threshold)
        .def("write", &BatchTopk::write, "acts"_a, "indices"_a, Release());
}

}  // namespace groupcc
