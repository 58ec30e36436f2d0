// SQLite in WAL mode: readers don't wait, writers wait for each other, and a process that is killed leaves whole
// transactions.
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

#include "tune/stores/database.h"

namespace deepseek::tune {
namespace {

using Clock = std::chrono::steady_clock;

// For another process's transaction.
constexpr double kBusySeconds = 60;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void clock_function(sqlite3_context* context, int, sqlite3_value**) { sqlite3_result_double(context, seconds_now()); }

// What is open in this process. SQLite's locks don't survive a fork, and it doesn't notice: a child that opens a file
// that its parent had open believes that it holds the parent's locks, and loses data once the parent is gone.
class OpenFiles {
 public:
  static OpenFiles& all() {
    static OpenFiles files;
    return files;
  }
  void add(const std::string& path) {
    const std::lock_guard lock(mutex_);
    ++open_[{::getpid(), path}];
  }
  void remove(const std::string& path) {
    const std::lock_guard lock(mutex_);
    const auto it = open_.find({::getpid(), path});
    if (it != open_.end() && --it->second == 0) open_.erase(it);
  }
  bool inherited(const std::string& path) {
    const std::lock_guard lock(mutex_);
    return std::any_of(open_.begin(), open_.end(),
                       [&](const auto& e) { return e.first.first != ::getpid() && e.first.second == path; });
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<pid_t, std::string>, int> open_;
};

class Sqlite : public Database {
 public:
  Sqlite(std::string path, std::string label, bool create, const Patience& patience)
      : path_(std::move(path)), label_(std::move(label)), create_(create), patience_(patience) {}
  ~Sqlite() override { close(); }

  Status connect() override {
    if (db_ && pid_ != ::getpid()) return forked();
    close();
    if (!create_ && ::access(path_.c_str(), F_OK) != 0)
      return other(make_error(ErrorCode::kNotFound, "{}: {}", label_, std::generic_category().message(errno)));
    if (OpenFiles::all().inherited(path_)) return forked();
    const int flags =
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | (create_ ? SQLITE_OPEN_CREATE : 0);
    errno = 0;
    const int rc = sqlite3_open_v2(path_.c_str(), &db_, flags, nullptr);
    if (rc != SQLITE_OK) {
      Status status = error(rc, "open");
      sqlite3_close_v2(db_);
      db_ = nullptr;
      return status;
    }
    pid_ = ::getpid();
    OpenFiles::all().add(path_);
    Status status = prepare_connection();
    if (!status.ok()) close();
    if (status.ok()) ++connections_;
    return status;
  }
  bool connected() const override { return db_ && pid_ == ::getpid(); }
  std::unique_ptr<Database> again(const Patience& patience) const override {
    return std::make_unique<Sqlite>(path_, label_, false, patience);
  }

  Result<std::vector<Row>> execute(const std::string& sql, const std::vector<Value>& parameters) override {
    // Some errors end SQLite's transaction; what follows must not be kept by itself.
    if (in_transaction_ && sqlite3_get_autocommit(db_))
      return other(make_error(ErrorCode::kIo, "{}: an earlier error has ended the transaction", label_));
    sqlite3_stmt*& statement = statements_[sql];
    if (!statement) {
      errno = 0;
      const int rc = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                        &statement, nullptr);
      if (rc != SQLITE_OK) {
        Status status = error(rc, sql);
        statements_.erase(sql);
        return status;
      }
    }
    for (size_t i = 0; i < parameters.size(); ++i) bind(statement, i, parameters[i]);
    std::vector<Row> rows;
    int rc;
    errno = 0;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) rows.push_back(row_of(statement));
    Status status = rc == SQLITE_DONE ? Status() : error(rc, sql);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (!status.ok()) return status;
    return rows;
  }

