"""Find directions in a latent space, move pictures along them, and score what that does."""
