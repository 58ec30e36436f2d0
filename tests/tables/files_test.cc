// Files of each format come back as they were written; text with mistakes says where they are.
#include "tables/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace deepseek::tables {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              fmt::format("deepseek-tables-{}-{}", ::getpid(), ::testing::UnitTest::GetInstance()->random_seed());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string at(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(at(name), std::ios::binary) << text;
    return at(name);
  }
  static std::string error(const Result<Table>& result) { return result.ok() ? "no error" : result.status().message(); }

 private:
  std::filesystem::path folder_;
};

Table read(const std::string& path, const FileOptions& options = {}) {
  Result<Table> table = read_table(path, options);
  EXPECT_TRUE(table.ok()) << table.status().to_string();
  return table.ok() ? *table : nullptr;
}

constexpr const char* kText =
    "id,price,name,day,ok\n"
    "1,2.5,apple,2024-02-29,true\n"
    "2,NA,\"a, \"\"b\"\"\nc\",2024-03-01,false\n"
    "3,,?,,true\n";

TEST_F(Files, TextHasTypesAndMissingValues) {
  const Table table = read(write("a.csv", kText));
  EXPECT_EQ(table->schema()->ToString(), "id: int64\nprice: double\nname: string\nday: date32[day]\nok: bool");
  EXPECT_EQ(table->num_rows(), 3);
  EXPECT_EQ(table->column(1)->null_count(), 2);
  EXPECT_EQ(table->column(2)->null_count(), 1);
  EXPECT_EQ(table->column(2)->GetScalar(1).ValueOrDie()->ToString(), "a, \"b\"\nc");
  const Table chosen = read(write("b.tsv", "id\tx\n007\t1\n"), {.types = {{"id", "string"}}, .columns = {"x", "id"}});
  EXPECT_EQ(chosen->schema()->ToString(), "x: int64\nid: string");
  EXPECT_EQ(read(write("c.txt", "1;2\n"), {.delimiter = ";", .header = false})->schema()->field_names(),
            (std::vector<std::string>{"f0", "f1"}));
}

TEST_F(Files, EveryFormatGivesBackWhatWasWritten) {
  const Table table = read(write("a.csv", kText));
  for (const char* name : {"b.csv", "b.tsv", "b.parquet", "b.arrow", "b.feather"}) {
    const Status status = write_table(*table, at(name));
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_TRUE(read(at(name))->Equals(*table)) << name << read(at(name))->ToString();
    auto stream = open_table(at(name), {.columns = {"name", "id"}});
    ASSERT_TRUE(stream.ok()) << stream.status().to_string();
    const Table streamed = (*stream)->ToTable().ValueOrDie();
    EXPECT_TRUE(streamed->Equals(*table->SelectColumns({2, 0}).ValueOrDie())) << name << streamed->ToString();
  }
  const Table json = read(write("a.jsonl", "{\"x\": 1, \"y\": [1, 2]}\n{\"x\": null, \"z\": \"t\"}\n"));
  EXPECT_EQ(json->schema()->field_names(), (std::vector<std::string>{"x", "y", "z"}));
}

TEST_F(Files, AStreamIsNeverWholeInMemory) {
  {
    std::ofstream file(at("long.csv"));
    file << "a,b\n";
    for (int i = 0; i < 400000; ++i) file << i << ',' << i * 0.5 << '\n';
  }
  auto stream = open_table(at("long.csv"));
  ASSERT_TRUE(stream.ok()) << stream.status().to_string();
  int64_t rows = 0, batches = 0, largest = 0;
  for (std::shared_ptr<arrow::RecordBatch> batch; (*stream)->ReadNext(&batch).ok() && batch != nullptr; ++batches) {
    rows += batch->num_rows();
    largest = std::max(largest, batch->num_rows());
  }
  EXPECT_EQ(rows, 400000);
  EXPECT_GT(batches, 3);
  EXPECT_LT(largest, 200000);
}

TEST_F(Files, MistakesSayWhereTheyAre) {
  EXPECT_THAT(error(read_table(at("none.csv"))), HasSubstr("none.csv"));
  EXPECT_THAT(error(read_table(write("a.dat", "x"))), HasSubstr("name the format"));
  EXPECT_THAT(error(read_table(write("ragged.csv", "a,b\n1,2\n1,2,3\n"))),
              AllOf(HasSubstr("ragged.csv"), HasSubstr("#3"), HasSubstr("Expected 2 columns, got 3")));
  EXPECT_THAT(error(read_table(write("types.csv", "a\n1\nx\n"), {.types = {{"a", "int64"}}})),
              AllOf(HasSubstr("types.csv"), HasSubstr("column #0"), HasSubstr("'x'")));
  EXPECT_THAT(error(read_table(write("types.csv", "a\n1\n"), {.types = {{"a", "itn64"}}})),
              HasSubstr("did you mean 'int64'?"));
  EXPECT_THAT(error(read_table(write("bytes.csv", "a\n\xff\xfe\n"), {.types = {{"a", "string"}}})),
              AllOf(HasSubstr("bytes.csv"), HasSubstr("invalid UTF8")));
  EXPECT_THAT(error(read_table(write("empty.csv", ""))), HasSubstr("Empty CSV file"));
  EXPECT_THAT(error(read_table(write("cut.parquet", "PAR1....."))), HasSubstr("cut.parquet"));
  EXPECT_THAT(error(read_table(write("cut.arrow", "ARROW1"))), HasSubstr("cut.arrow"));
  EXPECT_THAT(error(read_table(write("cut.jsonl", "{\"a\": 1}\n{\"a\""))), HasSubstr("cut.jsonl"));
  const Table table = read(write("a.csv", kText));
  ASSERT_TRUE(write_table(*table, at("a.parquet")).ok());
  EXPECT_THAT(error(read_table(at("a.parquet"), {.columns = {"prise"}})), HasSubstr("did you mean 'price'?"));
  EXPECT_FALSE(write_table(*table, at("a.jsonl")).ok());
}

}  // namespace
}  // namespace deepseek::tables
