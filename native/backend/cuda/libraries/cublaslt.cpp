#include "cublaslt.h"

#include <cuda_runtime_api.h>

#include <string>

#include "../backend.h"
#include "find.h"

namespace zs::cuda {

namespace {

std::string bind_all(CublasLt &lt, int (**create)(LtHandle *)) {
  std::string missing;
  bind(Library::cublaslt, *create, "cublasLtCreate", missing);
  bind(Library::cublaslt, lt.status_string, "cublasLtGetStatusString", missing);
  bind(Library::cublaslt, lt.layout_create, "cublasLtMatrixLayoutCreate", missing);
  bind(Library::cublaslt, lt.layout_destroy, "cublasLtMatrixLayoutDestroy", missing);
  bind(Library::cublaslt, lt.layout_set, "cublasLtMatrixLayoutSetAttribute", missing);
  bind(Library::cublaslt, lt.desc_create, "cublasLtMatmulDescCreate", missing);
  bind(Library::cublaslt, lt.desc_destroy, "cublasLtMatmulDescDestroy", missing);
  bind(Library::cublaslt, lt.desc_set, "cublasLtMatmulDescSetAttribute", missing);
  bind(Library::cublaslt, lt.preference_create, "cublasLtMatmulPreferenceCreate", missing);
  bind(Library::cublaslt, lt.preference_destroy, "cublasLtMatmulPreferenceDestroy", missing);
  bind(Library::cublaslt, lt.preference_set, "cublasLtMatmulPreferenceSetAttribute", missing);
  bind(Library::cublaslt, lt.heuristic, "cublasLtMatmulAlgoGetHeuristic", missing);
  bind(Library::cublaslt, lt.matmul, "cublasLtMatmul", missing);
  return missing;
}

Bound<CublasLt> make() {
  Bound<CublasLt> made;
  const Opened &library = open_library(Library::cublaslt);
  if (!library.handle) return {{}, library.reason};
  int (*create)(LtHandle *) = nullptr;
  std::string missing = bind_all(made.functions, &create);
  if (!missing.empty()) return {{}, library.path + " " + library.version + " has no " + missing};
  int status = create(&made.functions.handle);
  if (status != 0) return {{}, std::string("cublasLtCreate: ") + made.functions.status_string(status)};
  const float values[2] = {0, 1};
  void *constants = nullptr;
  cudaError_t error = cudaMalloc(&constants, sizeof values);
  if (error == cudaSuccess) error = cudaMemcpy(constants, values, sizeof values, cudaMemcpyHostToDevice);
  if (error != cudaSuccess) return {{}, std::string("cublaslt: ") + cudaGetErrorString(error)};
  made.functions.constants = static_cast<const float *>(constants);
  return made;
}

}  // namespace

const CublasLt *cublaslt(char *error) {
  static const Bound<CublasLt> made = make();
  return made.get(error);
}

}  // namespace zs::cuda
