// ISA-L: CRC32C (crc32_iscsi) with the carry-less multiply instructions.
#include <isa-l/crc.h>
