"""From images to codes."""
