// Element types of the tensors that come in, by the code that groupcc/ops/native.py passes.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace groupcc {

struct bf16 { std::uint16_t bits; };
struct fp16 { std::uint16_t bits; };

enum class Dtype : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

// Calls visit(T{}) for the C++ type of `dtype`.
template <class Visit>
void with_dtype(int dtype, const Visit& visit) {
    switch (static_cast<Dtype>(dtype)) {
        case Dtype::float32: return visit(float{});
        case Dtype::float64: return visit(double{});
        case Dtype::bfloat16: return visit(bf16{});
        case Dtype::float16: return visit(fp16{});
    }
    throw std::invalid_argument("dtype: expected code 0 to 3");
}

template <class T>
T* at(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

}  // namespace groupcc
