#include "io/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <filesystem>

#include "base/strings.h"
#include "io/atomic_file.h"

namespace deepseek::io {
namespace {

constexpr size_t kBufferBytes = 1 << 16;

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82f63b78u : 0u);  // reflected polynomial
    table[i] = c;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

void put_fixed(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

// Protocol buffers' wire format: key = field number * 8 + wire type.
void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_varint(out, static_cast<uint64_t>(field) * 8 + 2);
  put_varint(out, bytes.size());
  out.append(bytes);
}
void put_double(std::string& out, int field, double value) {
  put_varint(out, static_cast<uint64_t>(field) * 8 + 1);
  put_fixed(out, std::bit_cast<uint64_t>(value), 8);
}
void put_float(std::string& out, int field, float value) {
  put_varint(out, static_cast<uint64_t>(field) * 8 + 5);
  put_fixed(out, std::bit_cast<uint32_t>(value), 4);
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(std::as_bytes(std::span(bytes)));
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

void put_record(std::string& out, std::string_view message) {
  std::string length;
  put_fixed(length, message.size(), 8);
  out += length;
  put_fixed(out, masked_crc(length), 4);
  out += message;
  put_fixed(out, masked_crc(message), 4);
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

bool is_utf8(std::string_view text) { return first_invalid_utf8(text) == text.size(); }

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes) {
  uint32_t crc = ~0u;
  for (const std::byte b : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint32_t>(b)) & 0xff];
  return ~crc;
}

struct EventFile::State {
  std::string path;
  std::string buffer;
  int fd = -1;
  ~State() {
    if (fd >= 0) ::close(fd);
  }
};

EventFile::EventFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
EventFile::EventFile(EventFile&&) noexcept = default;
EventFile& EventFile::operator=(EventFile&& other) noexcept {
  if (state_ != nullptr && this != &other) (void)flush();  // as in the destructor
  state_ = std::move(other.state_);
  return *this;
}
EventFile::~EventFile() {
  // A destructor cannot report; callers who care have called flush().
  if (state_ != nullptr) (void)flush();
}

Result<EventFile> EventFile::create(const std::string& folder) {
  static std::atomic<int> counter{0};
  DS_TRY(check_path(folder));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return system_error("create folder", folder, error.value());
  char host[256] = "localhost";
  if (::gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  auto state = std::make_unique<State>();
  const double now = seconds_now();
  state->path = fmt::format("{}/events.out.tfevents.{:010d}.{}.{}.{}", folder, static_cast<int64_t>(now), host,
                            ::getpid(), counter.fetch_add(1));
  state->fd = ::open(state->path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  if (state->fd < 0) return system_error("create", state->path, errno);
  std::string event;
  put_double(event, 1, now);
  put_bytes(event, 3, "brain.Event:2");  // the version record every reader looks for first
  put_record(state->buffer, event);
  EventFile file(std::move(state));
  DS_TRY(file.flush());
  return file;
}

const std::string& EventFile::path() const { return state_->path; }

Status EventFile::scalar(std::string_view tag, int64_t step, double value) {
  if (tag.empty() || !is_utf8(tag)) return invalid("[events] a tag must be non-empty UTF-8 text");
  std::string point, summary, event;
  put_bytes(point, 1, tag);
  put_float(point, 2, static_cast<float>(value));
  put_bytes(summary, 1, point);
  put_double(event, 1, seconds_now());
  put_varint(event, 2 * 8 + 0);
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary);
  put_record(state_->buffer, event);
  if (state_->buffer.size() >= kBufferBytes) return flush();
  return {};
}

Status EventFile::flush() {
  std::string& buffer = state_->buffer;
  size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t n = ::write(state_->fd, buffer.data() + done, buffer.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error_number = errno;
      buffer.erase(0, done);  // the rest continues the record exactly where the disk stopped
      return system_error("write", state_->path, error_number);
    }
    done += static_cast<size_t>(n);
  }
  buffer.clear();
  return {};
}

}  // namespace deepseek::io
