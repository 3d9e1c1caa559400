"""The page that says which symmetries were found: one HTML file that needs no network, and a few lines of text."""

from groupcc.report.figures import write_figure
from groupcc.report.page import write_report
from groupcc.report.parts.latents import clear_latents
from groupcc.report.words import summary

__all__ = ["clear_latents", "summary", "write_figure", "write_report"]
