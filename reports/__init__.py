"""Pages about runs: one HTML file each, with everything in it."""
