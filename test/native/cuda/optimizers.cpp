#include "check.h"
namespace test { void optimizers() {} }
