// Opens a region whose functions may use AVX2, FMA and F16C; target_end.inl closes it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c,fma"))), apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC push_options
#pragma GCC target("avx2,f16c,fma")
#endif
