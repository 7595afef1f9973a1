/* record.c: recorded calls as a trace. */
#include "model.h"
