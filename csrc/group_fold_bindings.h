// Folds and the layouts of a transform's rows as Python holds them: made and checked once for each group, type and size.
// The Python objects keep their tensors alive.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "group_fold.h"
#include "tensor.h"

namespace groupcc {

// Python's _C.Folds.
struct FoldsOf {
    int dtype;  // float32 or float64
    Folds folds;

    FoldsOf(const Tensor& elements_, const Tensor& order_, const Tensor& starts_, const Tensor& forth, const Tensor& back)
        : dtype(floating(forth, "forth")) {
        if (dtype > 1) throw std::invalid_argument("forth: expected float32 or float64");
        const auto [S, Q] = shape_of<2>(elements_, "elements");
        const std::int64_t R = shape_of<1>(order_, "order")[0];
        if (S != 1 && S != 2 && S != 4) throw std::invalid_argument("elements: expected 1, 2 or 4 classes");
        folds = {S, Q, R, elements<std::int64_t>(elements_, "elements", Dtype::int64, {S, Q}),
                 elements<std::int64_t>(order_, "order", Dtype::int64, {R}),
                 elements<std::int64_t>(starts_, "starts", Dtype::int64, {S + 1}),
                 elements<void>(forth, "forth", *forth.dtype, {Q * R}),
                 elements<void>(back, "back", *forth.dtype, {Q * R})};
        const bool from_0_to_R = folds.starts[0] == 0 && folds.starts[S] == R;
        if (!from_0_to_R || !std::is_sorted(folds.starts, folds.starts + S + 1)) {
            throw std::invalid_argument("starts: expected rising numbers from 0 to R");
        }
        if (!all_below(folds.elements, S * Q, S * Q)) throw std::invalid_argument("elements: expected 0 to G - 1");
        if (!all_below(folds.order, R, R)) throw std::invalid_argument("order: expected 0 to R - 1");
    }
    std::int64_t G() const { return folds.S * folds.Q; }

private:
    static bool all_below(const std::int64_t* values, std::int64_t count, std::int64_t limit) {
        return std::all_of(values, values + count, [&](std::int64_t v) { return v >= 0 && v < limit; });
    }
};

// Python's _C.Layout. Row c of example n, of `width` elements, begins at offset[c] + n · stride[c].
struct Layout {
    const std::int64_t *offset, *stride;
    std::int64_t rows, N, width;

    Layout(const Tensor& offset_, const Tensor& stride_, std::int64_t N, std::int64_t width) : N(N), width(width) {
        rows = shape_of<1>(offset_, "offset")[0];
        offset = elements<std::int64_t>(offset_, "offset", Dtype::int64, {rows});
        stride = elements<std::int64_t>(stride_, "stride", Dtype::int64, {rows});
        if (N < 0 || width < 0) throw std::invalid_argument("N, width: expected 0 or more");
        for (std::int64_t c = 0; N > 0 && c < rows; ++c) {
            const std::int64_t last = offset[c] + (N - 1) * stride[c];
            if (offset[c] < 0 || stride[c] < 0 || last + width > count()) {
                throw std::invalid_argument("offset, stride: expected rows that lie in rows · N · width elements");
            }
        }
    }
    std::int64_t count() const { return rows * N * width; }
};

// Elements of a buffer for a thread's transforms: three vectors of each of G rows, in whichever instruction set.
inline std::int64_t fold_buffer(const Folds& folds) { return folds.S * folds.Q * 48; }

}  // namespace groupcc
