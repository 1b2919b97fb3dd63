"""Find directions in a latent space, move images along them, and score the effect."""
