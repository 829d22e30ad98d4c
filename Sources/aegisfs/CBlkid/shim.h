// libblkid, and the major/minor functions, which Swift's Glibc module leaves out.
#include <blkid/blkid.h>
#include <sys/sysmacros.h>
