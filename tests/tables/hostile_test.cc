// Files of others that are damaged, or made to do harm: an error with a reason, in little time and memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "tables/files.h"
#include "tables/guards.h"
#include "tables/spill.h"
#include "tests/io/temp_folder.h"

namespace deepseek::tables {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Hostile : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  static std::string error(const Result<Table>& result) { return result.ok() ? "no error" : result.status().message(); }
  TempFolder folder_;
};

// Batch by batch.
Result<Table> streamed(const std::string& path, const FileOptions& options = {}) {
  DS_ASSIGN(const auto reader, open_table(path, options));
  return from_arrow(reader->ToTable());
}

TEST_F(Hostile, SeedsOfTheFuzzerAreTablesOrErrors) {
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(DEEPSEEK_SOURCE_DIR "/tests/fuzz/corpus/table")) {
    const std::string path = entry.path().string();
    for (const char* format : {"csv", "jsonl", "arrow", "parquet"})
      for (const auto& table : {read_table(path, {.format = format}), streamed(path, {.format = format})}) {
        if (table.ok()) {
          EXPECT_TRUE((*table)->ValidateFull().ok()) << path << " as " << format;
        } else {
          EXPECT_FALSE(table.status().message().empty()) << path;
        }
      }
    if (path.ends_with(".arrow")) {
      ++seen;
      EXPECT_THAT(error(read_table(path)), AllOf(HasSubstr(path), HasSubstr("the data is damaged")));
      EXPECT_THAT(error(streamed(path)), HasSubstr("the data is damaged"));
    }
  }
  EXPECT_GT(seen, 5);
}

TEST_F(Hostile, JsonLinesAreObjects) {
  const auto told = [&](const std::string& text) { return error(read_table(write("a.jsonl", text))); };
  EXPECT_THAT(told("null}\n"), AllOf(HasSubstr("a.jsonl"), HasSubstr("line 1: expected an object")));
  EXPECT_THAT(told("{\"a\": 1}\n{\"a\": 2} null\n"), HasSubstr("line 2: expected an object"));
  EXPECT_THAT(told("[1]\n"), HasSubstr("line 1: expected an object"));
  EXPECT_THAT(told("{\"a\":\n1}\n"), HasSubstr("line 1: expected an object that ends on its line"));
  EXPECT_THAT(told("{\"a\": 1}\n{\"a\": \"x\n"), HasSubstr("line 2: expected an object that ends"));
  EXPECT_THAT(told("{\"a\": 1}\n{\"a\": [1"), HasSubstr("line 2: the object doesn't end"));
  EXPECT_THAT(told("{\"a\":" + std::string(200000, '[') + std::string(200000, ']') + "}\n"),
              HasSubstr("line 1: nested deeper than 64"));
  std::string maps;
  for (int i = 0; i < 100000; ++i) maps += "{\"a\":";
  EXPECT_THAT(told(maps + "1" + std::string(100000, '}')), HasSubstr("nested deeper than 64"));
  // What Arrow makes an invalid array of.
  EXPECT_THAT(told("{\"a\":{\"b\":[null,{\"c\":1}]}}\n{\"a\":{\"b\":[]}}\n"), HasSubstr("damaged"));
  // And what is allowed.
  const auto good = read_table(
      write("b.jsonl", "\xEF\xBB\xBF{\"a\": \"}{][\\\"\\\\\", \"b\": [{\"c\": [1]}]}\r\n\n \t\n{\"a\": null}\n"));
  ASSERT_TRUE(good.ok()) << good.status().to_string();
  EXPECT_EQ((*good)->num_rows(), 2);
  EXPECT_EQ((*good)->column(0)->GetScalar(0).ValueOrDie()->ToString(), "}{][\"\\");
}

