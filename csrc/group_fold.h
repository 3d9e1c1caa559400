// A transform's matrix [R, G] in parts: what the transforms of group_correlate and group_correlate_max share.
//
// Involutions of the G columns that commute and fix none (multiplication by half a turn, or by a reflection) leave each
// row as it is but for its sign. So G inputs are first added and subtracted by fours or twos, and a row reads those alone
// that have its signs: a quarter or half of the multiplications.
#pragma once

#include <cstdint>

namespace groupcc {

// S = 1, 2 or 4 classes of signs, G = S · Q: involutions σ takes column elements[q] to elements[σ · Q + q], and row r,
// of class s, from matrix[r, elements[q]] to (−1)^(bits of s & σ) times it.
struct Folds {
    std::int64_t S, Q, R;
    const std::int64_t* elements;  // [S, Q]
    const std::int64_t* order;     // [R]: rows, class after class
    const std::int64_t* starts;    // [S + 1]: where each class begins there
    const void* forth;             // matrix at elements[q]: of each class in turn [Q, rows of the class]
    const void* back;              // and [rows of the class, Q]
};

}  // namespace groupcc
