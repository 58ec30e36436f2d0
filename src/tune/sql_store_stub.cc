#include "tune/sql_store.h"
namespace deepseek::tune {
Result<std::shared_ptr<Store>> open_sql_store(const std::string&, const std::string&, const std::string&, double) { return internal_error("not yet"); }
}
namespace deepseek::tune {
Result<std::vector<StudySummary>> list_studies(const std::string&) { return internal_error("not yet"); }
Status delete_study(const std::string&, const std::string&) { return internal_error("not yet"); }
}
