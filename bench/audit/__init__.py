"""Properties of nn.Dropout and of dropout_ext, measured side by side and reported as found."""
