#include "base/guard.h"

#include <exception>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>

namespace deepseek {

Status status_of_exception(std::string_view where) noexcept {
  try {
    try {
      throw;
    } catch (const std::bad_alloc&) {
      return make_error(ErrorCode::kIo, "{}: there is not enough memory for it", where);
    } catch (const std::length_error&) {
      return make_error(ErrorCode::kIo, "{}: there is not enough memory for it", where);
    } catch (const std::filesystem::filesystem_error& e) {
      return make_error(ErrorCode::kIo, "{}: {}", where, e.what());
    } catch (const std::system_error& e) {
      return make_error(ErrorCode::kIo, "{}: {}", where, e.what());
    } catch (const std::exception& e) {
      return internal_error("{}: {}", where, e.what());
    } catch (...) {
      return internal_error("{}: an exception of an unknown kind", where);
    }
  } catch (...) {
    // Not even the message's memory is there.
    static const Status no_memory(ErrorCode::kIo, "there is not enough memory");
    return no_memory;
  }
}

}  // namespace deepseek
