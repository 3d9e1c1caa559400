#include "tensor.h"

#include <stdexcept>
#include <string>

namespace groupcc {
namespace {

namespace py = pybind11;

constexpr const char* names[]{"float32", "float64", "bfloat16", "float16", "int64", "int32", "uint8", "bool"};
constexpr int n_types = sizeof names / sizeof *names;

// What is looked up in each tensor. Never destroyed: kernels may run while Python goes down.
struct Names {
    PyObject *data_ptr = PyUnicode_InternFromString("data_ptr"), *shape = PyUnicode_InternFromString("shape"),
             *stride = PyUnicode_InternFromString("stride"), *dtype = PyUnicode_InternFromString("dtype"),
             *is_cpu = PyUnicode_InternFromString("is_cpu");
    PyObject* types[n_types];
    Names() {
        const py::module_ torch = py::module_::import("torch");
        for (int i = 0; i < n_types; ++i) types[i] = py::object(torch.attr(names[i])).release().ptr();
    }
};

const Names* known;

// The integers of a tuple; false if there are other things in it, or more than fit.
bool integers(PyObject* tuple, int& count, std::array<std::int64_t, Tensor::most_axes>& to) {
    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) > Tensor::most_axes) return false;
    count = static_cast<int>(PyTuple_GET_SIZE(tuple));
    for (int i = 0; i < count; ++i) {
        to[static_cast<std::size_t>(i)] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, i));
    }
    return PyErr_Occurred() == nullptr;
}

bool read_all(Tensor& tensor, PyObject* from) {
    const auto held = [](PyObject* object) { return py::reinterpret_steal<py::object>(object); };
    const py::object shape = held(PyObject_GetAttr(from, known->shape));
    const py::object stride = held(PyObject_CallMethodNoArgs(from, known->stride));
    const py::object address = held(PyObject_CallMethodNoArgs(from, known->data_ptr));
    const py::object dtype = held(PyObject_GetAttr(from, known->dtype));
    const py::object is_cpu = held(PyObject_GetAttr(from, known->is_cpu));
    if (!shape || !stride || !address || !dtype || !is_cpu) return false;
    int strides = 0;
    if (!integers(shape.ptr(), tensor.axes, tensor.sizes) || !integers(stride.ptr(), strides, tensor.strides)) return false;
    tensor.data = PyLong_AsVoidPtr(address.ptr());
    tensor.on_cpu = is_cpu.ptr() == Py_True;
    tensor.dtype.reset();
    for (int i = 0; i < n_types; ++i) {
        if (dtype.ptr() == known->types[i]) tensor.dtype = static_cast<Dtype>(i);
    }
    return strides == tensor.axes && PyErr_Occurred() == nullptr;
}

std::string words(const std::int64_t* sizes, std::size_t count) {
    std::string text = "[";
    for (std::size_t i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
    return text + "]";
}

bool contiguous(const Tensor& tensor) {
    std::int64_t expected = 1;
    for (int i = tensor.axes - 1; i >= 0; --i) {
        const auto axis = static_cast<std::size_t>(i);
        if (tensor.sizes[axis] != 1 && tensor.strides[axis] != expected) return tensor.count() == 0;
        expected *= tensor.sizes[axis];
    }
    return true;
}

[[noreturn]] void refuse(const Tensor& tensor, const char* name, const std::string& expected) {
    const std::string type = tensor.dtype ? names[static_cast<int>(*tensor.dtype)] : "another type";
    const std::string shape = words(tensor.sizes.data(), static_cast<std::size_t>(tensor.axes));
    throw std::invalid_argument(std::string(name) + ": expected " + expected + "; got " + type + " of shape " + shape +
                                (contiguous(tensor) ? "" : ", not contiguous") + (tensor.on_cpu ? "" : ", not on the CPU") +
                                ". Call it through groupcc.ops, which passes what the kernel takes.");
}

bool has(const Tensor& tensor, Dtype dtype, Shape shape) {
    if (!tensor.on_cpu || tensor.dtype != dtype || static_cast<std::size_t>(tensor.axes) != shape.size()) return false;
    std::size_t axis = 0;
    for (const std::int64_t size : shape) {
        if (tensor.sizes[axis++] != size) return false;
    }
    return true;
}

std::string described(Dtype dtype, Shape shape) {
    return names[static_cast<int>(dtype)] + std::string(" of shape ") + words(shape.begin(), shape.size()) + " on the CPU";
}

}  // namespace

void read_torch() { known = new Names; }

bool Tensor::read(pybind11::handle object) {
    const bool is_tensor = read_all(*this, object.ptr());
    if (!is_tensor) PyErr_Clear();
    return is_tensor;
}

std::int64_t Tensor::count() const {
    std::int64_t all = 1;
    for (int i = 0; i < axes; ++i) all *= sizes[static_cast<std::size_t>(i)];
    return all;
}

void* checked(const Tensor& tensor, const char* name, Dtype dtype, Shape shape) {
    if (!has(tensor, dtype, shape) || !contiguous(tensor)) refuse(tensor, name, described(dtype, shape) + ", contiguous");
    return tensor.data;
}

void* checked_strided(const Tensor& tensor, const char* name, Dtype dtype, Shape shape) {
    if (!has(tensor, dtype, shape)) refuse(tensor, name, described(dtype, shape));
    return tensor.data;
}

void* checked_flat(const Tensor& tensor, const char* name, Dtype dtype, std::int64_t count) {
    if (!tensor.on_cpu || tensor.dtype != dtype || tensor.count() != count || !contiguous(tensor)) {
        const std::string type = names[static_cast<int>(dtype)];
        refuse(tensor, name, std::to_string(count) + " elements of " + type + " on the CPU, contiguous");
    }
    return tensor.data;
}

int floating(const Tensor& tensor, const char* name) {
    if (!tensor.dtype || static_cast<int>(*tensor.dtype) > 3) {
        refuse(tensor, name, "float32, float64, bfloat16 or float16");
    }
    return static_cast<int>(*tensor.dtype);
}

void check_axes(const Tensor& tensor, const char* name, int axes) {
    if (tensor.axes != axes) refuse(tensor, name, std::to_string(axes) + " axes");
}

}  // namespace groupcc
