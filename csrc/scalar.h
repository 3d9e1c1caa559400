// Element types of the tensors that come in.
#pragma once

#include <cstdint>

namespace groupcc {

struct bf16 { std::uint16_t bits; };
struct fp16 { std::uint16_t bits; };

// The floating types first: tables of kernels are indexed by them. csrc/tensor.cpp has their names in this order.
enum class Dtype : int { float32, float64, bfloat16, float16, int64, int32, uint8, boolean };

// Bytes of an element of a floating type.
inline std::int64_t size_of(int dtype) {
    constexpr std::int64_t sizes[]{4, 8, 2, 2};
    return sizes[dtype];
}

// Calls visit(Acc{}) for the type in which elements of the floating type `dtype` are summed.
template <class Visit>
void with_acc(int dtype, const Visit& visit) {
    static_cast<Dtype>(dtype) == Dtype::float64 ? visit(double{}) : visit(float{});
}

}  // namespace groupcc