  Status begin() override {
    int moved = 0;
    if (sqlite3_file_control(db_, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved)
      return other(make_error(ErrorCode::kIo, "{}: it was moved or deleted while it was open; put it back or open anew",
                              label_));
    if (sqlite3_db_readonly(db_, "main") == 1) return error(SQLITE_READONLY, "write to");
    DS_TRY(execute("BEGIN IMMEDIATE", {}).status());
    in_transaction_ = true;
    return {};
  }
  Status commit() override {
    DS_TRY(execute("COMMIT", {}).status());
    in_transaction_ = false;
    return {};
  }
  void rollback() override {
    if (!in_transaction_) return;
    in_transaction_ = false;
    // Where SQLite has rolled back by itself there is nothing to do.
    if (db_ && !sqlite3_get_autocommit(db_)) (void)sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  }

  Result<bool> has_table(const std::string& name) override {
    DS_ASSIGN(const std::vector<Row> rows,
              execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1", {name}));
    return !rows.empty();
  }
  Status lock_schema() override { return {}; }  // BEGIN IMMEDIATE has locked everything
  const char* row_lock() const override { return ""; }
  const char* clock() const override { return "deepseek_clock()"; }
  const std::string& label() const override { return label_; }

 private:
  Status prepare_connection() {
    sqlite3_busy_handler(db_, &Sqlite::busy, this);
    sqlite3_create_function(db_, "deepseek_clock", 0, SQLITE_UTF8, nullptr, clock_function, nullptr, nullptr);
    // Fails at once, without the handler, where others change the mode too.
    std::vector<Row> mode;
    const Clock::time_point from = Clock::now();
    for (;;) {
      Result<std::vector<Row>> result = execute("PRAGMA journal_mode = WAL", {});
      if (result.ok()) {
        mode = std::move(*result);
        break;
      }
      // One may read a file that one may not write; begin() refuses.
      if (sqlite3_db_readonly(db_, "main") == 1 && (last_ & 0xff) == SQLITE_READONLY) break;
      if ((last_ & 0xff) != SQLITE_BUSY || !wait(from)) return std::move(result).status();
    }
    forget_failure();
    // Some file systems have no shared memory, so no WAL; then only full synchronisation keeps the file whole.
    const bool wal = mode.size() == 1 && text_of(mode[0][0]) == "wal";
    return execute(wal ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL", {}).status();
  }

  void close() {
    if (!db_) return;
    // A child of a fork must leave its parent's connection alone, which includes closing it.
    if (pid_ == ::getpid()) {
      for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
      sqlite3_close_v2(db_);
      OpenFiles::all().remove(path_);
    }
    statements_.clear();
    db_ = nullptr;
    in_transaction_ = false;
  }

  // False: waited long enough.
  bool wait(Clock::time_point from) {
    const double longest = std::min(kBusySeconds, patience_.seconds);
    const Clock::time_point now = Clock::now();
    if (std::chrono::duration<double>(now - from).count() >= longest) return false;
    if (now - asked_ > std::chrono::milliseconds(100)) {
      asked_ = now;
      cancelled_ = is_cancelled(patience_);
    }
    if (cancelled_) return false;
    static thread_local std::minstd_rand random{std::random_device()()};
    std::this_thread::sleep_for(
        std::chrono::duration<double>(std::uniform_real_distribution<double>(2e-4, 5e-3)(random)));
    return true;
  }
  // SQLite's own handler soon sleeps for a tenth of a second, so that who waits longest gets its turn last.
  static int busy(void* self, int count) {
    auto* database = static_cast<Sqlite*>(self);
    if (count == 0) database->busy_since_ = Clock::now();
    return database->wait(database->busy_since_) ? 1 : 0;
  }

  static void bind(sqlite3_stmt* statement, size_t i, const Value& value) {
    const int at = sqlite3_bind_parameter_index(statement, fmt::format("${}", i + 1).c_str());
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      sqlite3_bind_int64(statement, at, *integer);
    } else if (const auto* number = std::get_if<double>(&value)) {
      sqlite3_bind_double(statement, at, *number);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      sqlite3_bind_text64(statement, at, text->data(), text->size(), SQLITE_STATIC, SQLITE_UTF8);
    } else {
      sqlite3_bind_null(statement, at);
    }
  }

  static Row row_of(sqlite3_stmt* statement) {
    Row row(static_cast<size_t>(sqlite3_column_count(statement)));
    for (size_t i = 0; i < row.size(); ++i) {
      const int c = static_cast<int>(i);
      switch (sqlite3_column_type(statement, c)) {
        case SQLITE_INTEGER: row[i] = static_cast<int64_t>(sqlite3_column_int64(statement, c)); break;
        case SQLITE_FLOAT: row[i] = sqlite3_column_double(statement, c); break;
        case SQLITE_NULL: break;
        default: {
          const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, c));
          if (text) row[i] = std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement, c)));
        }
      }
    }
    return row;
  }

  Status other(Status status) {
    failure_ = Failure::kOther;
    return status;
  }
  Status forked() {
    return other(make_error(ErrorCode::kIo,
                            "{}: it was open when this process was forked, which SQLite's locks don't survive; open "
                            "the study after the fork, "
                            "or start workers as new programs (in Python, multiprocessing's 'spawn')",
                            label_));
  }
  Status error(int rc, const std::string& what) {
    const int system_error = errno;
    last_ = rc;
    if (std::exchange(cancelled_, false)) return other(cancelled_error(label_));
    // SQLite's own record of it, sqlite3_system_errno(), leaves out writes.
    const int number = (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN ? system_error : 0;
    const std::string system = number ? std::generic_category().message(number) : sqlite3_errstr(rc);
    const bool limit = number == ENOSPC || number == EFBIG || number == EDQUOT;
    const auto io = [&](std::string_view what_happened, std::string_view advice) {
      return make_error(ErrorCode::kIo, "{}: {}; {}", label_, what_happened, advice);
    };
    switch (rc & 0xff) {
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
      case SQLITE_PROTOCOL:
        return other(io(
            fmt::format("other processes have kept it locked for {:.0f} s", std::min(kBusySeconds, patience_.seconds)),
            "see which one holds it (fuser names them); the study is as it was"));
      case SQLITE_FULL: return other(io("no space left", "nothing was changed; free space on its disk, then go on"));
      case SQLITE_IOERR:
        if (limit) return other(io("no space left: " + system, "nothing was changed; make room, then go on"));
        return other(io(fmt::format("{} ({})", sqlite3_errstr(rc), system), "nothing was changed; check the disk"));
      case SQLITE_READONLY:
        return other(io("it can't be written", "check the permissions of the file and of its folder"));
      case SQLITE_PERM:
      case SQLITE_AUTH:
      case SQLITE_CANTOPEN:
        return other(io(fmt::format("cannot open it or its -wal and -shm files: {}", system),
                        "check the path and the permissions; its folder must exist, and be writable"));
      case SQLITE_NOTADB:
        return other(make_error(ErrorCode::kDataCorrupt,
                                "{}: expected a SQLite database, but the file is something else; check the path",
                                label_));
      case SQLITE_CORRUPT:
        return other(
            make_error(ErrorCode::kDataCorrupt,
                       "{}: the database is damaged ({}); restore a copy, or save what there is by `sqlite3 FILE "
                       ".recover`",
                       label_, sqlite3_errstr(rc)));
      default:
        return other(
            internal_error("{}: {}: {} ({})", label_, what, db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(rc), rc));
    }
  }

  std::string path_, label_;
  bool create_;
  Patience patience_;
  sqlite3* db_ = nullptr;
  pid_t pid_ = 0;
  bool in_transaction_ = false;
  int last_ = SQLITE_OK;
  Clock::time_point busy_since_, asked_;
  bool cancelled_ = false;
  std::unordered_map<std::string, sqlite3_stmt*> statements_;
};

}  // namespace

std::unique_ptr<Database> make_sqlite(std::string path, bool create, const Patience& patience) {
  std::string label = fmt::format("SQLite file '{}'", path);
  // So that again() is the same file also where the working folder is another by then.
  std::error_code ignored;
  std::string absolute = std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored).string();
  return std::make_unique<Sqlite>(absolute.empty() ? std::move(path) : std::move(absolute), std::move(label), create,
                                  patience);
}

}  // namespace deepseek::tune
