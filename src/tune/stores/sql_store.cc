#include "tune/stores/sql_store.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "base/json.h"
#include "base/strings.h"
#include "tune/stores/database.h"
#include "tune/stores/trial_json.h"

namespace deepseek::tune {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kSchema = 1;
constexpr size_t kLongestName = 500, kNamesListed = 20;

// `point` is the truth, by position; `parameters` are the same for people. `version`: each transaction that changes
// trials takes the study's next one and stamps their rows, so that others read only what is new to them.
constexpr const char* kTables[] = {
    "CREATE TABLE deepseek_schema (version BIGINT NOT NULL, last_study BIGINT NOT NULL)",
    "CREATE TABLE studies (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE, config TEXT NOT NULL, "
    "created DOUBLE PRECISION NOT NULL, version BIGINT NOT NULL)",
    "CREATE TABLE trials (study BIGINT NOT NULL, number BIGINT NOT NULL, state TEXT NOT NULL, parameters TEXT NOT "
    "NULL, "
    "point TEXT NOT NULL, vals TEXT NOT NULL, constraints TEXT NOT NULL, reports TEXT NOT NULL, error TEXT NOT NULL, "
    "worker TEXT NOT NULL, note TEXT NOT NULL, attempts BIGINT NOT NULL, started DOUBLE PRECISION NOT NULL, "
    "ended DOUBLE PRECISION NOT NULL, beat DOUBLE PRECISION NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (study, "
    "number))",
    "CREATE INDEX trials_version ON trials (study, version)",
    "CREATE INDEX trials_running ON trials (study) WHERE state = 'running'",
    "INSERT INTO deepseek_schema VALUES (1, 0)",
};
constexpr const char* kNewer =
    "SELECT number, state, point, vals, constraints, reports, error, worker, note, attempts, started, ended FROM "
    "trials "
    "WHERE study = $1 AND version > $2 ORDER BY number";

Result<Space> space_of(const std::string& config, const std::string& name) {
  const auto json = parse_json<nlohmann::ordered_json>(config, false);
  if (!json.is_object() || !json.contains("space"))
    return make_error(ErrorCode::kDataCorrupt,
                      "settings of study '{}': expected a JSON object with a \"space\", got '{}'", name,
                      config.substr(0, 100));
  Result<Space> space = Space::parse(dump_json(json["space"]));
  if (!space.ok()) return Status(std::move(space).status()).note(fmt::format("in the settings of study '{}'", name));
  return space;
}

// PostgreSQL takes neither bytes that aren't UTF-8 nor 0; an error's text with such must not lose the trial.
std::string clean(std::string text) {
  constexpr const char* kReplacement = "\xEF\xBF\xBD";
  std::string cleaned;
  std::string_view rest = text;
  for (;;) {
    const size_t bad = std::min(first_invalid_utf8(rest), rest.find('\0'));
    if (bad >= rest.size()) break;
    cleaned.append(rest.substr(0, bad)).append(kReplacement);
    rest.remove_prefix(bad + 1);
  }
  return cleaned.empty() ? text : cleaned.append(rest);
}

// Whether there are tables of ours; an error where they are another version's.
Result<bool> has_schema(Database& db) {
  DS_ASSIGN(const bool there, db.has_table("deepseek_schema"));
  if (!there) return false;
  DS_ASSIGN(const std::vector<Row> rows, db.execute("SELECT version FROM deepseek_schema"));
  const int64_t version = rows.size() == 1 ? integer_of(rows[0][0]) : 0;
  if (version != kSchema)
    return make_error(
        ErrorCode::kUnsupported,
        "{}: its tables are of version {}, this program knows version {}; use the program that made it, or "
        "another database",
        db.label(), version, kSchema);
  return true;
}

Status make_tables(Database& db) {
  for (const char* table : {"studies", "trials"}) {
    DS_ASSIGN(const bool foreign, db.has_table(table));
    if (foreign)
      return invalid("{}: it has a table '{}' of another program; give a database of its own", db.label(), table);
  }
  for (const char* sql : kTables) DS_TRY(db.execute(sql).status());
  return {};
}

Status unknown_study(Database& db, const std::string& name, bool schema) {
  std::vector<std::string> names;
  if (schema) {
    DS_ASSIGN(const std::vector<Row> rows, db.execute("SELECT name FROM studies ORDER BY name"));
    for (const Row& row : rows) names.push_back(text_of(row[0]));
  }
  if (names.empty()) return make_error(ErrorCode::kNotFound, "{}: no study '{}'; it has none at all", db.label(), name);
  const std::string hint = did_you_mean(name, names);
  const size_t more = names.size() > kNamesListed ? names.size() - kNamesListed : 0;
  names.resize(names.size() - more);
  return make_error(ErrorCode::kNotFound, "{}: no study '{}'{}; it has {}{}", db.label(), name, hint, join(names, ", "),
                    more > 0 ? fmt::format(" and {} more", more) : "");
}

struct Found {
  int64_t id = 0;
  std::string config;
};

// Finds the study, or makes it where `config` isn't empty.
Status find_or_make(Database& db, const std::string& name, const std::string& config, Found& found) {
  SqlTransaction transaction(db);
  DS_TRY(transaction.begin());
  DS_TRY(db.lock_schema());
  DS_ASSIGN(const bool schema, has_schema(db));
  if (!schema && config.empty()) return unknown_study(db, name, false);
  if (!schema) DS_TRY(make_tables(db));
  DS_ASSIGN(const std::vector<Row> rows, db.execute("SELECT id, config FROM studies WHERE name = $1", {name}));
  if (!rows.empty()) {
    found = {integer_of(rows[0][0]), text_of(rows[0][1])};
  } else if (config.empty()) {
    return unknown_study(db, name, true);
  } else {
    // A number that no study had before, so that who still has a deleted one open doesn't write into this.
    DS_TRY(db.execute("UPDATE deepseek_schema SET last_study = last_study + 1").status());
    DS_ASSIGN(const std::vector<Row> id, db.execute("SELECT last_study FROM deepseek_schema"));
    found = {integer_of(id.at(0).at(0)), config};
    DS_TRY(
        db.execute(fmt::format("INSERT INTO studies VALUES ($1, $2, $3, {}, 0)", db.clock()), {found.id, name, config})
            .status());
  }
  return transaction.commit();
}

class SqlStore : public Store {
 public:
  // `database` is connected, or will be at its first use.
  SqlStore(std::unique_ptr<Database> database, std::string name, Found found, Space space, Patience patience)
      : db_(std::move(database)),
        name_(std::move(name)),
        id_(found.id),
        config_(std::move(found.config)),
        space_(std::move(space)),
        patience_(std::move(patience)),
        lock_sql_(
            fmt::format("WITH locked AS (SELECT version FROM studies WHERE id = $1{}) SELECT version, {} FROM locked",
                        db_->row_lock(), db_->clock())),
        beat_sql_(fmt::format("UPDATE trials SET beat = {} WHERE study = $1 AND number = $2", db_->clock())),
        put_sql_(fmt::format(
            "INSERT INTO trials (study, number, state, parameters, point, vals, constraints, reports, error, worker, "
            "note, "
            "attempts, started, ended, version, beat) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, {}) "
            "ON CONFLICT (study, number) DO UPDATE SET state = excluded.state, parameters = excluded.parameters, "
            "point = excluded.point, vals = excluded.vals, constraints = excluded.constraints, reports = "
            "excluded.reports, "
            "error = excluded.error, worker = excluded.worker, note = excluded.note, attempts = excluded.attempts, "
            "started = excluded.started, ended = excluded.ended, version = excluded.version, beat = excluded.beat",
            db_->clock())) {}

