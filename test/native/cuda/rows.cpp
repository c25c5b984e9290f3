#include "check.h"
namespace test { void rows() {} }
