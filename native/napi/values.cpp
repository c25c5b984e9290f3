// Values from and to JavaScript.
#include "environment.h"

namespace zs::napi {

namespace {

[[noreturn]] void wrong(const char *what, const char *wanted) {
  throw Error{"ARGUMENT", text("%s must be %s", what, wanted)};
}

}  // namespace

double number_of(const Call &call, napi_value value, const char *what) {
  double result;
  if (!value || napi_get_value_double(call.env, value, &result) != napi_ok) wrong(what, "a number");
  return result;
}

int integer_of(const Call &call, napi_value value, int least, int end, const char *what) {
  double number = number_of(call, value, what);
  if (!(number >= least && number < end) || number != static_cast<int>(number))
    throw Error{"ARGUMENT", text("%s is %g, not an integer from %d to %d", what, number, least,
                                 end - 1)};
  return static_cast<int>(number);
}

bool boolean_of(const Call &call, napi_value value, const char *what) {
  bool result;
  if (!value || napi_get_value_bool(call.env, value, &result) != napi_ok) wrong(what, "a boolean");
  return result;
}

std::string string_of(const Call &call, napi_value value, const char *what) {
  size_t size;
  if (!value || napi_get_value_string_utf8(call.env, value, nullptr, 0, &size) != napi_ok)
    wrong(what, "a string");
  std::string result(size + 1, '\0');
  napi_get_value_string_utf8(call.env, value, result.data(), size + 1, &size);
  result.resize(size);
  return result;
}

Bytes bytes_of(const Call &call, napi_value value, const char *what) {
  bool typed = false, view = false;
  napi_is_typedarray(call.env, value, &typed);
  napi_is_dataview(call.env, value, &view);
  void *data = nullptr;
  size_t length = 0;
  if (view) {
    napi_get_dataview_info(call.env, value, &length, &data, nullptr, nullptr);
    return {data, length};
  }
  if (!typed) wrong(what, "a typed array or DataView");
  napi_typedarray_type type;
  napi_get_typedarray_info(call.env, value, &type, &length, &data, nullptr, nullptr);
  size_t element = 1;
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array: element = 2; break;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: element = 4; break;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array: element = 8; break;
    default: break;
  }
  return {data, length * element};
}

std::vector<napi_value> elements_of(const Call &call, napi_value value, const char *what) {
  bool array = false;
  napi_is_array(call.env, value, &array);
  if (!array) wrong(what, "an array");
  uint32_t length = 0;
  napi_get_array_length(call.env, value, &length);
  std::vector<napi_value> elements(length);
  for (uint32_t i = 0; i < length; i++) napi_get_element(call.env, value, i, &elements[i]);
  return elements;
}

napi_value property_of(const Call &call, napi_value object, const char *name) {
  napi_value value = nullptr;
  napi_valuetype type;
  if (!object || napi_typeof(call.env, object, &type) != napi_ok || type != napi_object)
    wrong("options", "an object");
  napi_get_named_property(call.env, object, name, &value);
  return value;
}

bool is_undefined(const Call &call, napi_value value) {
  napi_valuetype type = napi_undefined;
  if (value) napi_typeof(call.env, value, &type);
  return type == napi_undefined;
}

napi_value make_number(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

napi_value make_string(napi_env env, const std::string &value) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

napi_value make_numbers(napi_env env, const double *values, int count) {
  napi_value result = nullptr;
  napi_create_array_with_length(env, static_cast<size_t>(count), &result);
  for (int i = 0; i < count; i++)
    napi_set_element(env, result, static_cast<uint32_t>(i), make_number(env, values[i]));
  return result;
}

napi_value make_error(napi_env env, const Error &error) {
  napi_value result = nullptr;
  napi_create_error(env, make_string(env, error.code), make_string(env, error.message), &result);
  return result;
}

void set(napi_env env, napi_value object, const char *name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

}  // namespace zs::napi
