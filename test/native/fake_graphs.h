// Graphs of the faked device. A launch runs what was captured in a random order that keeps only the order which was
// captured: what nobody asked to wait does not wait.
#pragma once
#include "../../native/backend/graphs.h"
#include "fake_device.h"

namespace zs::fake {

struct FakeGraph {
  std::vector<Capturing::Node> nodes;
};
inline std::atomic<int> live_graphs{0}, live_places{0};

inline int32_t graph_begin(zs_stream *stream, char *error) {
  FakeStream *one = native(stream);
  if (one->capturing) return tell(error, ZS_DEVICE_ERROR, "the stream is capturing already");
  one->capturing = std::make_shared<Capturing>();
  one->capturing->streams.push_back(one);
  one->after.clear();
  return ZS_OK;
}

// Whether all that streams have captured comes before the next piece of the first.
inline bool all_joined(const Capturing &capturing) {
  std::vector<bool> seen(capturing.nodes.size());
  std::vector<size_t> open = capturing.streams[0]->after;
  while (!open.empty()) {
    size_t node = open.back();
    open.pop_back();
    if (seen[node]) continue;
    seen[node] = true;
    open.insert(open.end(), capturing.nodes[node].after.begin(), capturing.nodes[node].after.end());
  }
  for (FakeStream *stream : capturing.streams)
    for (size_t node : stream->after)
      if (!seen[node]) return false;
  return true;
}

inline int32_t graph_end(zs_stream *stream, void **graph, char *error) {
  std::shared_ptr<Capturing> capturing = native(stream)->capturing;
  if (!capturing) return tell(error, ZS_DEVICE_ERROR, "the stream is not capturing");
  bool joined = device.ignore_waits || all_joined(*capturing);
  for (FakeStream *one : capturing->streams) {
    one->capturing.reset();
    one->after.clear();
  }
  if (!capturing->invalid.empty())
    return tell(error, ZS_DEVICE_ERROR, "the capture was invalidated by " + capturing->invalid);
  if (!joined) return tell(error, ZS_DEVICE_ERROR, "a stream has captured work that was not joined");
  *graph = new FakeGraph{std::move(capturing->nodes)};
  live_graphs++;
  return ZS_OK;
}

inline int32_t graph_record(zs_stream *stream, zs_kernel kernel, zs_call *call, void **place) {
  auto *nodes = new std::vector<size_t>;
  *place = nodes;
  live_places++;
  native(stream)->recorded = nodes;
  int32_t status = kernel(call);
  native(stream)->recorded = nullptr;
  return status;
}

inline void graph_forget(void *place) {
  delete static_cast<std::vector<size_t> *>(place);
  live_places--;
}

inline int32_t graph_set(void *graph, void *place, zs_kernel kernel, zs_call *call) {
  FakeGraph &changed = *static_cast<FakeGraph *>(graph);
  const auto &places = *static_cast<std::vector<size_t> *>(place);
  FakeStream *stream = static_cast<FakeStream *>(call->stream);
  size_t next = 0;
  stream->replace = [&](std::function<void()> body) {
    if (next >= places.size()) die("a call launches more than when it was captured");
    changed.nodes[places[next++]].body = std::move(body);
  };
  int32_t status = kernel(call);
  stream->replace = nullptr;
  if (status == ZS_OK && next != places.size()) die("a call launches less than when it was captured");
  return status;
}

inline void run_in_any_order(const std::vector<Capturing::Node> &nodes, std::mt19937 &random) {
  std::vector<size_t> waits(nodes.size()), ready;
  std::vector<std::vector<size_t>> then(nodes.size());
  for (size_t i = 0; i < nodes.size(); i++) {
    for (size_t before : nodes[i].after) then[before].push_back(i);
    waits[i] = nodes[i].after.size();
    if (waits[i] == 0) ready.push_back(i);
  }
  while (!ready.empty()) {
    std::swap(ready[random() % ready.size()], ready.back());
    size_t node = ready.back();
    ready.pop_back();
    nodes[node].body();
    for (size_t next : then[node])
      if (--waits[next] == 0) ready.push_back(next);
  }
}

inline int32_t graph_launch(void *graph, zs_stream *stream, char *error) {
  FakeStream *one = native(stream);
  if (is_captured(one, "graph_launch", error)) return ZS_DEVICE_ERROR;
  queue(one, [one, nodes = static_cast<FakeGraph *>(graph)->nodes] { run_in_any_order(nodes, one->random); });
  return ZS_OK;
}

inline void graph_destroy(void *graph) {
  delete static_cast<FakeGraph *>(graph);
  live_graphs--;
}

inline const zs_graphs graphs = {sizeof(zs_graphs), graph_begin, graph_end,    graph_record,
                                 graph_forget,      graph_set,   graph_launch, graph_destroy};

}  // namespace zs::fake
