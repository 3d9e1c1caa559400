// Folds as Python passes them; included where pybind11 is.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>

#include "group_fold.h"
#include "scalar.h"

namespace groupcc {

// S, Q, R, then the addresses of elements, order, starts, forth and back.
using FoldArgs = std::array<std::int64_t, 8>;

inline Folds folds_of(const FoldArgs& args) {
    if (args[0] != 1 && args[0] != 2 && args[0] != 4) throw std::invalid_argument("folds: expected 1, 2 or 4 classes");
    const auto address = [&](int i) { return static_cast<std::uintptr_t>(args[static_cast<std::size_t>(i)]); };
    return {args[0], args[1], args[2], at<std::int64_t>(address(3)), at<std::int64_t>(address(4)),
            at<std::int64_t>(address(5)), at<void>(address(6)), at<void>(address(7))};
}

// Elements of a buffer for them: three vectors of each of G rows, in whichever instruction set.
inline std::int64_t fold_buffer(const Folds& folds) { return folds.S * folds.Q * 48; }

}  // namespace groupcc
