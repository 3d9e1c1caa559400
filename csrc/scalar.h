// Element types of the tensors that come in, by the code that groupcc/ops/_cpp/launch.py passes.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace groupcc {

struct bf16 { std::uint16_t bits; };
struct fp16 { std::uint16_t bits; };

enum class Dtype : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

inline std::int64_t size_of(int dtype) {
    constexpr std::int64_t sizes[]{4, 8, 2, 2};
    return sizes[dtype];
}

// Calls visit(Acc{}) for the type in which elements of `dtype` are summed.
template <class Visit>
void with_acc(int dtype, const Visit& visit) {
    if (dtype < 0 || dtype > 3) throw std::invalid_argument("dtype: expected code 0 to 3");
    if (static_cast<Dtype>(dtype) == Dtype::float64) return visit(double{});
    visit(float{});
}

template <class T>
T* at(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

}  // namespace groupcc
