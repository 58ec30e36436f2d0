// PostgreSQL by libpq. Nothing blocks for good: a connection is made, and answers are waited for, in steps that can be
// cancelled, and a peer that is gone is noticed within about a minute by both sides.
#include <libpq-fe.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <memory>
#include <string_view>

#include "base/strings.h"
#include "tune/stores/database.h"

namespace deepseek::tune {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kConnectSeconds = 15;
constexpr int kStepMilliseconds = 100;
// Types of columns: pg_type.h.
constexpr Oid kBool = 16, kInt8 = 20, kInt2 = 21, kInt4 = 23, kFloat4 = 700, kFloat8 = 701, kNumeric = 1700;
// Of pg_advisory_xact_lock(); any number that other programs don't use: "deepseek" in ASCII.
constexpr const char* kLockSchema = "SELECT pg_advisory_xact_lock(7234298793229673835)";
// The server ends a session that holds locks while its client is gone or stopped, so that others may go on.
constexpr const char* kSettings =
    "SET extra_float_digits = 3; SET client_min_messages = warning; SET tcp_keepalives_idle = 30; "
    "SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; SET idle_in_transaction_session_timeout = '300s'";

using PgResult = std::unique_ptr<PGresult, decltype(&PQclear)>;

std::string one_line(std::string_view text) {
  std::string line;
  for (const std::string& part : split(text, '\n')) {
    const std::string_view trimmed = trim(part);
    if (trimmed.empty() || trimmed.starts_with("LOCATION:")) continue;
    if (!line.empty()) line += "; ";
    line += trimmed;
  }
  return line;
}

// Of a failed connection libpq gives text alone; with all details that is "FATAL:  57P03: the database ...".
std::string sqlstate_in(std::string_view message) {
  for (size_t at = message.find(":  "); at != std::string_view::npos; at = message.find(":  ", at + 1)) {
    const std::string_view code = message.substr(at + 3, 5);
    if (code.size() == 5 && message.substr(at + 8, 2) == ": " &&
        std::all_of(code.begin(), code.end(), [](unsigned char c) { return std::isdigit(c) || std::isupper(c); }))
      return std::string(code);
  }
  return {};
}

bool means_lost(std::string_view state) {
  return state == "57P01" || state == "57P02" || state == "57P03" || state.starts_with("08");
}

ErrorCode code_of(std::string_view state) {
  if (state == "XX001" || state == "XX002") return ErrorCode::kDataCorrupt;
  if (state == "22021" || state == "22P05") return ErrorCode::kInvalidArgument;  // characters that its encoding lacks
  for (const char* kind : {"53", "57", "58", "08", "25006", "25P03", "28", "3D", "42501"})
    if (state.starts_with(kind)) return ErrorCode::kIo;
  return ErrorCode::kInternal;
}

class Postgres : public Database {
 public:
  Postgres(std::string url, std::string label, const Patience& patience)
      : url_(std::move(url)), label_(std::move(label)), patience_(patience) {}
  ~Postgres() override { close(); }

  Status connect() override {
    close();
    Status status = open();
    if (!status.ok()) {
      close();
      return status;
    }
    ++connections_;
    return {};
  }
  bool connected() const override { return db_ && pid_ == ::getpid() && PQstatus(db_) == CONNECTION_OK; }
  std::unique_ptr<Database> again(const Patience& patience) const override {
    return std::make_unique<Postgres>(url_, label_, patience);
  }

