"""The training step of a transformer encoder with each dropout in its place."""
