"""What needs a GPU (graphs, the Triton peer, the sanitizer sweep) or reads its machine code."""
