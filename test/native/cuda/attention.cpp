#include "check.h"
namespace test { void attention() {} }
