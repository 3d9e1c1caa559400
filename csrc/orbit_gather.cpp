// orbit_gather: maps [B, S, H, W, D], points [G, P, 2] → acts [B·P, G, D], and the transpose, acts → maps.
#include "orbit_gather.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "bindings.h"
#include "parallel.h"
#include "scratch.h"

namespace groupcc {
namespace {

// Outputs from this size on are written past the caches, which could not keep them.
constexpr std::int64_t stream_from = std::int64_t{8} << 20;
// One thread's sums, where every element adds to one map: half of a usual second-level cache.
constexpr std::int64_t sums_bytes = std::int64_t{512} << 10;
constexpr std::int64_t widest_vector = 16;  // in channels: parts are multiples of it, so that they share no vector

// maps [B, S, H, W, D], whose channels lie together, points [G, P, 2] and acts [B·P, G, D], as Python passes them.
OrbitArgs arguments(const Tensor& maps, const Tensor& points, const Tensor& acts, bool bspline) {
    const auto [B, S, H, W, D] = shape_of<5>(maps, "maps");
    const auto [G, P, two] = shape_of<3>(points, "points");
    floating(maps, "maps");
    if (S != 1 && S != G) throw std::invalid_argument("maps: expected S = 1 or S = G maps an image");
    if (D > 1 && maps.strides[4] != 1) throw std::invalid_argument("maps: expected channels that lie together");
    return {checked_strided(maps, "maps", *maps.dtype, {B, S, H, W, D}),
            maps.strides[0], maps.strides[1], maps.strides[2], maps.strides[3],
            elements<double>(points, "points", Dtype::float64, {G, P, 2}),
            elements<void>(acts, "acts", *maps.dtype, {B * P, G, D}),
            B, S, H, W, D, G, P, bspline, S == 1 && G != 1, false};
}

bool aligned(const void* address, std::int64_t bytes) {
    return (reinterpret_cast<std::uintptr_t>(address) | std::uintptr_t(bytes)) % 64 == 0;
}

// Writes acts; returns the number g·P + p of the first point outside the map, or -1.
std::int64_t orbit_gather(const Tensor& maps, const Tensor& points, const Tensor& acts, bool bspline, int threads) {
    OrbitArgs args = arguments(maps, points, acts, bspline);
    const int dtype = floating(maps, "maps");
    const std::int64_t G = args.G, P = args.P, row = args.D * size_of(dtype), rows = args.B * G * P;
    args.stream = aligned(args.acts, row) && rows * row >= stream_from;
    const auto kernel = orbit_gather_kernels().gather[dtype];
    std::atomic<std::int64_t> outside{G * P};
    parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end, int) {
        const std::int64_t first = kernel(args, begin, end);
        std::int64_t seen = outside.load();
        while (first < seen && !outside.compare_exchange_weak(seen, first)) {}
    });
    return outside == G * P ? -1 : outside.load();
}

// Writes every element of maps, the transposed gather of acts.
void orbit_gather_backward(const Tensor& maps, const Tensor& points, const Tensor& acts, bool bspline, int threads) {
    OrbitArgs args = arguments(maps, points, acts, bspline);
    const int dtype = floating(maps, "maps");
    const std::int64_t G = args.G, P = args.P;
    const std::int64_t item = size_of(dtype), pixels = args.H * args.W, taps = bspline ? 9 : 4;
    const auto& kernels = orbit_gather_kernels();
    Scratch scratch;
    const Readers readers{scratch.take<std::int32_t>(G * (pixels + 1)),
                          scratch.take<char>(G * P * taps * kernels.reader_bytes[dtype]), taps};
    parallel_for(G, threads, [&](std::int64_t begin, std::int64_t end, int) {
        kernels.invert[dtype](args, readers, begin, end);
    });

    const std::int64_t sum_item = dtype == 1 ? 8 : 4, maps_count = args.B * args.S;
    std::int64_t channels = args.D;  // of one part
    if (args.shared) channels = std::min(channels, sums_bytes / (std::max<std::int64_t>(pixels, 1) * sum_item));
    channels = std::min(channels, maps_count * args.D / threads);  // a part for every thread
    channels = std::max(widest_vector, (channels + widest_vector - 1) / widest_vector * widest_vector);
    const std::int64_t parts = (args.D + channels - 1) / channels;
    args.stream = !args.shared && maps_count * pixels * args.D * item >= stream_from && aligned(args.maps, args.D * item);
    for (int axis = 0; axis < 4; ++axis) args.stream = args.stream && aligned(args.maps, maps.strides[axis] * item);

    char* const sums = scratch.take<char>(args.shared ? threads * pixels * channels * sum_item : 0);
    parallel_for(maps_count * parts, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t map = i / parts, first = i % parts * channels;
            const MapPart part{map / args.S, map % args.S, first, std::min(first + channels, args.D)};
            kernels.scatter[dtype](args, readers, part, sums + thread * pixels * channels * sum_item);
        }
    });
}

}  // namespace

void bind_orbit_gather(pybind11::module_& m) {
    using namespace pybind11::literals;
    using release = pybind11::call_guard<pybind11::gil_scoped_release>;
    m.def("orbit_gather", &orbit_gather, "maps"_a, "points"_a, "acts"_a, "bspline"_a, "threads"_a, release());
    m.def("orbit_gather_backward", &orbit_gather_backward, "maps"_a, "points"_a, "acts"_a, "bspline"_a, "threads"_a,
          release());
}

}  // namespace groupcc
