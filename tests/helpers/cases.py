"""Inputs that the bit-for-bit tests share, chosen so that possible mistakes show up in them.

test_sensitivity.py holds that claim: it breaks a copy of the reference in each of those ways and
demands that these inputs tell the difference.
"""

from __future__ import annotations

DTYPES = ("float64", "float32", "bfloat16", "float16")

# Dyadic and not; a threshold in the lower half only (ties of h = 0), in the upper half only, ties
# that the second call splits in the middle; the two ends and what rounds onto them.
PROBABILITIES = (
    0.1,
    0.3,
    1 / 3,
    0.5,
    2.0**-17,  # t_hi = 0, t_lo = 0x8000: only ties are dropped, half of them
    0.25 + 2.0**-17,
    1 - 2.0**-20,  # t_hi = 0xffff
    0.999999999,
    1e-9,
    2.0**-32,  # T = 1
    2.0**-33,  # a half, rounds to even: T = 0
    3 * 2.0**-33,  # one and a half, rounds to even: T = 2
    1 - 2.0**-32,  # T = 2^32 - 1
    1 - 2.0**-34,  # rounds to T = 2^32
    1.0,
)

# Around the lengths of a block (8), of vectors and keep words (16, 32, 64) and of buffers (2048).
SMALL_SIZES = (
    *range(20),
    *(23, 24, 25, 31, 32, 33, 47, 48, 63, 64, 65, 71, 72, 73, 127, 128, 129, 191, 192, 193),
    *(255, 256, 257, 511, 512, 513, 1000, 2047, 2048, 2049, 4095, 4096, 4097),
)

# Around the pieces that threads take, and not a multiple of anything.
THREAD_SIZES = (16383, 16384, 16385, 32769, 49152, 65535, 65537, 100003, 262144 + 9, 1000003)

# (seed, offset): both halves of both words in use, signs, and an offset + 1 that carries.
RNG_STATES = (
    (0, 0),
    (1, 0),
    (-1, 0),
    (2**32, 0),
    (2**63, 2),
    (2**64 - 1, 2**32 - 1),
    (0x243F6A8885A308D3, 0x13198A2E03707344),
    (-(2**63), 2**63 - 1),
    (7, -1),
)

# Mask indices to begin at: inside a block, at a block, at a word, across 2^32 elements, across
# 2^32 blocks (from an even place and an odd one), and the last ones there are.
BASES = (
    *(1, 3, 7, 8, 9, 60, 64, 2**31 - 9, 2**32 - 64, 2**32 - 5),
    *(2**35 - 512, 2**35 - 300, 2**35 - 64, 2**35 + 64, 2**40 + 3, 2**50 + 128, 2**62 + 1),
)

# Indices at which, for this state, the 32-bit number is all zeros or all ones, one for each lane of
# a block: the only element that p = 2^-32 drops, or that 1 - 2^-32 keeps, for billions around it.
RARE_STATE = (2026, 5)
RARE_ZEROS = (
    11224022296,
    17526776481,
    7775309394,
    32556670315,
    19803049372,
    77458954685,
    11908090382,
    41042164087,
)
RARE_ONES = (
    37379078552,
    21363164233,
    32384804986,
    17154231467,
    16058698492,
    7189823597,
    787072942,
    43243740183,
)
