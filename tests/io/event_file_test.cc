// The checksum against its published value, the file's records decoded here by the specification.
#include "io/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "io/atomic_file.h"
#include "tests/io/temp_folder.h"

namespace deepseek::io {
namespace {

using ::testing::HasSubstr;

TEST(Crc32c, KnownValues) {
  EXPECT_EQ(crc32c(std::as_bytes(std::span("123456789", 9))), 0xe3069283u);
  const std::vector<std::byte> zeros(32, std::byte{0});  // RFC 3720, B.4
  EXPECT_EQ(crc32c(zeros), 0x8a9136aau);
  EXPECT_EQ(crc32c({}), 0u);
}

template <class T>
T take(std::span<const std::byte>& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes = bytes.subspan(sizeof(T));
  return value;
}

uint32_t masked(std::span<const std::byte> bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

TEST(EventFile, RecordsFollowTheSpecification) {
  TempFolder folder;
  auto file = EventFile::create(folder / "runs/a");
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  ASSERT_TRUE(file->scalar("loss", 300, 0.5).ok());
  ASSERT_TRUE(file->flush().ok());
  EXPECT_THAT(file->path(), HasSubstr("/runs/a/events.out.tfevents."));
  const auto bytes = read_file(file->path());
  ASSERT_TRUE(bytes.ok());
  std::span<const std::byte> rest(*bytes);
  std::vector<std::string> records;
  while (!rest.empty()) {
    const auto head = rest.first(8);
    const auto length = take<uint64_t>(rest);
    EXPECT_EQ(take<uint32_t>(rest), masked(head));
    const auto body = rest.first(length);
    records.emplace_back(reinterpret_cast<const char*>(body.data()), body.size());
    rest = rest.subspan(length);
    EXPECT_EQ(take<uint32_t>(rest), masked(body));
  }
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].substr(9),
            "\x1a\x0d"
            "brain.Event:2");
  // step (field 2) = 300 = varint ac 02; summary (5) of one value (1): tag (1), simple_value (2) = 0.5f.
  EXPECT_EQ(records[1].substr(9), std::string("\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f", 18));
}

TEST(EventFile, ErrorsAreExplained) {
  TempFolder folder;
  auto file = EventFile::create(folder.path());
  ASSERT_TRUE(file.ok());
  EXPECT_THAT(file->scalar("", 0, 1).message(), HasSubstr("non-empty UTF-8"));
  EXPECT_THAT(file->scalar("\xff", 0, 1).message(), HasSubstr("non-empty UTF-8"));
  EXPECT_THAT(EventFile::create(file->path() + "/x").status().message(), HasSubstr("cannot create folder"));
}

}  // namespace
}  // namespace deepseek::io
