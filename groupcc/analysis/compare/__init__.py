"""Two atlases side by side."""
