// Opens a region whose functions may use AVX-512 F, BW, DQ and VL; target_end.inl closes it.
#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target("avx2,f16c,fma,avx512f,avx512bw,avx512dq,avx512vl"))), \
    apply_to = function)
#else
// GCC's AVX-512 headers read a deliberately undefined register (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,f16c,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
