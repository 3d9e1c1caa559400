// Blocks: memory for large outputs, in huge pages, kept for the next output of that size.
#pragma once

#include <cstddef>

namespace groupcc {

#ifdef __SANITIZE_ADDRESS__
constexpr bool exact_blocks = true;  // of just the size asked for, and used once, so that the sanitizer sees overruns
#else
constexpr bool exact_blocks = false;
#endif

// A block of at least `bytes`, aligned to 64; freed by give_back. Throws std::bad_alloc.
void* take_block(std::size_t bytes);
void give_back(void* block, std::size_t bytes) noexcept;
// Frees what is kept; how much is kept at most (0: nothing). Both in bytes.
std::size_t empty_cache() noexcept;
void set_cache_limit(std::size_t bytes) noexcept;
std::size_t cache_limit() noexcept;
std::size_t cached_bytes() noexcept;

}  // namespace groupcc
