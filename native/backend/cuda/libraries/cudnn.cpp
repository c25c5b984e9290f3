#include "cudnn.h"

#include <string>

#include "find.h"

namespace zs::cuda {

namespace {

Bound<Cudnn> make() {
  Bound<Cudnn> made;
  const Opened &library = open_library(Library::cudnn);
  if (!library.handle) return {{}, library.reason};
  const std::string named = "cuDNN " + library.version + " at " + library.path;
  size_t (*version)() = nullptr;
  std::string missing;
  Cudnn &d = made.functions;
  bind(Library::cudnn, version, "cudnnGetVersion", missing);
  bind(Library::cudnn, d.error_string, "cudnnGetErrorString", missing);
  bind(Library::cudnn, d.last_error, "cudnnGetLastErrorString", missing);
  bind(Library::cudnn, d.create, "cudnnCreate", missing);
  bind(Library::cudnn, d.set_stream, "cudnnSetStream", missing);
  bind(Library::cudnn, d.descriptor_create, "cudnnBackendCreateDescriptor", missing);
  bind(Library::cudnn, d.descriptor_destroy, "cudnnBackendDestroyDescriptor", missing);
  bind(Library::cudnn, d.finalize, "cudnnBackendFinalize", missing);
  bind(Library::cudnn, d.set, "cudnnBackendSetAttribute", missing);
  bind(Library::cudnn, d.get, "cudnnBackendGetAttribute", missing);
  bind(Library::cudnn, d.execute, "cudnnBackendExecute", missing);
  if (!missing.empty()) made.reason = named + " has no " + missing + "; 9.14 or newer is needed";
  else if ((d.version = version()) < kCudnnLeast) made.reason = named + " is too old: 9.14 or newer is needed";
  return made;
}

}  // namespace

const Cudnn *cudnn(char *error) {
  static const Bound<Cudnn> made = make();
  return made.get(error);
}

}  // namespace zs::cuda
