// Run-time instruction set dispatch for plain loops: DS_SIMD before a function compiles it for AVX-512, AVX2 and the
// baseline, and the loader picks one. Sums keep 16 lanes by hand, since strict floating point may not be reordered.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#define DS_SIMD  // resolvers run before the sanitizer's own start-up
#else
#define DS_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
