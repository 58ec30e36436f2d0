#include "base/status.h"

namespace deepseek {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid argument";
    case ErrorCode::kNotFound: return "not found";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kDataCorrupt: return "corrupt data";
    case ErrorCode::kIo: return "input/output error";
    case ErrorCode::kInterrupted: return "interrupted";
    case ErrorCode::kInternal: return "internal error";
  }
  return "unknown";
}

const std::string& Status::message() const {
  static const std::string empty;
  return rep_ ? rep_->message : empty;
}

Status Status::note(std::string text) && {
  if (rep_) {
    if (rep_.use_count() > 1) rep_ = std::make_shared<Rep>(*rep_);  // copies of a Status stay as they were
    rep_->notes.push_back(std::move(text));
  }
  return std::move(*this);
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  std::string text = rep_->message;
  if (rep_->code == ErrorCode::kInternal) text = "internal error (please report it): " + text;
  for (const std::string& note : rep_->notes) text += "\n  note: " + note;
  return text;
}

}  // namespace deepseek