  Status transact(const std::function<Status(Transaction&)>& body) override {
    return persist(*db_, patience_, [&]() -> Status {
      SqlTransaction transaction(*db_);
      DS_TRY(transaction.begin());
      Changes changes(*this);
      DS_TRY(changes.start());
      DS_TRY(body(changes));
      DS_TRY(changes.write());
      DS_TRY(transaction.commit());
      changes.keep();
      return {};
    });
  }

  Status beat(const std::vector<int64_t>& numbers) override {
    if (numbers.empty()) return {};
    // In order, as transactions write them, so that two don't wait for each other.
    std::vector<int64_t> sorted = numbers;
    std::sort(sorted.begin(), sorted.end());
    // The next beat comes soon enough, so that none waits for a server.
    return persist(*db_, Patience{0, {}}, [&]() -> Status {
      SqlTransaction transaction(*db_);
      DS_TRY(transaction.begin());
      for (const int64_t n : sorted) DS_TRY(db_->execute(beat_sql_, {id_, n}).status());
      return transaction.commit();
    });
  }

  const std::string& config() const override { return config_; }

  // Called by any thread: reads only what doesn't change. `cancelled` is of the thread that gave it: it may need a lock
  // that is held while this other thread is waited for.
  Result<std::shared_ptr<Store>> again() override {
    const Patience waits{patience_.seconds, {}};
    return std::shared_ptr<Store>(
        std::make_shared<SqlStore>(db_->again(waits), name_, Found{id_, config_}, space_, waits));
  }

