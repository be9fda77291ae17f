/* A libols of another time: all that may be asked of it before its version is known. Any other call ends the program, as the symbol is missing. */
#include <stdint.h>

uint32_t ols_abi_version(void) { return 99; }
const char *ols_version(void) { return "9.8.7"; }
const char *ols_status_string(int32_t status) { return status == 7 ? "UNSUPPORTED" : "UNKNOWN"; }
void ols_destroy(void *criterion) { (void)criterion; }
