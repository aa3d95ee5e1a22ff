"""Mistakes in the mathematics and in the loops: csrc/core, csrc/kernels."""

from tests.mutations.mutation import Mutation

_MASK = "tests/contract/test_mask_bitwise.py"
_OUTPUT = "tests/contract/test_output_bitwise.py"
_LAYOUTS = "tests/contract/test_layouts.py"
_INDEX_MAP = "tests/contract/test_index_map.py"
_EMULATION = "tests/cuda/test_emulation.py"

_CONTRACT = (
    Mutation("Philox constant", "csrc/core/philox.h", "0xD2511F53", "0xD2511F55", ()),
    Mutation("Philox with nine rounds", "csrc/core/philox.h", "kRounds = 10;", "kRounds = 9;", ()),
    Mutation(
        "SIMD Philox: a key word without its counter word",
        "csrc/core/philox_lanes.inl",
        "key1(1) ^ static_cast<uint32_t>(product0)",
        "key1(1)",
        (_MASK,),
    ),
    Mutation(
        "halves of a random word swapped",
        "csrc/core/mask.h",
        ">> (16 * (lane & 1))",
        ">> (16 * (~lane & 1))",
        (_MASK,),
    ),
    Mutation(
        "threshold truncated",
        "csrc/core/mask.h",
        "rest > 0.5 || (rest",
        "(rest",
        (_MASK,),
    ),
    Mutation(
        "tie broken by the same call",
        "csrc/core/mask.h",
        "random_words({state.seed, state.offset + 1},",
        "random_words({state.seed, state.offset},",
        (f"{_MASK}::test_ties",),
    ),
    Mutation(
        "fold_in: from a counter that masks have",
        "csrc/core/fold_in.h",
        "kFoldBlock = ~uint64_t{0};",
        "kFoldBlock = 0;",
        ("tests/contract/test_fold_in.py::test_known_answers",),
    ),
    Mutation(
        "ties of the last vector alone are looked at",
        "csrc/kernels/cpu/keep_words.inl",
        "any_tie |= first.tie",
        "any_tie = first.tie",
        (f"{_MASK}::test_ties",),
    ),
    Mutation(
        "block number of 32 bits",
        "csrc/kernels/cpu/keep_words.inl",
        "static_cast<uint32_t>((group * kWordBlocks) >> 32)",
        "static_cast<uint32_t>((group * 0) >> 32)",
        (f"{_MASK}::test_base",),
    ),
    Mutation(
        "scale from a probability of 16 bits",
        "csrc/core/mask.h",
        "return static_cast<double>(t) / static_cast<double>(kOne);",
        "return static_cast<double>(t >> 16 << 16) / static_cast<double>(kOne);",
        (_OUTPUT,),
    ),
    Mutation(
        "dropped elements multiplied by zero",
        "csrc/core/scalar.h",
        "return keep ? kept : rule.dropped();",
        "return keep ? kept : narrow<T>(rule.kept(widen(x)) * 0);",
        (f"{_OUTPUT}::test_special_values", f"{_OUTPUT}::test_dropped_is_plus_zero"),
    ),
    Mutation(
        "bfloat16 rounded half up",
        "csrc/core/scalar.h",
        "(bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16",
        "(bits + 0x8000u) >> 16",
        (f"{_OUTPUT}::test_every_pattern_of_16_bits",),
    ),
    Mutation(
        "bfloat16 taken for float16",
        "csrc/core/scalar.h",
        "return choose(BFloat16{});",
        "return choose(Float16{});",
        (f"{_OUTPUT}::test_sizes",),
    ),
    Mutation(
        "dimensions merged although their mask does not go on",
        "csrc/core/index_map.h",
        " &&\n           outer.mask == inner.mask * inner.size;",
        ";",
        (_INDEX_MAP,),
    ),
)