 private:
  class Changes : public Transaction {
   public:
    explicit Changes(SqlStore& store) : store_(store) {}

    // Locks the study and reads what is new.
    Status start() {
      Database& db = *store_.db_;
      DS_ASSIGN(const std::vector<Row> rows, db.execute(store_.lock_sql_, {store_.id_}));
      at_ = Clock::now();
      if (rows.empty())
        return make_error(ErrorCode::kNotFound, "{}: study '{}' was deleted while it was open here", db.label(),
                          store_.name_);
      version_ = integer_of(rows[0][0]);
      now_ = number_of(rows[0][1]);
      // After a crash a server may have lost what it had kept, so that a new connection reads everything.
      if (store_.loaded_by_ != db.connections()) {
        store_.trials_.clear();
        store_.seen_ = 0;
        store_.loaded_by_ = db.connections();
      }
      if (store_.seen_ == version_) return {};
      const Status status = store_.read_newer();
      // A half of them must not be taken for all.
      if (status.ok())
        store_.seen_ = version_;
      else
        store_.loaded_by_ = 0;
      return status;
    }

    const std::vector<Trial>& trials() const override { return store_.trials_; }

    Status put(Trial trial) override {
      const auto size = static_cast<int64_t>(store_.trials_.size());
      if (trial.number < 0 || trial.number > size)
        return internal_error("put: expected trial 0 to {}, got {}", size, trial.number);
      for (const Trial& t : puts_)
        if (t.number == trial.number) return internal_error("put: trial {} twice in one transaction", trial.number);
      DS_TRY(store_.check(trial));
      for (std::string* text : {&trial.error, &trial.worker, &trial.note}) *text = clean(std::move(*text));
      puts_.push_back(std::move(trial));
      return {};
    }

    double now() const override { return now_ + std::chrono::duration<double>(Clock::now() - at_).count(); }

    Result<double> last_beat(int64_t number) override {
      Database& db = *store_.db_;
      // Who asks for one of the running trials will ask for the others.
      if (!beats_) {
        DS_ASSIGN(const std::vector<Row> rows,
                  db.execute("SELECT number, beat FROM trials WHERE study = $1 AND state = 'running'", {store_.id_}));
        beats_.emplace();
        for (const Row& row : rows) (*beats_)[integer_of(row[0])] = number_of(row[1]);
      }
      auto it = beats_->find(number);
      if (it == beats_->end()) {
        DS_ASSIGN(const std::vector<Row> rows,
                  db.execute("SELECT beat FROM trials WHERE study = $1 AND number = $2", {store_.id_, number}));
        if (rows.empty()) return internal_error("last_beat: there is no trial {}", number);
        it = beats_->emplace(number, number_of(rows[0][0])).first;
      }
      // While the server was down no one could be heard, which must not make all workers dead.
      return std::max(it->second, db.up_since());
    }

