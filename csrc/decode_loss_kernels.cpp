// decode_loss: sparse_decode's tiles against the target: residual = â − a [N, M], and sums of its squares.
#include "decode_loss.h"
#include "vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

// Columns [begin, end) of one block in one row: residual = sums − target; returns Σ residual².
template <class T, class Acc>
inline Acc against(const Acc* sums, const T* target, T* residual, std::int64_t count) {
    using io = Io<T>;
    using V = typename io::V;
    V squares{};
    std::int64_t m = 0;
    for (; m + io::lanes <= count; m += io::lanes) {
        const V difference = Io<Acc>::load(sums + m) - io::load(target + m);
        io::store(residual + m, difference);
        squares += difference * difference;
    }
    Acc sum = total(squares);
    for (; m < count; ++m) {
        const Acc difference = sums[m] - io::get(target + m);
        io::put(residual + m, difference);
        sum += difference * difference;
    }
    return sum;
}

// The same against Σ_t weight · map[pixel], gathered here. A pixel of weight 0 is not read.
template <class T, class Acc>
inline Acc against_taps(const Acc* sums, const T* map, const std::int64_t* pixel, const Acc* weight, std::int64_t taps,
                        std::int64_t D, T* residual, std::int64_t count) {
    using io = Io<T>;
    using V = typename io::V;
    V squares{};
    std::int64_t m = 0;
    for (; m + io::lanes <= count; m += io::lanes) {
        V target{};
        for (std::int64_t t = 0; t < taps; ++t) {
            if (weight[t] != 0) target += weight[t] * io::load(map + pixel[t] * D + m);
        }
        const V difference = Io<Acc>::load(sums + m) - target;
        io::store(residual + m, difference);
        squares += difference * difference;
    }
    Acc sum = total(squares);
    for (; m < count; ++m) {
        Acc target = 0;
        for (std::int64_t t = 0; t < taps; ++t) {
            if (weight[t] != 0) target += weight[t] * io::get(map + pixel[t] * D + m);
        }
        const Acc difference = sums[m] - target;
        io::put(residual + m, difference);
        sum += difference * difference;
    }
    return sum;
}

template <class T>
void compare(const DecodeTile& tile, const Comparison& c) {
    using Acc = typename Io<T>::Acc;
    const std::int64_t end = tile.column + tile.columns;
    for (std::int64_t r = 0; r < tile.rows; ++r) {
        const std::int64_t n = tile.row + r;
        const Acc* const sums = static_cast<const Acc*>(tile.sums) + r * tile.stride;
        for (std::int64_t m = tile.column; m < end;) {
            const std::int64_t g = m / c.D, d = m % c.D;
            const std::int64_t block_end = (g + 1) * c.D, stop = block_end < end ? block_end : end;
            T* const residual = static_cast<T*>(c.residual) + n * tile.M + m;
            const Acc* const from = sums + (m - tile.column);
            Acc sum;
            if (c.target != nullptr) {
                sum = against(from, static_cast<const T*>(c.target) + n * tile.M + m, residual, stop - m);
            } else {
                const std::int64_t b = n / c.P, tap = (g * c.P + n % c.P) * c.T;
                const std::int64_t map = (b * c.S + (c.S > 1 ? g : 0)) * c.pixels;
                sum = against_taps(from, static_cast<const T*>(c.maps) + map * c.D + d, c.tap_index + tap,
                                   static_cast<const Acc*>(c.tap_weight) + tap, c.T, c.D, residual, stop - m);
            }
            static_cast<Acc*>(c.squares)[(tile.number + g) * c.N + n] = sum;
            m = stop;
        }
    }
}

}  // namespace

const DecodeLossKernels& decode_loss_kernels() {
    static constexpr DecodeLossKernels table{{compare<float>, compare<double>, compare<bf16>, compare<fp16>}};
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
