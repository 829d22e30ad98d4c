// libxxhash: XXH3 with 64 bits.
#include <xxhash.h>
