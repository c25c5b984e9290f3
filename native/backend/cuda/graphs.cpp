// CUDA graphs behind graphs.h: streams are captured, and the kernels of calls whose scalars may change are remembered
// by their nodes. Other scalars: the launcher runs again, and what it would launch becomes the node's parameters.
#include "../graphs.h"

#include <atomic>
#include <cstdio>
#include <new>
#include <vector>

#include "backend.h"

namespace zs::cuda {

namespace {

std::atomic<int> alive{0};

struct Place {
  std::vector<cudaGraphNode_t> nodes;
};

struct Graph {
  cudaGraph_t graph = nullptr;  // its nodes are the names of the executable one's
  cudaGraphExec_t executable = nullptr;
};

// What a launcher's launches become, instead of going to the stream.
struct Redirected {
  Stream &stream;
  cudaGraphExec_t changed;  // nullptr: they are captured
  std::vector<cudaGraphNode_t> &nodes;
  size_t next = 0;
};
thread_local Redirected *redirected = nullptr;

size_t num_nodes(cudaGraph_t graph) {
  size_t count = 0;
  return cudaGraphGetNodes(graph, nullptr, &count) == cudaSuccess ? count : 0;
}

// The graph that the stream is captured into, and the newest node that its next one comes after.
cudaError_t capturing(cudaStream_t stream, cudaGraph_t *graph, cudaGraphNode_t *newest) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t *before = nullptr;
  const cudaGraphEdgeData *edges = nullptr;
  size_t count = 0;
  unsigned long long id = 0;
  cudaError_t error = cudaStreamGetCaptureInfo(stream, &status, &id, graph, &before, &edges, &count);
  if (error != cudaSuccess) return error;
  if (status != cudaStreamCaptureStatusActive) return cudaErrorStreamCaptureInvalidated;
  if (newest) *newest = count == 1 ? before[0] : nullptr;
  return cudaSuccess;
}

int32_t launch_elsewhere(Context *, const Launch &launch) {
  Redirected &to = *redirected;
  cudaKernelNodeParams parameters = {};
  parameters.func = const_cast<void *>(launch.kernel);
  parameters.gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
  parameters.blockDim = dim3(launch.threads);
  parameters.sharedMemBytes = static_cast<unsigned>(launch.shared);
  parameters.kernelParams = launch.arguments;
  if (to.changed) {
    if (to.next >= to.nodes.size()) return cudaErrorGraphExecUpdateFailure;
    return cudaGraphExecKernelNodeSetParams(to.changed, to.nodes[to.next++], &parameters);
  }
  cudaError_t error = cudaLaunchKernel(launch.kernel, parameters.gridDim, parameters.blockDim, launch.arguments,
                                       launch.shared, to.stream.stream);
  if (error != cudaSuccess) return error;
  cudaGraph_t graph = nullptr;
  cudaGraphNode_t node = nullptr;
  error = capturing(to.stream.stream, &graph, &node);
  if (error == cudaSuccess && !node) error = cudaErrorUnknown;
  if (error == cudaSuccess) to.nodes.push_back(node);
  return error;
}

int32_t run_elsewhere(Redirected &to, zs_kernel kernel, zs_call *call) {
  Context *context = static_cast<Context *>(call->context);
  redirected = &to;
  context->launch = launch_elsewhere;
  int32_t status = kernel(call);
  context->launch = nullptr;
  redirected = nullptr;
  return status;
}

int32_t begin(zs_stream *stream, char *error) {
  alive++;
  // Relaxed: what this thread and others do beside it (allocations) is no part of the capture.
  int32_t status = check(cudaStreamBeginCapture(stream_of(stream).stream, cudaStreamCaptureModeRelaxed), error,
                         "cudaStreamBeginCapture");
  if (status != ZS_OK) alive--;
  return status;
}

void destroy(void *graph) {
  Graph *one = static_cast<Graph *>(graph);
  if (one->executable) cudaGraphExecDestroy(one->executable);
  if (one->graph) cudaGraphDestroy(one->graph);
  cudaGetLastError();
  delete one;
  alive--;
}

int32_t end(zs_stream *stream, void **graph, char *error) {
  Graph *made = new (std::nothrow) Graph;
  cudaGraph_t captured = nullptr;
  int32_t status = check(cudaStreamEndCapture(stream_of(stream).stream, &captured), error, "cudaStreamEndCapture");
  if (!made) {
    if (captured) cudaGraphDestroy(captured);
    alive--;
    return check(cudaErrorMemoryAllocation, error, "cudaStreamEndCapture");
  }
  made->graph = captured;
  if (status == ZS_OK)
    status = check(cudaGraphInstantiate(&made->executable, captured, 0), error, "cudaGraphInstantiate");
  if (status == ZS_OK) *graph = made;
  else destroy(made);
  return status;
}

// A call that does more than launch its kernels (clears memory, calls a library) could not be changed by its nodes.
int32_t record(zs_stream *stream, zs_kernel kernel, zs_call *call, void **place) {
  Stream &one = stream_of(stream);
  Place *made = new (std::nothrow) Place;
  if (!made) return check(cudaErrorMemoryAllocation, call->error, "graph");
  *place = made;
  cudaGraph_t graph = nullptr;
  if (int32_t status = check(capturing(one.stream, &graph, nullptr), call->error, "cudaStreamGetCaptureInfo"))
    return status;
  size_t before = num_nodes(graph);
  Redirected to{one, nullptr, made->nodes};
  if (int32_t status = run_elsewhere(to, kernel, call)) return status;
  if (num_nodes(graph) - before == made->nodes.size()) return ZS_OK;
  snprintf(call->error, sizeof call->error, "its scalars cannot change in a graph: it does more than launch kernels");
  return ZS_UNSUPPORTED;
}

void forget(void *place) { delete static_cast<Place *>(place); }

int32_t set(void *graph, void *place, zs_kernel kernel, zs_call *call) {
  std::vector<cudaGraphNode_t> &nodes = static_cast<Place *>(place)->nodes;
  Redirected to{*static_cast<Stream *>(static_cast<Context *>(call->context)), static_cast<Graph *>(graph)->executable,
                nodes};
  if (int32_t status = run_elsewhere(to, kernel, call)) return status;
  if (to.next == nodes.size()) return ZS_OK;
  snprintf(call->error, sizeof call->error, "launches %zu kernels, %zu when it was captured", to.next, nodes.size());
  return ZS_DEVICE_ERROR;
}

int32_t launch(void *graph, zs_stream *stream, char *error) {
  return check(cudaGraphLaunch(static_cast<Graph *>(graph)->executable, stream_of(stream).stream), error,
               "cudaGraphLaunch");
}

}  // namespace

bool graphs_alive() { return alive.load() > 0; }

const zs_graphs graphs = {sizeof(zs_graphs), begin, end, record, forget, set, launch, destroy};

}  // namespace zs::cuda
