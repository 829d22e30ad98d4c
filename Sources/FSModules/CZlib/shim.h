// zlib: compress2 and uncompress2.
#include <zlib.h>
