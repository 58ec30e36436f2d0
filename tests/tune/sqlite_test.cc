// What can happen to a file.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "tests/tune/stores.h"

namespace deepseek::tune {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

TEST(Sqlite, TakesTheFormsOfUrls) {
  TempFolder folder;
  const std::string before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const auto relative = open_sql_store("sqlite:///relative.file", "a", kConfig);
  std::filesystem::current_path(before);
  ASSERT_OK(relative);
  EXPECT_TRUE(std::filesystem::exists(folder / "relative.file"));
  ASSERT_OK(put(**relative, trial(0, "w")));
  const auto again = (*relative)->again();  // the same file, though the working folder is another
  ASSERT_OK(again);
  EXPECT_EQ(trials_of(**again).size(), 1u);
  for (const std::string& url : {"sqlite:///" + (folder / "absolute"), folder / "plain.db", folder / "plain.sqlite"})
    EXPECT_OK(open_sql_store(url, "a", kConfig));
  EXPECT_TRUE(std::filesystem::exists(folder / "absolute"));
  for (const std::string url :
       {"", "study", "sqlite://", "sqlite:///", "sqlite:///:memory:", "mysql://me:secret@host/db"}) {
    const Status status = open_sql_store(url, "a", kConfig).status();
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument) << url;
    EXPECT_THAT(status.message(), HasSubstr("expected sqlite:///relative.db"));
    EXPECT_THAT(status.message(), ::testing::Not(HasSubstr("secret")));
  }
}

TEST(Sqlite, NamesAFileThatIsNoDatabase) {
  TempFolder folder;
  const std::string path = folder / "study.db";
  for (const std::string& text : {std::string("hello"), std::string(5000, 'x')}) {
    write(path, text);
    for (const Status& status : {open_sql_store(path, "a", kConfig).status(), open_sql_store(path, "a", "").status(),
                                 list_studies(path).status(), delete_study(path, "a")}) {
      EXPECT_EQ(status.code(), ErrorCode::kDataCorrupt);
      EXPECT_THAT(status.message(), AllOf(HasSubstr(path), HasSubstr("expected a SQLite database")));
    }
    EXPECT_EQ(std::filesystem::file_size(path), text.size());
  }
}

TEST(Sqlite, NamesADamagedFile) {
  TempFolder folder;
  const std::string path = folder / "study.db";
  {
    const auto store = open_sql_store(path, "a", kConfig);
    ASSERT_OK(store);
    for (int64_t i = 0; i < 200; ++i) ASSERT_OK(put(**store, finished(i)));
  }
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(8192);
  file << std::string(static_cast<size_t>(std::filesystem::file_size(path)) - 8192, '\xa5');
  file.close();
  const auto store = open_sql_store(path, "a", "");
  const Status status = store.ok() ? (*store)->transact([](Transaction&) { return Status(); }) : store.status();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ErrorCode::kDataCorrupt) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("the database is damaged"));
}

TEST(Sqlite, NamesFilesThatCannotBe) {
  TempFolder folder;
  const Status missing = open_sql_store(folder / "none.db", "a", "").status();
  EXPECT_EQ(missing.code(), ErrorCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("No such file"));
  EXPECT_EQ(list_studies(folder / "none.db").status().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(folder / "none.db"));
  const Status no_folder = open_sql_store(folder / "no/such.db", "a", kConfig).status();
  EXPECT_EQ(no_folder.code(), ErrorCode::kIo);
  EXPECT_THAT(no_folder.message(), AllOf(HasSubstr("no/such.db"), HasSubstr("its folder must exist")));
  std::filesystem::create_directory(folder / "folder.db");
  EXPECT_THAT(open_sql_store(folder / "folder.db", "a", kConfig).status().message(), HasSubstr("cannot open it"));
}

TEST(Sqlite, NamesAFileThatMayOnlyBeRead) {
  TempFolder folder;
  const std::string path = folder / "study.db";
  {
    const auto store = open_sql_store(path, "a", kConfig);
    ASSERT_OK(store);
    ASSERT_OK(put(**store, finished(0)));
  }
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  ASSERT_EQ(::chmod(folder.path().c_str(), 0555), 0);
  const bool root = ::geteuid() == 0;
  ASSERT_TRUE(!root || ::seteuid(65534) == 0);
  const Status old = open_sql_store(path, "a", kConfig).status(),
               fresh = open_sql_store(folder / "b.db", "a", kConfig).status();
  ASSERT_TRUE(!root || ::seteuid(0) == 0);
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
  for (const Status& status : {old, fresh}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.code(), ErrorCode::kIo);
    EXPECT_THAT(status.message(), AllOf(HasSubstr(folder.path()), HasSubstr("check the")));
  }
}

