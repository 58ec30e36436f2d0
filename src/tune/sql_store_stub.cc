#include "tune/sql_store.h"
namespace deepseek::tune {
Result<std::shared_ptr<Store>> open_sql_store(const std::string&, const std::string&, const std::string&, double) { return internal_error("not yet"); }
}
