#include "bindings.h"

namespace groupcc {

void bind_encode_topk(pybind11::module_&) {}

}  // namespace groupcc
