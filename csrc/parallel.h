// Threads for a loop whose passes are independent. With OpenMP they are PyTorch's own pool (both link libgomp.so.1),
// so that none of its waiting threads compete with ours.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#else
#include <system_error>
#include <thread>
#include <vector>
#endif

namespace groupcc {

// body(thread) for thread = 0 … threads - 1, each in its own thread. `body` must not throw.
template <class Body>
void each_thread(int threads, const Body& body) {
    if (threads <= 1) {
        body(0);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    {
        // The runtime may grant fewer threads than asked for.
        for (int t = omp_get_thread_num(); t < threads; t += omp_get_num_threads()) body(t);
    }
#else
    std::vector<std::thread> workers;
    workers.reserve(static_cast<std::size_t>(threads));
    int started = 1;
    try {
        for (; started < threads; ++started) workers.emplace_back([&body, t = started] { body(t); });
    } catch (const std::system_error&) {
        // The system has no more threads: the rest is done here.
    }
    body(0);
    for (int t = started; t < threads; ++t) body(t);
    for (std::thread& worker : workers) worker.join();
#endif
}

// body(begin, end, thread) over [0, count) in `threads` even parts.
template <class Body>
void parallel_for(std::int64_t count, int threads, const Body& body) {
    if (threads > count) threads = count < 1 ? 1 : static_cast<int>(count);
    each_thread(threads, [&](int t) { body(count * t / threads, count * (t + 1) / threads, t); });
}

}  // namespace groupcc
