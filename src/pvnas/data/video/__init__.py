"""One video file: opened, decoded whole, and a clip's frames alone."""
