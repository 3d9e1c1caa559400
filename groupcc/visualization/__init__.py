"""Feature visualisation: the image that drives a latent most."""

from groupcc.visualization.visualization import Visualization, visualize

__all__ = ["Visualization", "visualize"]