  Result<std::vector<Row>> execute(const std::string& sql, const std::vector<Value>& parameters) override {
    std::vector<std::string> texts(parameters.size());
    std::vector<const char*> values(parameters.size(), nullptr);
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (std::holds_alternative<std::monostate>(parameters[i])) continue;
      if (const auto* integer = std::get_if<int64_t>(&parameters[i])) texts[i] = fmt::format("{}", *integer);
      if (const auto* number = std::get_if<double>(&parameters[i])) texts[i] = fmt::format("{}", *number);
      if (const auto* text = std::get_if<std::string>(&parameters[i])) texts[i] = *text;
      values[i] = texts[i].c_str();
    }
    if (PQsendQueryParams(db_, sql.c_str(), static_cast<int>(values.size()), nullptr, values.data(), nullptr, nullptr,
                          0) != 1)
      return error(nullptr, sql);
    DS_ASSIGN(PgResult result, answer(sql));
    const ExecStatusType kind = PQresultStatus(result.get());
    if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK) return error(result.get(), sql);
    command_ = PQcmdStatus(result.get());
    std::vector<Row> rows(static_cast<size_t>(PQntuples(result.get())));
    for (size_t r = 0; r < rows.size(); ++r) rows[r] = row_of(result.get(), static_cast<int>(r));
    return rows;
  }

  Status begin() override {
    in_transaction_ = true;
    // Each statement must see what was committed while it waited for the lock.
    return execute("BEGIN ISOLATION LEVEL READ COMMITTED", {}).status();
  }
  Status commit() override {
    DS_TRY(execute("COMMIT", {}).status());
    in_transaction_ = false;
    // It says so where an earlier statement had failed.
    if (command_ != "COMMIT") {
      failure_ = Failure::kOther;
      return make_error(ErrorCode::kIo, "{}: an earlier error has ended the transaction", label_);
    }
    return {};
  }
  void rollback() override {
    if (!in_transaction_) return;
    in_transaction_ = false;
    if (!connected()) return;
    const Failure before = failure_;
    // A connection that doesn't take even this is made anew.
    if (!execute("ROLLBACK", {}).ok()) close();
    failure_ = before;
  }

  Result<bool> has_table(const std::string& name) override {
    DS_ASSIGN(const std::vector<Row> rows, execute("SELECT to_regclass($1) IS NOT NULL", {name}));
    return rows.size() == 1 && integer_of(rows[0][0]) == 1;
  }
  Status lock_schema() override { return execute(kLockSchema, {}).status(); }
  const char* row_lock() const override { return " FOR UPDATE"; }
  const char* clock() const override { return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"; }
  double up_since() const override { return up_since_; }
  const std::string& label() const override { return label_; }

 private:
  Status open() {
    // The URL comes after what it may change.
    const char* const keys[] = {"keepalives_idle",           "keepalives_interval",
                                "keepalives_count",          "tcp_user_timeout",
                                "fallback_application_name", "dbname",
                                "client_encoding",           nullptr};
    const char* const values[] = {"30", "10", "3", "60000", "deepseek", url_.c_str(), "UTF8", nullptr};
    db_ = PQconnectStartParams(keys, values, 1);
    pid_ = ::getpid();
    if (!db_) return failed(Failure::kOther, ErrorCode::kIo, "out of memory");
    PQsetErrorVerbosity(db_, PQERRORS_VERBOSE);
    PQsetNoticeProcessor(
        db_, [](void*, const char*) {}, nullptr);
    const Clock::time_point from = Clock::now();
    PostgresPollingStatusType step = PQstatus(db_) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    while (step != PGRES_POLLING_OK) {
      if (step == PGRES_POLLING_FAILED) return connect_error();
      if (Clock::now() - from > std::chrono::duration<double>(kConnectSeconds))
        return failed(Failure::kLost, ErrorCode::kIo, fmt::format("no answer within {} s", kConnectSeconds));
      DS_ASSIGN(const bool ready, ready_for(step == PGRES_POLLING_READING ? POLLIN : POLLOUT));
      if (ready) step = PQconnectPoll(db_);
    }
    PQsetErrorVerbosity(db_, PQERRORS_DEFAULT);
    // Several commands in one message, so without parameters.
    if (PQsendQuery(db_, kSettings) != 1) return error(nullptr, "settings");
    DS_ASSIGN(const PgResult set, answer("settings"));
    if (PQresultStatus(set.get()) != PGRES_COMMAND_OK) return error(set.get(), "settings");
    DS_ASSIGN(const std::vector<Row> rows,
              execute("SELECT CAST(extract(epoch FROM pg_postmaster_start_time()) AS DOUBLE PRECISION)", {}));
    up_since_ = rows.empty() ? 0 : number_of(rows[0][0]);
    return {};
  }

  void close() {
    in_transaction_ = false;
    if (!db_) return;
    // In a child of a fork PQfinish would end the session that is still its parent's.
    if (pid_ == ::getpid())
      PQfinish(db_);
    else
      ::close(PQsocket(db_));
    db_ = nullptr;
  }

  // False: not within a step.
  Result<bool> ready_for(short events) {
    pollfd wait{PQsocket(db_), events, 0};
    const int n = ::poll(&wait, 1, kStepMilliseconds);
    if (n <= 0 && is_cancelled(patience_)) {
      failure_ = Failure::kOther;
      return cancelled_error(label_);
    }
    return n > 0;
  }

  // The last answer, or the first that is an error.
  Result<PgResult> answer(const std::string& what) {
    PgResult last(nullptr, PQclear);
    for (;;) {
      while (PQisBusy(db_)) {
        (void)PQflush(db_);  // what it couldn't send PQconsumeInput reports
        Result<bool> ready = ready_for(POLLIN);
        if (!ready.ok()) {  // cancelled; the server ends the transaction with the connection
          close();
          return std::move(ready).status();
        }
        if (*ready && PQconsumeInput(db_) != 1) return error(nullptr, what);
      }
      PgResult next(PQgetResult(db_), PQclear);
      if (!next) break;
      const ExecStatusType kind = last ? PQresultStatus(last.get()) : PGRES_COMMAND_OK;
      if (kind == PGRES_COMMAND_OK || kind == PGRES_TUPLES_OK) last = std::move(next);
    }
    if (!last) return error(nullptr, what);
    return last;
  }

  static Row row_of(const PGresult* result, int r) {
    Row row(static_cast<size_t>(PQnfields(result)));
    for (size_t i = 0; i < row.size(); ++i) {
      const int c = static_cast<int>(i);
      if (PQgetisnull(result, r, c)) continue;
      const std::string_view text(PQgetvalue(result, r, c), static_cast<size_t>(PQgetlength(result, r, c)));
      switch (PQftype(result, c)) {
        case kBool: row[i] = static_cast<int64_t>(text == "t"); break;
        case kInt2:
        case kInt4:
        case kInt8: {
          int64_t integer = 0;
          std::from_chars(text.data(), text.data() + text.size(), integer);
          row[i] = integer;
          break;
        }
        case kFloat4:
        case kFloat8:
        case kNumeric:
          if (const auto number = parse_number(text)) row[i] = *number;
          break;
        default: row[i] = std::string(text);
      }
    }
    return row;
  }

  Status failed(Failure failure, ErrorCode code, const std::string& message) {
    failure_ = failure;
    return make_error(code, "{}: {}", label_, message);
  }

  Status error(const PGresult* result, const std::string& sql) {
    const char* field = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : nullptr;
    const std::string state = field ? field : "";
    const std::string message = one_line(result ? PQresultErrorMessage(result) : db_ ? PQerrorMessage(db_) : "");
    if (!db_ || PQstatus(db_) != CONNECTION_OK || means_lost(state)) {
      close();
      return failed(Failure::kLost, ErrorCode::kIo, "the connection was lost: " + message);
    }
    // Serialisation, deadlock, a lock_timeout that the server's administrator has set.
    if (state == "40001" || state == "40P01" || state == "55P03")
      return failed(Failure::kConflict, ErrorCode::kIo, message);
    const ErrorCode code = code_of(state);
    return failed(Failure::kOther, code,
                  code == ErrorCode::kInternal ? fmt::format("{} ({}) in {}", message, state, sql)
                                               : fmt::format("{} ({})", message, state));
  }

  // What another try may help against: no server, one that starts or stops, one with too many connections.
  Status connect_error() {
    const std::string text = PQerrorMessage(db_), state = sqlstate_in(text);
    std::string message = "cannot connect: " + one_line(text);
    bool lost = state.empty() || means_lost(state) || state == "53300";
    if (state.empty() && connections_ == 0) {
      // What libpq itself refuses, and names that aren't known, stay wrong; once it was right, so something is away.
      lost = !PQconnectionNeedsPassword(db_);
      for (const char* kept :
           {"could not translate host name", "invalid ", "SSL", "certificate", "authentication", "GSS"})
        lost = lost && text.find(kept) == std::string::npos;
    }
    if (!lost) message += "; check the URL, the user's rights and the password (PGPASSWORD or ~/.pgpass)";
    return failed(lost ? Failure::kLost : Failure::kOther, ErrorCode::kIo, message);
  }

  std::string url_, label_;
  Patience patience_;
  PGconn* db_ = nullptr;
  pid_t pid_ = 0;
  bool in_transaction_ = false;
  double up_since_ = 0;
  std::string command_;
};

}  // namespace

Result<std::unique_ptr<Database>> make_postgres(const std::string& url, const Patience& patience) {
  char* message = nullptr;
  PQconninfoOption* options = PQconninfoParse(url.c_str(), &message);
  if (!options) {
    const std::string why = message ? one_line(message) : "out of memory";
    PQfreemem(message);
    // The message may repeat the URL with its password.
    return invalid("store: expected postgresql://user:password@host:port/name{}",
                   url.find('@') == std::string::npos ? ", got '" + url + "': " + why : "");
  }
  std::string name, host, port;
  for (const PQconninfoOption* o = options; o->keyword; ++o) {
    const std::string_view key = o->keyword;
    if (o->val && key == "dbname") name = o->val;
    if (o->val && key == "host") host = o->val;
    if (o->val && key == "port") port = o->val;
  }
  PQconninfoFree(options);
  std::string label = fmt::format("PostgreSQL database '{}'", name);
  if (!host.empty()) label += " at " + host + (port.empty() ? "" : ":" + port);
  return std::unique_ptr<Database>(std::make_unique<Postgres>(url, std::move(label), patience));
}

}  // namespace deepseek::tune
