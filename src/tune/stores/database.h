// One connection to a database, for SQL that SQLite and PostgreSQL both understand; parameters are $1, $2, ...
// Invariant: a transaction is kept whole or not at all, and after an error and rollback() the connection is usable, or
// connect() makes it anew. One thread at a time. Test: tests/tune/store_test.cc
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"

namespace deepseek::tune {

using Value = std::variant<std::monostate, int64_t, double, std::string>;
using Row = std::vector<Value>;

// Of a column that is of another type or NULL: 0, NaN, "".
int64_t integer_of(const Value& value);
double number_of(const Value& value);
std::string text_of(const Value& value);

// How long a database that is away or busy is waited for; `cancelled` is asked ten times a second meanwhile.
struct Patience {
  double seconds = 600;
  std::function<bool()> cancelled;
};
bool is_cancelled(const Patience& patience);
Status cancelled_error(const std::string& label);

// What may be done about an error.
enum class Failure {
  kNone,
  kLost,      // there is no connection; another may succeed
  kConflict,  // another transaction got in the way: try again at once
  kOther,
};

class Database {
 public:
  virtual ~Database() = default;
  // Makes a connection, in place of one there may be.
  virtual Status connect() = 0;
  virtual bool connected() const = 0;
  // To the same database, not yet connected. May be called by any thread.
  virtual std::unique_ptr<Database> again(const Patience& patience) const = 0;
  virtual Result<std::vector<Row>> execute(const std::string& sql, const std::vector<Value>& parameters = {}) = 0;
  // Alone with what it goes on to lock: SQLite the file, PostgreSQL the rows of a SELECT that ends in row_lock().
  virtual Status begin() = 0;
  virtual Status commit() = 0;
  virtual void rollback() = 0;  // no effect without a transaction
  virtual Result<bool> has_table(const std::string& name) = 0;
  // Until the transaction's end no other process makes the tables.
  virtual Status lock_schema() = 0;

  // SQL: what a SELECT ends in to lock its rows; the seconds since 1970 by the one clock of all who are connected.
  virtual const char* row_lock() const = 0;
  virtual const char* clock() const = 0;
  // Before this no one could be heard: when the server started, by clock().
  virtual double up_since() const { return 0; }
  // For messages: "SQLite file 'a.db'".
  virtual const std::string& label() const = 0;
  // How many connections were made so far.
  int64_t connections() const { return connections_; }
  // Of the calls since forget_failure().
  Failure failure() const { return failure_; }
  void forget_failure() { failure_ = Failure::kNone; }

 protected:
  int64_t connections_ = 0;
  Failure failure_ = Failure::kNone;
};

// `create`: a SQLite file that isn't there is made. Nothing is opened yet, only the URL is checked.
Result<std::unique_ptr<Database>> make_database(const std::string& url, bool create, const Patience& patience);
std::unique_ptr<Database> make_sqlite(std::string path, bool create, const Patience& patience);
Result<std::unique_ptr<Database>> make_postgres(const std::string& url, const Patience& patience);

// Runs `attempt` with a connection; where it is lost, or cannot be made, again and again until it is there, which
// stderr is told, and where other transactions get in the way.
Status persist(Database& database, const Patience& patience, const std::function<Status()>& attempt);

// Rolls back unless committed.
class SqlTransaction {
 public:
  explicit SqlTransaction(Database& database) : database_(database) {}
  ~SqlTransaction() {
    if (open_) database_.rollback();
  }
  SqlTransaction(const SqlTransaction&) = delete;
  SqlTransaction& operator=(const SqlTransaction&) = delete;
  Status begin() {
    open_ = true;
    return database_.begin();
  }
  Status commit() {
    DS_TRY(database_.commit());
    open_ = false;
    return {};
  }

 private:
  Database& database_;
  bool open_ = false;
};

}  // namespace deepseek::tune
