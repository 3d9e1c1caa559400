// A fresh allocation of this size comes as untouched pages, and the fault of each 4 KiB page costs several times
// what writing it does. Training makes gradients of the same sizes at every step.
#include "memory.h"

#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace groupcc {
namespace {

constexpr std::size_t huge_page = std::size_t{1} << 21;

// An eighth of the machine's memory.
std::size_t default_limit() {
#ifdef __linux__
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages > 0 && size > 0) return static_cast<std::size_t>(pages) / 8 * static_cast<std::size_t>(size);
#endif
    return std::size_t{1} << 30;
}

struct Cache {
    std::mutex mutex;
    std::multimap<std::size_t, void*> blocks;
    std::size_t kept = 0;
    std::size_t limit = default_limit();
};

// Never destroyed: tensors may outlive every other static object.
Cache& cache() {
    static Cache* const it = new Cache;
    return *it;
}

std::size_t rounded(std::size_t bytes) { return (bytes + huge_page - 1) / huge_page * huge_page; }

std::size_t trim(Cache& c, std::size_t down_to) noexcept {
    std::size_t freed = 0;
    while (c.kept > down_to && !c.blocks.empty()) {
        const auto largest = std::prev(c.blocks.end());
        std::free(largest->second);
        freed += largest->first;
        c.kept -= largest->first;
        c.blocks.erase(largest);
    }
    return freed;
}

}  // namespace

void* take_block(std::size_t bytes) {
    const std::size_t size = rounded(bytes);
    Cache& c = cache();
    {
        const std::lock_guard<std::mutex> lock(c.mutex);
        const auto found = c.blocks.find(size);
        if (found != c.blocks.end()) {
            void* const block = found->second;
            c.blocks.erase(found);
            c.kept -= size;
            return block;
        }
    }
    void* const block = std::aligned_alloc(huge_page, size);
    if (block == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(block, size, MADV_HUGEPAGE);
#endif
    return block;
}

void give_back(void* block, std::size_t bytes) noexcept {
    const std::size_t size = rounded(bytes);
    Cache& c = cache();
    const std::lock_guard<std::mutex> lock(c.mutex);
    if (size > c.limit) {
        std::free(block);
        return;
    }
    trim(c, c.limit - size);
    try {
        c.blocks.emplace(size, block);
        c.kept += size;
    } catch (...) {
        std::free(block);
    }
}

std::size_t empty_cache() noexcept {
    Cache& c = cache();
    const std::lock_guard<std::mutex> lock(c.mutex);
    return trim(c, 0);
}

void set_cache_limit(std::size_t bytes) noexcept {
    Cache& c = cache();
    const std::lock_guard<std::mutex> lock(c.mutex);
    c.limit = bytes;
    trim(c, bytes);
}

std::size_t cache_limit() noexcept {
    Cache& c = cache();
    const std::lock_guard<std::mutex> lock(c.mutex);
    return c.limit;
}

std::size_t cached_bytes() noexcept {
    Cache& c = cache();
    const std::lock_guard<std::mutex> lock(c.mutex);
    return c.kept;
}

}  // namespace groupcc
