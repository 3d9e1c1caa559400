// batchtopk: pre_acts [N, L] → acts [N, K], indices [N, K], threshold [].
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"
#include "selection.h"

namespace groupcc {

// Values here are those of Order (selection_vec.h), widened to 64 bits; keys are of key_bytes. Every function takes one
// row, or the keys of one, and `scratch` of scratch_bytes(L, K), aligned to 64, where it has one.
struct BatchKernels {
    std::size_t key_bytes;
    int value_bits;
    std::uint64_t zero, infinity;
    std::size_t (*scratch_bytes)(std::int64_t L, std::int64_t K);
    // A value that somewhat more than `share` of all elements reach, going by about `count` of them.
    std::uint64_t (*sample)(const Rows& rows, std::int64_t count, double share);
    // Keys of the elements of at least `value`: their number, or room + 1.
    std::int64_t (*collect)(const Rows& rows, std::int64_t row, std::uint64_t value, void* keys, std::int64_t room,
                            void* scratch);
    // Keys of all elements above `value` and of the first `equals` equal to it; their number.
    std::int64_t (*collect_exact)(const Rows& rows, std::int64_t row, std::uint64_t value, std::int64_t equals,
                                  void* keys, std::int64_t room, void* scratch);
    // Numbers of elements above `value` and equal to it.
    void (*tally)(const Rows& rows, std::int64_t row, std::uint64_t value, std::int64_t* above, std::int64_t* equal,
                  void* scratch);
    void (*tally_keys)(const void* keys, std::int64_t n, std::uint64_t value, std::int64_t* above, std::int64_t* equal);
    // histogram[n_digits] gains the digits v >> shift & (n_digits - 1) of the values with (v & mask) == known.
    void (*digits)(const Rows& rows, std::int64_t row, std::uint64_t known, std::uint64_t mask, int shift,
                   std::uint64_t* histogram);
    void (*digits_of_keys)(const void* keys, std::int64_t n, std::uint64_t known, std::uint64_t mask, int shift,
                           std::uint64_t* histogram);
    // acts [K], indices [K] from the keys above `value` and the first `equals` equal to it, padded with 0.
    void (*write)(const void* keys, std::int64_t n, std::uint64_t value, std::int64_t equals, std::int64_t K, void* acts,
                  std::int64_t* indices, void* scratch);
    double (*back)(std::uint64_t value);
};

struct BatchTable {
    BatchKernels of[4];  // by Dtype
};

GROUPCC_DECLARE(BatchTable, batch_kernels)

}  // namespace groupcc
