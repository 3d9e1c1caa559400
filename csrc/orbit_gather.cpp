#include "bindings.h"

namespace groupcc {

void bind_orbit_gather(pybind11::module_&) {}

}  // namespace groupcc
