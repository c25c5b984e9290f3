// The error of the core: a stable code (lib/binding/errors.ts lists them) and a message for people.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <string>

namespace zs {

struct Error {
  std::string code;
  std::string message;
};

// A string made as by printf.
__attribute__((format(printf, 1, 2))) inline std::string text(const char *format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

}  // namespace zs
