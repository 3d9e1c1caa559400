// What topk and batchtopk share.
//
// An element is ordered by a key: the higher bits order its value (NaN above infinity, −0 equal to +0), the lower bits
// hold ~index, so that the larger of two keys is the one to choose first. Keys are 64 bits, for float64 128. Example, the
// float32 row [2, 5, 5]: the values 2 and 5 become 0xc0000000 and 0xc0a00000, and index 1 becomes 0xfffffffe. So the keys
// are 0xc0000000ffffffff, 0xc0a00000fffffffe and 0xc0a00000fffffffd: of the equal entries 1 and 2, entry 1 comes first.
#pragma once

#include <cstddef>
#include <cstdint>

namespace groupcc {

// Values are counted by so many bits at a time, where the k-th largest is looked for.
constexpr int digit_bits = 11, n_digits = 1 << digit_bits;

struct Rows {
    const void* pre_acts;  // [N, L], rows `stride` elements apart, each contiguous
    std::int64_t stride, N, L;
};

}  // namespace groupcc
