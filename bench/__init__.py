"""Speed, memory and behaviour of dropout_ext, measured beside its rivals.

``python -m bench``              speed beside nn.Dropout, torch.compile, hand-written masks
``python -m bench.audit``        properties of nn.Dropout and of this library, side by side
``python -m bench.transformer``  the training step of a transformer with each dropout in its place
``bench/on_gpu.sh OUT``          on a machine with a GPU: build, tests, sanitizers, all of the above
"""
