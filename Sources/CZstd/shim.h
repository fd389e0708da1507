#ifndef THINK_COMPRESS_CZSTD_SHIM_H
#define THINK_COMPRESS_CZSTD_SHIM_H

#include <zstd.h>
#include <zstd_errors.h>

#endif
