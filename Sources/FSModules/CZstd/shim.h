// Zstandard with contexts that are used again.
#include <zstd.h>
