// Swap files of a runtime: ranges of tensors are written and read back as jobs of the disk's stream.
#include "runtime.h"

#include "../io/swap_file.h"

namespace zs {

namespace {

class SwapJob : public Job {
 public:
  SwapJob(std::shared_ptr<SwapFile> file, bool write, std::vector<SwapRange> ranges, DeviceStream *device,
          std::vector<bool> on_device)
      : file_(std::move(file)),
        write_(write),
        ranges_(std::move(ranges)),
        device_(device),
        on_device_(std::move(on_device)) {}
  void run() override {
    if (!device_) return file_->transfer(write_, ranges_);
    Staging staging(device_);
    for (size_t i = 0; i < ranges_.size(); i++)
      staging.add(ranges_[i].data, static_cast<size_t>(ranges_[i].bytes), on_device_[i],
                  write_ ? Staging::in : Staging::out);
    staging.fetch();
    std::vector<SwapRange> ranges = ranges_;
    for (size_t i = 0; i < ranges.size(); i++) ranges[i].data = static_cast<char *>(staging.at(static_cast<int>(i)));
    file_->transfer(write_, ranges);
    staging.store();
  }
  TraceDetail detail() const override {
    TraceDetail detail;
    for (const SwapRange &range : ranges_) detail.bytes += range.bytes;
    return detail;
  }

 private:
  std::shared_ptr<SwapFile> file_;
  bool write_;
  std::vector<SwapRange> ranges_;
  DeviceStream *device_;  // nullptr: all is host memory
  std::vector<bool> on_device_;
};

bool share_a_page(const SwapRange &a, const SwapRange &b) {
  auto first = [](const SwapRange &range) { return range.offset / kDiskPage; };
  auto last = [](const SwapRange &range) { return (range.offset + range.bytes - 1) / kDiskPage; };
  return a.bytes > 0 && b.bytes > 0 && first(a) <= last(b) && first(b) <= last(a);
}

}  // namespace

int Runtime::open_swap(const std::string &path, int64_t bytes, const SwapOptions &options) {
  swaps_.push_back(std::make_shared<SwapFile>(path, bytes, options));
  return static_cast<int>(swaps_.size()) - 1;
}

std::shared_ptr<SwapFile> Runtime::swap(double id) const {
  auto file = swaps_.empty() ? nullptr : swaps_[read_index(id, static_cast<int>(swaps_.size()), "swap file")];
  if (!file) throw Error{"DISPOSED", text("swap file %g is closed", id)};
  return file;
}

// What is queued keeps the file open.
void Runtime::close_swap(double id) {
  swap(id);
  swaps_[static_cast<size_t>(id)].reset();
}

void Runtime::transfer(const double *packet) {
  refuse_in_capture("traffic with a swap file");
  bool write = packet[0] != 0;
  std::shared_ptr<SwapFile> file = swap(packet[1]);
  int count = read_index(packet[2], kMaxTensors + 1, "number of ranges");
  int index = serial_ ? 0 : kDiskStream;
  std::vector<SwapRange> ranges;
  std::vector<Storage *> storages;
  std::vector<bool> on_device;
  Waits waits;
  for (int i = 0; i < count; i++) {
    double offset = packet[3 + 2 * i];
    const Tensor &tensor = memory_.find(packet[4 + 2 * i]);
    SwapRange range{static_cast<int64_t>(offset), static_cast<char *>(tensor.range.data), tensor.bytes()};
    if (!(offset >= 0 && offset <= static_cast<double>(file->bytes())) || range.offset + range.bytes > file->bytes() ||
        static_cast<double>(range.offset) != offset)
      throw Error{"ARGUMENT", text("%lld bytes at offset %.17g are not within the %lld of '%s'",
                                   static_cast<long long>(range.bytes), offset,
                                   static_cast<long long>(file->bytes()), file->path().c_str())};
    for (const SwapRange &other : ranges)
      if (write && share_a_page(range, other))
        throw Error{"ARGUMENT", text("offsets %lld and %lld of one write lie in the same page of 4096 bytes",
                                     static_cast<long long>(other.offset), static_cast<long long>(range.offset))};
    ranges.push_back(range);
    storages.push_back(tensor.storage);
    on_device.push_back(tensor.storage->on_device);
    if (write) tensor.storage->hazards.before_read(waits);
    else tensor.storage->hazards.before_write(waits);
  }
  auto job = std::make_unique<SwapJob>(std::move(file), write, std::move(ranges), stream(index).device(),
                                       std::move(on_device));
  uint64_t sequence = stream(index).push_job(std::move(job), write ? "swapWrite" : "swapRead", waits);
  for (Storage *storage : storages) {
    if (write) storage->hazards.did_read(index, sequence);
    else storage->hazards.did_write(index, sequence);
  }
}

}  // namespace zs
