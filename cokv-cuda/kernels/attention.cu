// The fast kernels of a type and of a head dim. On a GPU these are those of the caches at hand (NUMBER, NUMBER_NAME, HEAD_DIM); the
// emulator has all of them.
#define FAST_KERNELS(T, name, D) ATTEND_FEW(T, name, D) ATTEND_MANY(T, name, D, 1) ATTEND_MANY(T, name, D, 2)
// The values and not the names of macros are pasted.
#define FAST_KERNELS_OF(T, name, D) FAST_KERNELS(T, name, D)
#ifdef HEAD_DIM
FAST_KERNELS_OF(NUMBER, NUMBER_NAME, HEAD_DIM)
#else
#define FAST_KERNELS_OF_BOTH(D) FAST_KERNELS(F16, f16, D) FAST_KERNELS(BF16, bf16, D)
FAST_KERNELS_OF_BOTH(64)
FAST_KERNELS_OF_BOTH(80)
FAST_KERNELS_OF_BOTH(96)
FAST_KERNELS_OF_BOTH(128)
#endif
