"""What latents do on data, and what the data and other estimates say of each latent's symmetry."""
