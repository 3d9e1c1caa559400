"""Which latents are one shape in other poses, and in which poses each is."""
