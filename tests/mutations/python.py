"""Mistakes in the Python package: dropout_ext."""

from tests.mutations.mutation import Mutation

_PYTHON = "dropout_ext"

MUTATIONS = (
    Mutation(
        "shared dimensions counted as if they were not shared",
        _PYTHON,
        "row_major([1 if d in shared else size for d, size in enumerate(global_shape)])",
        "row_major([size for d, size in enumerate(global_shape)])",
        ("tests/contract/test_index_map.py::test_broadcast_dims",),
    ),
    Mutation(
        "a shard that begins where the whole does",
        _PYTHON,
        "sum(s * m for s, m in zip(start, strides, strict=True))",
        "0",
        ("tests/contract/test_index_map.py::test_shards_add_up",),
    ),
    Mutation(
        "rng_state: 2^63 has no sign",
        _PYTHON,
        "if number >= 2**63",
        "if number > 2**63",
        ("tests/contract/test_rng_state.py",),
    ),
    Mutation(
        "vmap, same: decisions shared along the first dimension",
        _PYTHON,
        "shared.insert(input_dim, 0)",
        "shared.insert(0, 0)",
        ("tests/autograd/test_vmap.py",),
    ),
    Mutation(
        "vmap, different: one state for all samples",
        _PYTHON,
        "add_batch_dim(states, 0, interpreter.level())",
        "add_batch_dim(states[:1].expand_as(states), 0, interpreter.level())",
        ("tests/autograd/test_vmap.py",),
    ),
    Mutation(
        "traced draws that do not follow each other",
        _PYTHON,
        'kwargs["after"] = _last_draws.get(graph)',
        'kwargs["after"] = None',
        ("tests/compile/test_compile_stream.py::test_stream",),
    ),
    Mutation(
        "traced draws that may be made again",
        _PYTHON,
        'node.meta["recompute"] = CheckpointPolicy.MUST_SAVE',
        'node.meta["recompute"] = CheckpointPolicy.PREFER_RECOMPUTE',
        ("tests/compile/test_compile_stream.py",),
    ),
    Mutation(
        "attention that does not come back from a conversion",
        _PYTHON,
        "THEIRS = {ours: theirs for ",
        "THEIRS = {ours: ours if theirs is nn.MultiheadAttention else theirs for ",
        ("tests/models/test_convert.py",),
    ),
    Mutation(
        "a function of torch that is not redirected",
        _PYTHON,
        "torch.feature_dropout_: _inplace(",
        "torch.native_dropout: _inplace(",
        ("tests/models/test_redirect.py",),
    ),
    Mutation(
        "drop_connect: parameters and keys in torch's order",
        _PYTHON,
        "for key in keys + later:",
        "for key in later:",
        ("tests/models/test_drop_connect.py",),
    ),
    Mutation(
        "mc_dropout: every dropout in evaluation afterwards",
        _PYTHON,
        "        for module, training in flags:\n            module.training = training\n",
        "        for module, _ in flags:\n            module.training = False\n",
        ("tests/models/test_mc_dropout.py",),
    ),
    Mutation(
        "DTensor: uneven shards begin as if they were even",
        _PYTHON,
        "begin = min(coordinate[mesh_dim] * chunk, size)",
        "begin = coordinate[mesh_dim] * size // mesh.size(mesh_dim)",
        ("tests/distributed/test_dtensor.py",),
    ),
    Mutation(
        "Inductor: lanes in another order",
        _PYTHON,
        "ops.where(second, words[k + 1], words[k]) for k in (0, 2)",
        "ops.where(second, words[k], words[k + 1]) for k in (0, 2)",
        ("tests/compile/test_inductor.py",),
    ),
    Mutation(
        "Inductor: the second call is the first",
        _PYTHON,
        "_philox(state.seed, ops.add(state.offset, wide(1)), place)",
        "_philox(state.seed, state.offset, place)",
        ("tests/compile/test_inductor.py::test_bits_of_every_index_map_and_probability",),
    ),
    Mutation(
        "Inductor: caches that know neither setting nor version",
        _PYTHON,
        "self.dropout_ext = setting.key()",
        "self.dropout_ext = None",
        ("tests/compile/test_inductor.py::test_caches_keep_settings_and_versions_apart",),
    ),
    Mutation(
        "Inductor: shared decisions that are made as often as they are read",
        _PYTHON,
        "if not shared:\n        return element",
        "if shared is not None:\n        return element",
        ("tests/compile/test_inductor.py::test_what_is_shared_or_read_often_is_made_once",),
    ),
    Mutation(
        "Inductor: a partitioner that saves what backward could make",
        _PYTHON,
        'for name in ("is_recomputable", "is_fusible"):',
        'for name in ("is_fusible",):',
        ("tests/compile/test_inductor.py::test_no_more_is_saved_than_with_torchs_dropout",),
    ),
)
