// What each op's .cpp adds to the Python module. Pointers come as integers, from tensors that the caller keeps alive
// and has checked; every function releases the GIL.
#pragma once

#include <pybind11/pybind11.h>

namespace groupcc {

void bind_selection(pybind11::module_& m);      // topk
void bind_batchtopk(pybind11::module_& m);      // batchtopk
void bind_sparse_decode(pybind11::module_& m);  // sparse_decode; the backward of it and of decode_loss
void bind_decode_loss(pybind11::module_& m);    // decode_loss
void bind_orbit_gather(pybind11::module_& m);   // orbit_gather and its backward
void bind_encode_topk(pybind11::module_& m);    // encode_topk's screening and its gradients
void bind_group_correlate(pybind11::module_& m);  // group_correlate's transforms
void bind_group_decode(pybind11::module_& m);   // group_decode_loss and group_encode_at
void bind_group_strongest(pybind11::module_& m);  // group_correlate_max
void bind_take_scaled(pybind11::module_& m);    // a batch of orbits
void bind_pose_maxima(pybind11::module_& m);    // pose_maxima

}  // namespace groupcc
