// group_decode_loss, group_encode_at: sums of translated blocks, and their inner products with an orbit.
#include "group_decode.h"
#include "vec.h"

namespace groupcc {
namespace GROUPCC_ISA {
namespace {

// Latents taken together: a block of sums is then read and written once for all of them.
constexpr int together = GROUPCC_BYTES == 64 ? 4 : 2;

template <class T>
void pack(const void* from, void* to, std::int64_t rows, std::int64_t stride, std::int64_t columns,
          std::int64_t width) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    for (std::int64_t r = 0; r < rows; ++r) {
        const T* const in = static_cast<const T*>(from) + r * stride;
        Acc* const out = static_cast<Acc*>(to) + r * width;
        std::int64_t m = 0;
        for (; m + io::lanes <= columns; m += io::lanes) Io<Acc>::store(out + m, io::load(in + m));
        for (; m < columns; ++m) out[m] = io::get(in + m);
        for (; m < width; ++m) out[m] = 0;
    }
}

template <class T>
void unpack(const void* from, void* to, std::int64_t rows, std::int64_t stride, std::int64_t columns,
            std::int64_t width) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    for (std::int64_t r = 0; r < rows; ++r) {
        const Acc* const in = static_cast<const Acc*>(from) + r * width;
        T* const out = static_cast<T*>(to) + r * stride;
        std::int64_t m = 0;
        for (; m + io::lanes <= columns; m += io::lanes) io::store(out + m, Io<Acc>::load(in + m));
        for (; m < columns; ++m) io::put(out + m, in[m]);
    }
}

// Where `count` latents' blocks are. Copied into locals: otherwise the compiler must assume that the stores alias these
// pointers, and reloads the pointers for every block.
template <int count, class Acc>
struct Walk {
    const char* first[count];
    const std::uint16_t* offsets[count];
    Walk(const Posed<Acc>* posed, const Blocks& b, std::int64_t m) {
        const std::int64_t block = b.G * b.width;
        for (int i = 0; i < count; ++i) {
            first[i] = reinterpret_cast<const char*>(static_cast<const Acc*>(b.packed) + posed[i].base * block + m);
            offsets[i] = b.offsets + posed[i].pose * b.G;
        }
    }
    const Acc* block(int i, std::int64_t g) const {
        return reinterpret_cast<const Acc*>(first[i] + std::int64_t{8} * offsets[i][g]);
    }
};

// `count` latents over `vectors` vectors of each block, from column m on.
template <int count, int vectors, class Acc>
inline void add_some(const Posed<Acc>* posed, const Blocks& b, Acc* sums, std::int64_t m) {
    using io = Io<Acc>;
    using V = typename io::V;
    const Walk<count, Acc> walk(posed, b, m);
    V act[count];
    for (int i = 0; i < count; ++i) act[i] = posed[i].act - V{};
    const std::int64_t G = b.G, width = b.width;
    sums += m;
    for (std::int64_t g = 0; g < G; ++g, sums += width) {
        V sum[vectors];
        for (int v = 0; v < vectors; ++v) sum[v] = io::load(sums + v * io::lanes);
        for (int i = 0; i < count; ++i) {
            const Acc* const block = walk.block(i, g);
            for (int v = 0; v < vectors; ++v) sum[v] += act[i] * io::load(block + v * io::lanes);
        }
        for (int v = 0; v < vectors; ++v) io::store(sums + v * io::lanes, sum[v]);
    }
}

template <int count, int vectors, class Acc>
inline void dot_some(const Posed<Acc>* posed, const Blocks& b, const Acc* x, Acc* dots, std::int64_t m) {
    using io = Io<Acc>;
    using V = typename io::V;
    constexpr int ways = vectors == 1 ? 2 : 1;  // sums of one vector each would wait for one another
    const Walk<count, Acc> walk(posed, b, m);
    const std::int64_t G = b.G, width = b.width;
    V sum[ways][count][vectors] = {};
    x += m;
    const auto take = [&](int way, std::int64_t g) {
        V held[vectors];
        for (int v = 0; v < vectors; ++v) held[v] = io::load(x + g * width + v * io::lanes);
        for (int i = 0; i < count; ++i) {
            const Acc* const block = walk.block(i, g);
            for (int v = 0; v < vectors; ++v) sum[way][i][v] += held[v] * io::load(block + v * io::lanes);
        }
    };
    std::int64_t g = 0;
    for (; g + ways <= G; g += ways) {
        for (int way = 0; way < ways; ++way) take(way, g + way);
    }
    if (g < G) take(0, g);
    for (int i = 0; i < count; ++i) {
        V all = sum[0][i][0];
        for (int v = 1; v < vectors; ++v) all += sum[0][i][v];
        if (ways == 2) all += sum[ways - 1][i][0];
        Acc& dot = dots[posed[i].slot];
        dot = (m == 0 ? Acc{0} : dot) + total(all);
    }
}

// visit<count, vectors>(first latent, first column), `together` latents at a time, at most four vectors of a block.
template <int vectors, class Visit>
inline void each_count(std::int64_t count, std::int64_t m, const Visit& visit) {
    std::int64_t i = 0;
    for (; i + together <= count; i += together) visit.template operator()<together, vectors>(i, m);
    if (together > 3 && count - i == 3) visit.template operator()<3, vectors>(i, m);
    if (together > 2 && count - i == 2) visit.template operator()<2, vectors>(i, m);
    if (count - i == 1) visit.template operator()<1, vectors>(i, m);
}

template <class Acc, class Visit>
inline void each_part(std::int64_t count, std::int64_t width, const Visit& visit) {
    constexpr std::int64_t lanes = Io<Acc>::lanes;
    std::int64_t m = 0;
    for (; m + 4 * lanes <= width; m += 4 * lanes) each_count<4>(count, m, visit);
    for (; m + 2 * lanes <= width; m += 2 * lanes) each_count<2>(count, m, visit);
    for (; m < width; m += lanes) each_count<1>(count, m, visit);
}

template <class Acc>
struct Adding {
    const Posed<Acc>* posed;
    const Blocks& blocks;
    Acc* sums;
    template <int count, int vectors>
    void operator()(std::int64_t i, std::int64_t m) const {
        add_some<count, vectors>(posed + i, blocks, sums, m);
    }
};

template <class Acc>
struct Dotting {
    const Posed<Acc>* posed;
    const Blocks& blocks;
    const Acc* x;
    Acc* dots;
    template <int count, int vectors>
    void operator()(std::int64_t i, std::int64_t m) const {
        dot_some<count, vectors>(posed + i, blocks, x, dots, m);
    }
};

template <class Acc>
void add(const void* posed, std::int64_t count, const Blocks& blocks, void* sums) {
    each_part<Acc>(count, blocks.width,
                   Adding<Acc>{static_cast<const Posed<Acc>*>(posed), blocks, static_cast<Acc*>(sums)});
}

template <class Acc>
void dot(const void* posed, std::int64_t count, const Blocks& blocks, const void* x, void* dots) {
    each_part<Acc>(count, blocks.width, Dotting<Acc>{static_cast<const Posed<Acc>*>(posed), blocks,
                                                     static_cast<const Acc*>(x), static_cast<Acc*>(dots)});
}

// The blocks of one row in their own type, rows in double: over many rows one fp32 sum would lose digits.
template <class V>
inline void widen_into(double* sums, V sum) {
    for (std::size_t i = 0; i < sizeof sum / sizeof sum[0]; ++i) sums[i] += sum[i];
}

template <class Acc>
void sum_blocks(const void* x, std::int64_t G, std::int64_t width, double* column_sums) {
    using io = Io<Acc>;
    for (std::int64_t m = 0; m < width; m += io::lanes) {
        typename io::V sum{};
        for (std::int64_t g = 0; g < G; ++g) sum += io::load(static_cast<const Acc*>(x) + g * width + m);
        widen_into(column_sums + m, sum);
    }
}

// Past the cache, for `whole` lines of it: these need not be read before they are written. `settle` ends it.
template <class T>
inline void write_out(T* to, typename Io<T>::V value, bool whole) {
#if GROUPCC_BYTES == 64
    if constexpr (sizeof(T) == 4) {
        if (whole) return _mm512_stream_ps(to, (__m512)value);
    } else if constexpr (sizeof(T) == 8) {
        if (whole) return _mm512_stream_pd(to, (__m512d)value);
    }
#else
    (void)whole;
#endif
    Io<T>::store(to, value);
}

void settle() {
#if GROUPCC_BYTES == 64
    _mm_sfence();
#endif
}

template <class T>
double compare(void* sums, const void* target, void* residual, std::int64_t G, std::int64_t stride,
               std::int64_t columns, std::int64_t width, bool far, double* column_sums) {
    using io = Io<T>;
    using Acc = typename io::Acc;
    using V = typename io::V;
    const bool whole = far && (reinterpret_cast<std::uintptr_t>(residual) | stride * sizeof(T)) % 64 == 0;
    constexpr std::int64_t exact = 64;  // so many squares of a lane are added in their own type
    double squares = 0;
    for (std::int64_t m = 0; m < width; m += io::lanes) {
        V sum{};
        for (std::int64_t begin = 0; begin < G; begin += exact) {
            const std::int64_t end = begin + exact < G ? begin + exact : G;
            V square{};
            for (std::int64_t g = begin; g < end; ++g) {
                Acc* const at = static_cast<Acc*>(sums) + g * width + m;
                const T* const from = static_cast<const T*>(target) + g * stride + m;
                T* const to = static_cast<T*>(residual) + g * stride + m;
                V difference;
                if (m + io::lanes <= columns) {
                    difference = Io<Acc>::load(at) - io::load(from);
                    write_out(to, difference, whole);
                } else {  // the columns behind the last are 0 in sums
                    difference = Io<Acc>::load(at);
                    for (std::int64_t i = 0; m + i < columns; ++i) {
                        difference[i] -= io::get(from + i);
                        io::put(to + i, difference[i]);
                    }
                }
                Io<Acc>::store(at, difference);
                square += difference * difference;
                sum += difference;
            }
            squares += total(square);
        }
        if (column_sums != nullptr) widen_into(column_sums + m, sum);
    }
    return squares;
}

}  // namespace

const GroupDecodeKernels& group_decode_kernels() {
    static constexpr GroupDecodeKernels table{
        {Io<float>::lanes, Io<double>::lanes},
        {pack<float>, pack<double>, pack<bf16>, pack<fp16>},
        {unpack<float>, unpack<double>, unpack<bf16>, unpack<fp16>},
        {add<float>, add<double>},
        {dot<float>, dot<double>},
        {compare<float>, compare<double>, compare<bf16>, compare<fp16>},
        settle,
        {sum_blocks<float>, sum_blocks<double>},
    };
    return table;
}

}  // namespace GROUPCC_ISA
}  // namespace groupcc
