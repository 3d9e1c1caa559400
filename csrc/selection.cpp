#include "bindings.h"

namespace groupcc {

void bind_selection(pybind11::module_&) {}

}  // namespace groupcc