_CPU = (
    Mutation(
        "AVX2: blocks in another order",
        "csrc/kernels/cpu/avx2.inl",
        "_mm256_packs_epi16(even, odd)",
        "_mm256_packs_epi16(odd, even)",
        (_MASK,),
        path="avx2",
    ),
    Mutation(
        "AVX2: dropped doubles multiplied by zero",
        "csrc/kernels/cpu/avx2.inl",
        "_mm256_and_pd(scaled, _mm256_castsi256_pd(expand_bits64(bits)))",
        "_mm256_mul_pd(scaled, _mm256_and_pd(_mm256_set1_pd(1.0), "
        "_mm256_castsi256_pd(expand_bits64(bits))))",
        (f"{_OUTPUT}::test_special_values",),
        path="avx2",
    ),
    Mutation(
        "AVX-512: blocks in another order",
        "csrc/kernels/cpu/avx512.inl",
        "_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7)",
        "_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)",
        (_MASK,),
        path="avx512",
    ),
    Mutation(
        "AVX-512: the second half of a float16 vector read one element early",
        "csrc/kernels/cpu/avx512.inl",
        "kept(x + 16, rule)",
        "kept(x + 15, rule)",
        (f"{_OUTPUT}::test_sizes",),
        path="avx512",
    ),
    Mutation(
        "tail with its neighbour's decisions",
        "csrc/kernels/cpu/body.inl",
        "y[j] = apply_rule(x[j], ((keep >> j) & 1) != 0, rule);",
        "y[j] = apply_rule(x[j], ((keep >> (j ^ 1)) & 1) != 0, rule);",
        (f"{_OUTPUT}::test_sizes",),
    ),
    Mutation(
        "decisions across two words cut off",
        "csrc/kernels/cpu/body.inl",
        "if (shift + n > kWord) {",
        "if (shift + n > kWord + 1) {",
        (_LAYOUTS, _INDEX_MAP),
    ),
    Mutation(
        "rows said to be adjacent although there is a gap",
        "csrc/kernels/cpu/plan.cpp",
        "next.in == row.size && next.out == row.size",
        "next.out == row.size",
        (f"{_LAYOUTS}::test_output",),
    ),
)

_CUDA = (
    Mutation(
        "CUDA: decisions of the lane itself instead of those asked for",
        "csrc/kernels/cuda/pack.cuh",
        "from_lane(block, element / kBlock) >> (element % kBlock)",
        "block >> (element % kBlock)",
        (_EMULATION,),
    ),
    Mutation(
        "CUDA: the last lane asks for the first lane's pack of the same access",
        "csrc/kernels/cuda/pack.cuh",
        "if (!has_next && begin < V && end > V - shift)",
        "if (false)",
        (f"{_EMULATION}::test_rows_that_begin_anywhere",),
    ),
    Mutation(
        "CUDA: a long row begins with the block of the mask in which it begins",
        "csrc/kernels/cuda/row.cuh",
        "kTile<T> - static_cast<int>(row.mask % kBlock)",
        "kTile<T>",
        (_EMULATION,),
    ),
    Mutation(
        "CUDA: a run that begins inside a block ends one block early",
        "csrc/kernels/cuda/strided.cuh",
        "b * kBlock < shift + count",
        "b * kBlock + 1 < shift + count",
        (_EMULATION,),
    ),
    Mutation(
        "CUDA: a row that begins in another place of its block than its output",
        "csrc/kernels/cuda/rows.cuh",
        ">> (index % kBlock)",
        ">> 0",
        (_EMULATION,),
    ),
    Mutation(
        "CUDA: strided tiles of one step, so that a draw serves one element",
        "csrc/kernels/cuda/launch.cu",
        "kWarp / owners * (near_run ? 1 : kRun)",
        "1",
        ("tests/cuda/test_access_counts.py",),
    ),
    Mutation(
        "CUDA: states of a batch that overlap",
        "csrc/kernels/cuda/launch.cu",
        "state.offset + 2 * static_cast<uint64_t>(k)",
        "state.offset + static_cast<uint64_t>(k)",
        (f"{_EMULATION}::test_captured_state",),
    ),
    Mutation(
        "CUDA: the captured offset is not that of the replay",
        "csrc/kernels/cuda/common.cuh",
        "state.offset += static_cast<uint64_t>(source.offset[step]);",
        "state.offset += 0 * static_cast<uint64_t>(source.offset[step]);",
        (f"{_EMULATION}::test_captured_state",),
    ),
)

MUTATIONS = (*_CONTRACT, *_CPU, *_CUDA)
