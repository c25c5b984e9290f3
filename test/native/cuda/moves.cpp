#include "check.h"
namespace test { void moves() {} }