// Trials until one fails; the error, and how many were kept.
Status fill(Store& store, int64_t& kept) {
  for (kept = 0; kept < 100'000; ++kept) {
    Trial t = finished(kept);
    t.note = std::string(2000, 'x');
    DS_TRY(put(store, t));
  }
  return {};
}

TEST(Sqlite, GoesOnAfterALimitOfFiles) {
  TempFolder folder;
  const std::string path = folder / "study.db";
  const auto store = open_sql_store(path, "a", kConfig);
  ASSERT_OK(store);
  rlimit old;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{300'000, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  int64_t kept = 0;
  const Status full = fill(**store, kept);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  ::signal(SIGXFSZ, handler);
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.code(), ErrorCode::kIo);
  EXPECT_THAT(full.message(), AllOf(HasSubstr(path), HasSubstr("no space left"), HasSubstr("nothing was changed")));
  EXPECT_GT(kept, 5);
  EXPECT_EQ(trials_of(**store).size(), static_cast<size_t>(kept));
  ASSERT_OK(put(**store, finished(kept)));
  const auto reopened = open_sql_store(path, "a", "");
  ASSERT_OK(reopened);
  EXPECT_EQ(trials_of(**reopened).size(), static_cast<size_t>(kept + 1));
}

TEST(Sqlite, GoesOnAfterAFullDisk) {
  TempFolder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=512k") != 0)
    GTEST_SKIP() << "no small disk may be mounted here: " << std::strerror(errno);
  const std::string path = folder / "study.db";
  write(folder / "ballast", std::string(100'000, 'x'));
  {
    const auto store = open_sql_store(path, "a", kConfig);
    EXPECT_OK(store);
    int64_t kept = 0;
    const Status full = store.ok() ? fill(**store, kept) : store.status();
    EXPECT_EQ(full.code(), ErrorCode::kIo);
    EXPECT_THAT(full.message(), AllOf(HasSubstr(path), HasSubstr("no space left")));
    EXPECT_GT(kept, 5);
    std::filesystem::remove(folder / "ballast");
    EXPECT_OK(put(**store, finished(kept)));
    const auto reopened = open_sql_store(path, "a", "");
    EXPECT_OK(reopened);
    EXPECT_EQ(trials_of(**reopened).size(), static_cast<size_t>(kept + 1));
  }
  EXPECT_EQ(::umount(folder.path().c_str()), 0);
}

TEST(Sqlite, WaitsForALockAndSaysSo) {
  TempFolder folder;
  const std::string path = folder / "study.db";
  bool cancel = false;
  const auto store = open_sql_store(path, "a", kConfig, 0.3, [&] { return cancel; });
  ASSERT_OK(store);
  const auto holder = make_database(path, false, {});
  ASSERT_OK((*holder)->connect());
  ASSERT_OK((*holder)->begin());
  const auto from = std::chrono::steady_clock::now();
  const Status busy = put(**store, trial(0, "w"));
  EXPECT_GE(std::chrono::steady_clock::now() - from, std::chrono::milliseconds(290));
  EXPECT_EQ(busy.code(), ErrorCode::kIo);
  EXPECT_THAT(busy.message(), AllOf(HasSubstr(path), HasSubstr("other processes have kept it locked")));
  cancel = true;
  EXPECT_EQ(put(**store, trial(0, "w")).code(), ErrorCode::kInterrupted);
  cancel = false;
  (*holder)->rollback();
  EXPECT_OK(put(**store, trial(0, "w")));
}

TEST(Sqlite, NoticesThatTheFileWasTaken) {
  TempFolder folder;
  const std::string path = folder / "study.db";
  const auto store = open_sql_store(path, "a", kConfig);
  ASSERT_OK(store);
  ASSERT_OK(put(**store, trial(0, "w")));
  std::filesystem::remove(path);
  EXPECT_THAT(put(**store, trial(1, "w")).message(), HasSubstr("moved or deleted while it was open"));
}

TEST(Sqlite, RefusesWhatWasOpenBeforeAFork) {
  TempFolder folder;
  const std::string path = folder / "study.db";
  auto opened = open_sql_store(path, "a", kConfig);
  ASSERT_OK(opened);
  std::shared_ptr<Store> store = std::move(opened).value();
  const auto refused = [&](const Status& status) {
    return !status.ok() && status.message().find("when this process was forked") != std::string::npos;
  };
  EXPECT_EQ(wait_for(in_child([&] {
              return refused(put(*store, trial(0, "w"))) && refused(open_sql_store(path, "a", kConfig).status()) &&
                     open_sql_store(folder / "other.db", "a", kConfig).ok();
            })),
            0);
  ASSERT_OK(put(*store, trial(0, "w")));
  store.reset();
  opened->reset();
  EXPECT_EQ(wait_for(in_child([&] {
              const auto own = open_sql_store(path, "a", "");
              return own.ok() && put(**own, trial(1, "w")).ok();
            })),
            0);
}

}  // namespace
}  // namespace deepseek::tune
