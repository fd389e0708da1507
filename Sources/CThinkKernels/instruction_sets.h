#include "think_kernels.h"
#define TCK_HIDDEN __attribute__((visibility("hidden")))
TCK_HIDDEN extern const tck_kernels tck_scalar_kernels;