    Status write() {
      if (puts_.empty()) return {};
      Database& db = *store_.db_;
      std::sort(puts_.begin(), puts_.end(), [](const Trial& a, const Trial& b) { return a.number < b.number; });
      DS_TRY(db.execute("UPDATE studies SET version = $2 WHERE id = $1", {store_.id_, version_ + 1}).status());
      for (const Trial& t : puts_)
        DS_TRY(db.execute(store_.put_sql_, {store_.id_, t.number, to_string(t.state), store_.text_of_point(t.point),
                                            numbers_text(t.point), numbers_text(t.values), numbers_text(t.constraints),
                                            reports_text(t.reports), t.error, t.worker, t.note, t.attempts, t.started,
                                            t.ended, version_ + 1})
                   .status());
      return {};
    }

    // After the commit.
    void keep() {
      if (puts_.empty()) return;
      store_.seen_ = version_ + 1;
      for (Trial& t : puts_) store_.place(std::move(t));
    }

   private:
    SqlStore& store_;
    std::vector<Trial> puts_;
    int64_t version_ = 0;
    double now_ = 0;
    Clock::time_point at_;
    std::optional<std::unordered_map<int64_t, double>> beats_;
  };

  // Of a point of the space or a part of one, so that its text is defined.
  Status check(const Trial& trial) const {
    if (trial.point.empty()) return {};
    if (trial.point.size() != space_.size())
      return internal_error("trial {}: expected a point of {} values, got {}", trial.number, space_.size(),
                            trial.point.size());
    for (size_t i = 0; i < space_.size(); ++i) {
      const double v = trial.point[i];
      if (!std::isnan(v) && !(v >= space_[i].low && v <= space_[i].high))
        return invalid("trial {}: parameter '{}': expected a value from {} to {}, got {}", trial.number, space_[i].name,
                       space_[i].low, space_[i].high, v);
    }
    return {};
  }

  std::string text_of_point(const Point& point) const { return point.empty() ? "{}" : space_.text(point); }

  void place(Trial trial) {
    const auto number = static_cast<size_t>(trial.number);
    if (number == trials_.size()) trials_.emplace_back();
    trials_[number] = std::move(trial);
  }

  Result<Trial> trial_of(const Row& row) const {
    Trial t;
    t.number = integer_of(row[0]);
    DS_ASSIGN(t.state, parse_trial_state(text_of(row[1])));
    DS_ASSIGN(t.point, parse_numbers(text_of(row[2])));
    DS_ASSIGN(t.values, parse_numbers(text_of(row[3])));
    DS_ASSIGN(t.constraints, parse_numbers(text_of(row[4])));
    DS_ASSIGN(t.reports, parse_reports(text_of(row[5])));
    t.error = text_of(row[6]), t.worker = text_of(row[7]), t.note = text_of(row[8]);
    t.attempts = integer_of(row[9]);
    t.started = number_of(row[10]), t.ended = number_of(row[11]);
    const Status status = check(t);
    if (!status.ok()) return Status(ErrorCode::kDataCorrupt, status.message());
    return t;
  }

  Status read_newer() {
    DS_ASSIGN(const std::vector<Row> rows, db_->execute(kNewer, {id_, seen_}));
    for (const Row& row : rows) {
      const int64_t number = integer_of(row[0]), next = static_cast<int64_t>(trials_.size());
      const auto where = [&] { return fmt::format("{}: study '{}', trial {}", db_->label(), name_, number); };
      if (number < 0 || number > next)
        return make_error(ErrorCode::kDataCorrupt, "{}: expected trial {} before it; were rows deleted by hand?",
                          where(), next);
      Result<Trial> trial = trial_of(row);
      if (!trial.ok()) return Status(trial.status().code(), where() + ": " + trial.status().message());
      place(std::move(*trial));
    }
    return {};
  }

