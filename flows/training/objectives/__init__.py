"""Training objectives, each with the phases of a training step."""
