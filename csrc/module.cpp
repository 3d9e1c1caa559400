// groupcc._C: the C++ extension. It reads tensors through their Python attributes (csrc/tensor.h): no libtorch.

#include "bindings.h"
#include "isa.h"
#include "memory.h"
#include "scratch.h"

namespace py = pybind11;

namespace {

struct Block {
    explicit Block(py::ssize_t n) : bytes(n), data(memory.take<unsigned char>(n)) {}
    groupcc::Scratch memory;
    py::ssize_t bytes;
    unsigned char* data;
};

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "groupcc's C++ extension";
    groupcc::read_torch();
    groupcc::isa_name();  // throws for a bad GROUPCC_ISA: then import fails, and backend cpp is off and says why
    m.def("available_isas", &groupcc::available_isas, "Instruction sets that run here, narrowest first.");
    m.def("cpu_is_intel", &groupcc::cpu_is_intel, "Whether Intel made this CPU.");
    m.def("isa", &groupcc::isa_name, "The instruction set whose kernels run.");
    m.def("set_isa", &groupcc::set_isa, py::arg("name"), "Runs another instruction set's kernels; for tests.");
#ifdef _OPENMP
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
    py::class_<Block>(m, "Block", py::buffer_protocol(), "Memory for a large output, from a cache of such blocks.")
        .def(py::init<py::ssize_t>(), py::arg("bytes"))
        .def_buffer([](Block& block) { return py::buffer_info(block.data, block.bytes); });
    m.def("empty_cache", &groupcc::empty_cache, "Frees the blocks kept for reuse; returns their bytes.");
    m.def("set_cache_limit", &groupcc::set_cache_limit, py::arg("bytes"), "How much is kept for reuse at most.");
    m.def("cache_limit", &groupcc::cache_limit, "How much is kept for reuse at most, in bytes.");
    m.def("cached_bytes", &groupcc::cached_bytes, "Bytes of the blocks kept for reuse.");
    groupcc::bind_topk(m);
    groupcc::bind_batchtopk(m);
    groupcc::bind_encode_topk(m);
    groupcc::bind_sparse_decode(m);
    groupcc::bind_decode_loss(m);
    groupcc::bind_orbit_gather(m);
    groupcc::bind_group_correlate(m);
    groupcc::bind_group_correlate_max(m);
    groupcc::bind_group_decode_loss(m);
    groupcc::bind_group_encode_at(m);
    groupcc::bind_pose_maxima(m);
    groupcc::bind_take_scaled(m);
}
