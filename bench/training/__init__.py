"""Do models train as with nn.Dropout, and overfit less than without? Small networks, many seeds."""
