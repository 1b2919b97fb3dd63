"""Files that are written atomically, stored modules, versioned safetensors, and jobs."""
