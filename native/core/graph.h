// Work on a device that was captured, to be launched again and again: what it works on stays where it is, and of the
// calls whose scalars may change it is known where they are in the graph.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../backend/graphs.h"
#include "memory.h"

namespace zs {

// A call with scalars that may change. Made by the owner's thread, then the stream's.
struct LiveCall {
  zs_kernel kernel;
  std::string name;
  std::vector<zs_tensor> tensors;
  int num_scalars;
  void *place = nullptr;  // of the backend, once it is recorded
};

// What a launch changes: scalars of some calls.
struct LiveScalars {
  const LiveCall *call;
  std::vector<double> scalars;
};

struct Graph {
  explicit Graph(const zs_backend &backend) : backend(backend), table(*backend.graphs) {}
  ~Graph();  // no launch is under way
  Graph(const Graph &) = delete;
  Graph &operator=(const Graph &) = delete;

  void *keep(const void *values, size_t bytes);  // in pinned memory, for each launch to read

  const zs_backend &backend;
  const zs_graphs &table;
  void *native = nullptr;
  std::vector<std::unique_ptr<LiveCall>> calls;
  std::vector<Storage *> held;  // memory from outside, once for each
  Memory::Pool pool;            // and its own
  std::vector<std::pair<void *, size_t>> constants;
};

}  // namespace zs
