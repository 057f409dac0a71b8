// All kernels, in the order of `cokv_cuda::kernels::SOURCES`; `device.h` is the one beside this file.
#include "device.h"

#include "numbers.h"
#include "tables.h"
#include "attend_few.cu"
#include "attend_many.cu"
#include "attention.cu"
#include "attend_plain.cu"
#include "join.cu"
#include "elements.cu"
#include "cache.cu"
#include "answers.cu"
#include "observations.cu"
