#ifndef THINK_COMPRESS_COPENBLAS_SHIM_H
#define THINK_COMPRESS_COPENBLAS_SHIM_H

#include <cblas.h>

#endif
