"""Which transforms leave a latent the same, read off its decoder blocks."""