  std::unique_ptr<Database> db_;
  std::string name_;
  int64_t id_;
  std::string config_;
  Space space_;
  Patience patience_;
  std::string lock_sql_, beat_sql_, put_sql_;
  std::vector<Trial> trials_;
  int64_t seen_ = 0;       // the study's version that trials_ are of
  int64_t loaded_by_ = 0;  // the connection that read trials_; 0: none
};

}  // namespace

Result<std::shared_ptr<Store>> open_sql_store(const std::string& url, const std::string& name,
                                              const std::string& config, double patience,
                                              std::function<bool()> cancelled) {
  if (name.empty() || name.size() > kLongestName || clean(name) != name)
    return invalid("study's name: expected 1 to {} bytes of UTF-8 without 0, got '{}'", kLongestName,
                   clean(name.substr(0, 100)));
  if (!config.empty()) {
    if (clean(config) != config) return invalid("settings of study '{}': expected UTF-8 without 0", name);
    Result<Space> space = space_of(config, name);
    if (!space.ok()) return Status(ErrorCode::kInvalidArgument, space.status().message());
  }
  const Patience waits{patience, std::move(cancelled)};
  DS_ASSIGN(std::unique_ptr<Database> db, make_database(url, !config.empty(), waits));
  Found found;
  DS_TRY(persist(*db, waits, [&] { return find_or_make(*db, name, config, found); }));
  DS_ASSIGN(Space space, space_of(found.config, name));
  return std::shared_ptr<Store>(
      std::make_shared<SqlStore>(std::move(db), name, std::move(found), std::move(space), waits));
}

Result<std::vector<StudySummary>> list_studies(const std::string& url) {
  const Patience waits;
  DS_ASSIGN(std::unique_ptr<Database> db, make_database(url, false, waits));
  std::vector<StudySummary> studies;
  DS_TRY(persist(*db, waits, [&]() -> Status {
    studies.clear();
    DS_ASSIGN(const bool schema, has_schema(*db));
    if (!schema) return {};
    DS_ASSIGN(const std::vector<Row> rows,
              db->execute("SELECT s.name, s.config, s.created, count(t.number), "
                          "count(CASE WHEN t.state IN ('complete', 'pruned', 'failed') THEN 1 END) "
                          "FROM studies s LEFT JOIN trials t ON t.study = s.id GROUP BY s.id ORDER BY s.id"));
    for (const Row& row : rows)
      studies.push_back({text_of(row[0]), text_of(row[1]), number_of(row[2]), integer_of(row[3]), integer_of(row[4])});
    return {};
  }));
  return studies;
}

Status delete_study(const std::string& url, const std::string& name) {
  const Patience waits;
  DS_ASSIGN(std::unique_ptr<Database> db, make_database(url, false, waits));
  return persist(*db, waits, [&]() -> Status {
    SqlTransaction transaction(*db);
    DS_TRY(transaction.begin());
    DS_ASSIGN(const bool schema, has_schema(*db));
    if (!schema) return unknown_study(*db, name, false);
    DS_ASSIGN(const std::vector<Row> rows,
              db->execute(fmt::format("SELECT id FROM studies WHERE name = $1{}", db->row_lock()), {name}));
    if (rows.empty()) return unknown_study(*db, name, true);
    DS_TRY(db->execute("DELETE FROM trials WHERE study = $1", {rows[0][0]}).status());
    DS_TRY(db->execute("DELETE FROM studies WHERE id = $1", {rows[0][0]}).status());
    return transaction.commit();
  });
}

}  // namespace deepseek::tune
