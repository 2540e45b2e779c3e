"""The catalogue of experiments: one module each, found by its file; statement, source, procedure and verdict."""
