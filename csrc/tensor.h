// A PyTorch tensor as Python passes it. An address travels with its shape, strides and type alone.
//
// Read through the tensor's Python attributes, so that the extension needs no libtorch and fits every PyTorch.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>

#include "scalar.h"

namespace groupcc {

using Shape = std::initializer_list<std::int64_t>;

struct Tensor {
    static constexpr int most_axes = 8;
    void* data = nullptr;
    int axes = 0;
    std::array<std::int64_t, most_axes> sizes{}, strides{};  // strides in elements
    std::optional<Dtype> dtype;                              // none: a type that no kernel takes
    bool on_cpu = false;

    // Needs the GIL. False, without a Python error set, for what is no tensor of at most eight axes.
    bool read(pybind11::handle object);
    std::int64_t count() const;
};

// Looks up in torch what `read` compares with. Called once, when the extension is imported.
void read_torch();

using MaybeTensor = std::optional<Tensor>;

// The functions below are for the argument `name` of a kernel. They throw std::invalid_argument, which names the argument,
// what the kernel takes and what came. They need no GIL.

// Where the elements lie of a contiguous tensor of this type and shape.
void* checked(const Tensor& tensor, const char* name, Dtype dtype, Shape shape);
// Where they lie in whatever order, for kernels that read the strides.
void* checked_strided(const Tensor& tensor, const char* name, Dtype dtype, Shape shape);
// Where they lie of a contiguous tensor of this type with so many elements, in any shape.
void* checked_flat(const Tensor& tensor, const char* name, Dtype dtype, std::int64_t count);
// Which of float32, float64, bfloat16, float16 it has: the index into a table of kernels.
int floating(const Tensor& tensor, const char* name);
void check_axes(const Tensor& tensor, const char* name, int axes);

// The lengths of its axes, which must be `axes`.
template <int axes>
std::array<std::int64_t, axes> shape_of(const Tensor& tensor, const char* name) {
    static_assert(axes <= Tensor::most_axes);
    check_axes(tensor, name, axes);
    std::array<std::int64_t, axes> shape;
    for (int i = 0; i < axes; ++i) shape[i] = tensor.sizes[i];
    return shape;
}

template <class T>
T* elements(const Tensor& tensor, const char* name, Dtype dtype, Shape shape) {
    return static_cast<T*>(checked(tensor, name, dtype, shape));
}

// Null for None.
template <class T>
T* elements(const MaybeTensor& tensor, const char* name, Dtype dtype, Shape shape) {
    return tensor ? static_cast<T*>(checked(*tensor, name, dtype, shape)) : nullptr;
}

// The type in which elements of the floating type `dtype` are summed.
inline Dtype type_of_sums(int dtype) { return dtype == 1 ? Dtype::float64 : Dtype::float32; }

}  // namespace groupcc

namespace pybind11::detail {

template <>
struct type_caster<groupcc::Tensor> {
    PYBIND11_TYPE_CASTER(groupcc::Tensor, const_name("torch.Tensor"));
    bool load(handle source, bool) { return value.read(source); }
};

}  // namespace pybind11::detail
