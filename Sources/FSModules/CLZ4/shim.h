// LZ4, and its slower form that compresses more.
#include <lz4.h>
#include <lz4hc.h>
