// A fresh allocation of this size comes as untouched pages, and the fault of each 4 KiB page costs several times
// what writing it does. Training makes gradients of the same sizes at every step.
#include "memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <string>
#endif

namespace groupcc {
namespace {

constexpr std::size_t huge_page = std::size_t{1} << 21;

#ifdef __linux__
// The least that a control group of this process, or one around it, allows. A container sees its own as the root.
std::size_t allowed_by_groups() {
    std::size_t least = SIZE_MAX;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // version 2: 0::/path; version 1: number:names:/path
        const std::size_t names = line.find(':') + 1, path = line.find(':', names) + 1;
        if (names == 0 || path == 0) continue;
        const std::string name = line.substr(names, path - 1 - names);
        if (name != "" && name != "memory") continue;
        const std::string root = name == "" ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        const std::string file = name == "" ? "/memory.max" : "/memory.limit_in_bytes";
        for (std::string group = line.substr(path);; group.erase(group.rfind('/'))) {
            std::size_t bytes;
            if (std::ifstream(root + group + file) >> bytes) least = std::min(least, bytes);  // not "max"
            if (group.find('/') == std::string::npos) break;
        }
    }
    return least;
}
#endif

// An eighth of the memory that there is for this process.
std::size_t default_limit() {
    if (exact_blocks) return 0;
#ifdef __linux__
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages > 0 && size > 0) {
        return std::min(static_cast<std::size_t>(pages) * static_cast<std::size_t>(size), allowed_by_groups()) / 8;
    }
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

std::size_t rounded(std::size_t bytes) {
    return exact_blocks ? bytes : (bytes + huge_page - 1) / huge_page * huge_page;
}

void* allocate(std::size_t bytes) {
    void* block = nullptr;
    return posix_memalign(&block, exact_blocks ? 64 : huge_page, bytes) == 0 ? block : nullptr;
}

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
    void* block = allocate(size);
    if (block == nullptr && empty_cache() > 0) block = allocate(size);  // what is kept may be all that was missing
    if (block == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (!exact_blocks) madvise(block, size, MADV_HUGEPAGE);
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