// A row longer than a block, at the beginning and after many others, whole and in a stream.
TEST_F(Hostile, RowsMayBeLongerThanABlock) {
  const std::string text(3'000'000, 'x');
  std::string rows;
  for (int i = 0; i < 200000; ++i) rows += "1,ab\n";
  std::string lines;
  for (int i = 0; i < 100000; ++i) lines += "{\"n\": 1, \"t\": \"ab\"}\n";
  const std::string long_line = "{\"n\": 2, \"t\": \"" + text + "\"}\n", quoted = "2,\"" + text + "\n" + text + "\"\n";
  const struct {
    std::string path;
    int64_t rows, at;
    size_t length;
  } cases[] = {{write("first.csv", "n,t\n2," + text + "\n" + rows), 200001, 0, text.size()},
               {write("late.csv", "n,t\n" + rows + quoted + "3,c\n"), 200002, 200000, 2 * text.size() + 1},
               {write("first.jsonl", long_line + lines), 100001, 0, text.size()},
               {write("late.jsonl", lines + long_line + lines), 200001, 100000, text.size()}};
  for (const auto& c : cases)
    for (const auto& table : {read_table(c.path), streamed(c.path)}) {
      ASSERT_TRUE(table.ok()) << table.status().to_string();
      ASSERT_EQ((*table)->num_rows(), c.rows) << c.path;
      EXPECT_EQ((*table)->column(0)->GetScalar(c.at).ValueOrDie()->ToString(), "2") << c.path;
      EXPECT_EQ((*table)->column(1)->GetScalar(c.at).ValueOrDie()->ToString().size(), c.length) << c.path;
      EXPECT_EQ((*table)->column(1)->GetScalar(c.rows - 1).ValueOrDie()->ToString().size(),
                c.path.ends_with("late.csv") ? 1u : 2u);
    }
}

// A hundred megabytes of one row in a file of a hundred kilobytes, and a quotation mark that is never closed.
TEST_F(Hostile, BombsAreErrors) {
  const std::string path = folder_ / "bomb.csv.gz";
  gzFile file = gzopen(path.c_str(), "wb9");
  const std::string piece(1 << 20, 'x');
  gzputs(file, "a,b\n");
  for (int i = 0; i < 140; ++i) ASSERT_EQ(gzwrite(file, piece.data(), 1 << 20), 1 << 20);
  gzclose(file);
  EXPECT_THAT(error(read_table(path)), AllOf(HasSubstr("bomb.csv.gz"), HasSubstr("a row is longer than 64 MiB")));
  EXPECT_THAT(error(streamed(path)), HasSubstr("a row is longer than 64 MiB"));
  arrow::MemoryPool* pool = capped_pool();
  uint8_t* out = nullptr;
  EXPECT_TRUE(pool->Allocate(int64_t{1} << 60, &out).IsOutOfMemory());
}

TEST_F(Hostile, WhatIsNoFileIsAnError) {
  const std::string pipe = folder_ / "pipe.csv";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const auto& table : {read_table(pipe), streamed(pipe)})
    EXPECT_THAT(error(table), HasSubstr("is a pipe, expected a file"));
  EXPECT_THAT(error(read_table(std::string("a.csv\0.csv", 10))), HasSubstr("character 0"));
  const Table table = *read_table(write("a.csv", "a\n1\n"));
  EXPECT_THAT(write_table(*table, "/dev/full", {.format = "csv"}).message(), HasSubstr("is a device or a pipe"));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

// What is kept of a stream has no name that could be planted before or found afterwards.
TEST_F(Hostile, KeptStreamsLeaveNoName) {
  const std::string path = write("a.csv", "a,b\n1,x\n2,y\n");
  int opened = 0;
  const OpenStream open = spilled(
      [&] {
        ++opened;
        return open_table(path);
      },
      folder_.path());
  for (int pass = 0; pass < 3; ++pass) {
    const auto first = open(), second = open();
    ASSERT_TRUE(first.ok()) << first.status().to_string();
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
    const Table one = (*first)->ToTable().ValueOrDie(), other = (*second)->ToTable().ValueOrDie();
    EXPECT_EQ(one->num_rows(), 2);
    EXPECT_TRUE(one->Equals(*other));
  }
  EXPECT_EQ(opened, 2);  // at once; afterwards what was kept is read
  EXPECT_FALSE(spilled([&] { return open_table(path); }, folder_ / "none")().ok());
}

}  // namespace
}  // namespace deepseek::tables
