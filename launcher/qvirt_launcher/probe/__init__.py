"""The tiny guest that finds out whether KVM works: its source, and its image. `accel` runs it."""
