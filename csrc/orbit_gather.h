// orbit_gather: maps [B, S, H, W, D], points [G, P, 2] → acts [B·P, G, D], and the transpose, acts → maps.
#pragma once

#include <cstdint>

#include "isa.h"

namespace groupcc {

// Channels are contiguous in maps; the other axes have strides, in elements.
struct OrbitArgs {
    void* maps;
    std::int64_t stride_B, stride_S, stride_H, stride_W;
    const double* points;
    void* acts;
    std::int64_t B, S, H, W, D, G, P;
    bool bspline;
    bool shared;  // S = 1 ≠ G: all elements read the one map, and add to it
    bool stream;  // write past the caches; needs rows that are multiples of a vector and outputs aligned to 64 bytes
};

// For each element, by pixel, which positions read it: those of pixel i are entries start[i] to start[i + 1].
struct Readers {
    std::int32_t* start;  // [G, H·W + 1]
    void* entries;        // [G, P·T] of position and weight
    std::int64_t taps;    // T
};

// The part of the transposed gather that one thread sums: maps [b, s], channels [first, last).
struct MapPart {
    std::int64_t b, s, first, last;
};

struct OrbitGatherKernels {
    // Rows [begin, end) of the B·G·P there are, map by map. Returns the number g·P + p of the first point outside the
    // map, or G·P.
    std::int64_t (*gather[4])(const OrbitArgs& args, std::int64_t begin, std::int64_t end);  // by Dtype
    // Readers of elements [begin, end).
    void (*invert[4])(const OrbitArgs& args, const Readers& readers, std::int64_t begin, std::int64_t end);
    // Writes one part of maps from acts. `sums`: room for H·W sums of a part's channels, used where the map is shared.
    void (*scatter[4])(const OrbitArgs& args, const Readers& readers, const MapPart& part, void* sums);
    std::int64_t reader_bytes[4];  // of one of Readers::entries
};

GROUPCC_DECLARE(OrbitGatherKernels, orbit_gather_kernels)

}  // namespace groupcc
