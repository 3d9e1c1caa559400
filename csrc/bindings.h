// What each op's .cpp adds to the Python module. Tensors come as csrc/tensor.h has them: each function checks their shapes
// and types before a kernel runs, and releases the GIL.
#pragma once

#include "tensor.h"

namespace groupcc {

struct Rows;

// The rows of pre_acts [N, L], each contiguous, for topk and batchtopk.
Rows rows_of(const Tensor& pre_acts);

void bind_topk(pybind11::module_& m);                 // topk
void bind_batchtopk(pybind11::module_& m);            // batchtopk
void bind_encode_topk(pybind11::module_& m);          // encode_topk: its screening and its gradients
void bind_sparse_decode(pybind11::module_& m);        // sparse_decode; the backward of it and of decode_loss
void bind_decode_loss(pybind11::module_& m);          // decode_loss
void bind_orbit_gather(pybind11::module_& m);         // orbit_gather, and for orbit_encode
void bind_group_correlate(pybind11::module_& m);      // group_correlate: its transforms
void bind_group_correlate_max(pybind11::module_& m);  // group_correlate_max
void bind_group_decode_loss(pybind11::module_& m);    // group_decode_loss
void bind_group_encode_at(pybind11::module_& m);      // group_encode_at; the backward of it and of group_decode_loss
void bind_pose_maxima(pybind11::module_& m);          // pose_maxima
void bind_take_scaled(pybind11::module_& m);          // a batch of orbits

}  // namespace groupcc
