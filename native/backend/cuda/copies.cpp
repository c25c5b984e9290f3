// Copies between host and device. Pageable memory passes through two pinned halves of the stream, so that one is
// copied by the host while the other travels.
#include <algorithm>
#include <cstring>

#include "backend.h"
#include "matmul.h"

namespace zs::cuda {

namespace {

int32_t prepare(Stream &stream, int half, char *error) {
  if (stream.halves[half]) return ZS_OK;
  void *data = nullptr;
  if (int32_t status = check(cudaHostAlloc(&data, Stream::kHalf, cudaHostAllocPortable), error, "cudaHostAlloc"))
    return status;
  stream.halves[half] = static_cast<char *>(data);
  return check(cudaEventCreateWithFlags(&stream.passed[half], cudaEventDisableTiming), error, "cudaEventCreate");
}

int32_t queue(Stream &stream, void *target, const void *source, size_t bytes, cudaMemcpyKind kind, char *error) {
  return check(cudaMemcpyAsync(target, source, bytes, kind, stream.stream), error, "cudaMemcpyAsync");
}

int32_t passes(Stream &stream, int half, char *error) {
  return check(cudaEventRecord(stream.passed[half], stream.stream), error, "cudaEventRecord");
}

int32_t has_passed(Stream &stream, int half, char *error) {
  return check(cudaEventSynchronize(stream.passed[half]), error, "cudaEventSynchronize");
}

// A half that an earlier copy filled is free once its event has passed; a fresh event has.
int32_t to_device(Stream &stream, char *target, const char *source, size_t bytes, char *error) {
  int half = 0;
  for (size_t at = 0; at < bytes; at += Stream::kHalf, half ^= 1) {
    size_t part = std::min(Stream::kHalf, bytes - at);
    if (int32_t status = prepare(stream, half, error)) return status;
    if (int32_t status = has_passed(stream, half, error)) return status;
    memcpy(stream.halves[half], source + at, part);
    if (int32_t status = queue(stream, target + at, stream.halves[half], part, cudaMemcpyHostToDevice, error))
      return status;
    if (int32_t status = passes(stream, half, error)) return status;
  }
  return ZS_OK;
}

int32_t fetch(Stream &stream, int half, const char *source, size_t part, char *error) {
  if (int32_t status = prepare(stream, half, error)) return status;
  if (int32_t status = has_passed(stream, half, error)) return status;
  if (int32_t status = queue(stream, stream.halves[half], source, part, cudaMemcpyDeviceToHost, error)) return status;
  return passes(stream, half, error);
}

int32_t to_host(Stream &stream, char *target, const char *source, size_t bytes, char *error) {
  auto part = [bytes](size_t at) { return std::min(Stream::kHalf, bytes - at); };
  if (bytes > 0)
    if (int32_t status = fetch(stream, 0, source, part(0), error)) return status;
  int half = 0;
  for (size_t at = 0; at < bytes; at += Stream::kHalf, half ^= 1) {
    size_t next = at + Stream::kHalf;
    if (next < bytes)
      if (int32_t status = fetch(stream, half ^ 1, source + next, part(next), error)) return status;
    if (int32_t status = has_passed(stream, half, error)) return status;
    memcpy(target + at, stream.halves[half], part(at));
  }
  return take_report(stream, error);
}

}  // namespace

int32_t copy(zs_stream *stream, void *target, const void *source, size_t bytes, int32_t direction, char *error) {
  Stream &one = stream_of(stream);
  switch (direction) {
    case ZS_TO_DEVICE:
      return to_device(one, static_cast<char *>(target), static_cast<const char *>(source), bytes, error);
    case ZS_TO_HOST:
      return to_host(one, static_cast<char *>(target), static_cast<const char *>(source), bytes, error);
    case ZS_ON_DEVICE: return queue(one, target, source, bytes, cudaMemcpyDeviceToDevice, error);
    case ZS_TO_DEVICE_PINNED: return queue(one, target, source, bytes, cudaMemcpyHostToDevice, error);
    case ZS_TO_HOST_PINNED: return queue(one, target, source, bytes, cudaMemcpyDeviceToHost, error);
    default: return check(cudaErrorInvalidValue, error, "copy: no such direction");
  }
}

int32_t clear(void *stream, void *data, size_t bytes, char *error) {
  return check(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(stream)), error, "cudaMemsetAsync");
}

int32_t zero(zs_stream *stream, void *target, size_t bytes, char *error) {
  return check(cudaMemsetAsync(target, 0, bytes, stream_of(stream).stream), error, "cudaMemsetAsync");
}

}  // namespace zs::cuda
