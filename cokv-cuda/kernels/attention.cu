// The fast kernels, for the head dims that there are: HEAD_DIM is the model's on a GPU; the emulator has all of them.
#define FAST_KERNELS(D) \
  ATTEND_FEW(F16, f16, D) ATTEND_FEW(BF16, bf16, D) \
  ATTEND_MANY(F16, f16, D, 1) ATTEND_MANY(F16, f16, D, 2) ATTEND_MANY(BF16, bf16, D, 1) ATTEND_MANY(BF16, bf16, D, 2)
// The number and not its name is pasted.
#define FAST_KERNELS_OF(D) FAST_KERNELS(D)
#ifdef HEAD_DIM
#if HEAD_DIM > 0
FAST_KERNELS_OF(HEAD_DIM)
#endif
#else
FAST_KERNELS(64)
FAST_KERNELS(80)
FAST_KERNELS(96)
FAST_KERNELS(128)
#endif
