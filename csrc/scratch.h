// Working memory of one call, carved from blocks that are kept for the next call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "memory.h"

namespace groupcc {

class Scratch {
public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() {
        for (const Block& block : blocks_) give_back(block.data, block.bytes);
    }

    // Uninitialised memory for `count` elements, aligned to 64 bytes. Throws std::bad_alloc. Not for use by threads.
    template <class T>
    T* take(std::int64_t count) {
        const std::size_t wanted = static_cast<std::size_t>(count) * sizeof(T);
        const std::size_t bytes = exact_blocks ? wanted : (wanted + 63) / 64 * 64;
        if (exact_blocks || blocks_.empty() || bytes > blocks_.back().bytes - used_) {
            blocks_.reserve(blocks_.size() + 1);
            const std::size_t size = exact_blocks || bytes > smallest ? bytes : smallest;
            blocks_.push_back({take_block(size), size});
            used_ = 0;
        }
        T* const taken = reinterpret_cast<T*>(static_cast<char*>(blocks_.back().data) + used_);
        used_ += bytes;
        return taken;
    }

private:
    struct Block {
        void* data;
        std::size_t bytes;
    };
    static constexpr std::size_t smallest = std::size_t{1} << 21;
    std::vector<Block> blocks_;
    std::size_t used_ = 0;
};

}  // namespace groupcc
