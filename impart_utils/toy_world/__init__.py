"""The toy world: pictures, captions and films that the kit draws itself, and the tiny CLIP."""
