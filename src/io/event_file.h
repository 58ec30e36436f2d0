// TensorBoard event files: TFRecord frames (length, masked CRC-32C, bytes, masked CRC-32C) of tensorflow.Event
// messages, encoded by hand. Invariant: what flush() has returned ok for is whole records on disk, so a killed run
// leaves a readable log. Test: tests/io/event_file_test.cc
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace deepseek::io {

// CRC-32C (Castagnoli), RFC 3720 appendix B.4: of "123456789" it is 0xe3069283.
uint32_t crc32c(std::span<const std::byte> bytes);

class EventFile {
 public:
  // Creates "<folder>/events.out.tfevents.<seconds>.<host>.<pid>.<n>", and the folder where it is missing.
  static Result<EventFile> create(const std::string& folder);
  EventFile(EventFile&&) noexcept;
  EventFile& operator=(EventFile&&) noexcept;
  ~EventFile();  // flushes; call flush() first to learn of errors

  const std::string& path() const;
  // Adds one value to the buffer. Errors: kInvalidArgument for a tag that is empty or not UTF-8; kIo when a full
  // buffer cannot be written.
  Status scalar(std::string_view tag, int64_t step, double value);
  // Writes the buffer out. Errors: kIo; the records stay in the buffer for another try.
  Status flush();

 private:
  struct State;
  explicit EventFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace deepseek::io
