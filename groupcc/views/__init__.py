"""What turns an image into maps that can be read at positions: model, layer, layout, preprocessing, geometry."""

from groupcc.views.lattice import Lattice, measure_lattice
from groupcc.views.layer_view import LayerView
from groupcc.views.options import ImageKind, ViewOptions
from groupcc.views.resolve import ResolvedModel, resolve_model

__all__ = ["ImageKind", "Lattice", "LayerView", "ResolvedModel", "ViewOptions", "measure_lattice", "resolve_model"]
