"""Speed and memory of dropout_ext, compared with nn.Dropout and other peers.

``python -m bench``              over sizes, dtypes and layouts; bytes saved for backward
``python -m bench.structured``   shared masks and the rest of the family
``python -m bench.transformer``  a transformer's training step
``python -m bench.training``     do models train as with nn.Dropout, and overfit less than without?
``python -m bench.publish``      rewrites the published tables from bench/results/*.json

``bench/gpu``: what needs a GPU or reads GPU code; ``bench/gpu/on_gpu.sh OUT`` runs all of it.
"""
