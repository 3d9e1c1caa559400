// groupcc._C: the C++ extension. Raw pointers and plain numbers in, no libtorch.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "isa.h"
#include "memory.h"

namespace py = pybind11;

namespace {

struct Block {
    explicit Block(std::size_t n) : bytes(n), data(groupcc::take_block(n)) {}
    ~Block() { groupcc::give_back(data, bytes); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    std::size_t bytes;
    void* data;
};

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "groupcc's C++ extension";
    groupcc::isa_name();  // a bad GROUPCC_ISA fails here, at import
    m.def("available_isas", &groupcc::available_isas, "Instruction sets that run here, narrowest first.");
    m.def("isa", &groupcc::isa_name, "The instruction set whose kernels run.");
    m.def("set_isa", &groupcc::set_isa, py::arg("name"), "Runs another instruction set's kernels; for tests.");
#ifdef _OPENMP
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
    py::class_<Block>(m, "Block", py::buffer_protocol(), "Memory for a large output, from a cache of such blocks.")
        .def(py::init<std::size_t>(), py::arg("bytes"))
        .def_buffer([](Block& block) {
            return py::buffer_info(static_cast<unsigned char*>(block.data), static_cast<py::ssize_t>(block.bytes));
        });
    m.def("empty_cache", &groupcc::empty_cache, "Frees the blocks kept for reuse; returns their bytes.");
    m.def("set_cache_limit", &groupcc::set_cache_limit, py::arg("bytes"), "How much is kept for reuse at most.");
    m.def("cache_limit", &groupcc::cache_limit, "How much is kept for reuse at most, in bytes.");
    m.def("cached_bytes", &groupcc::cached_bytes, "Bytes of the blocks kept for reuse.");
    groupcc::bind_selection(m);
    groupcc::bind_batchtopk(m);
    groupcc::bind_sparse_decode(m);
    groupcc::bind_decode_loss(m);
    groupcc::bind_orbit_gather(m);
    groupcc::bind_encode_topk(m);
}
