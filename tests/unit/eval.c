/* Word problems through implementations: what goes wrong ends in a sentence, and what is measured is what it says. */
#include "eval/eval.h"
#include <criterion/criterion.h>
