// Bytes on a device, with a type. A handle: copies name the same bytes, which live as long as one of them. A backend
// (runtime/backend.h) makes, uploads and downloads them; programs take and give them. Test: tests/conformance
#pragma once

#include <memory>
#include <utility>

#include "graph/tensor_type.h"

namespace deepseek::runtime {

class Backend;

class Buffer {
 public:
  Buffer() = default;
  // `data` is what the backend knows the bytes by, the address itself where the device's memory is the host's; `owner`
  // keeps them.
  Buffer(graph::TensorType type, const Backend* backend, std::shared_ptr<void> owner, void* data)
      : bytes_(std::make_shared<Bytes>(Bytes{std::move(type), backend, std::move(owner), data})) {}

  bool defined() const { return bytes_ != nullptr; }
  // False once a run has taken the bytes for its own: see donate().
  bool available() const { return defined() && bytes_->owner != nullptr; }
  const graph::TensorType& type() const { return bytes_->type; }
  const Backend* backend() const { return bytes_->backend; }
  void* data() const { return bytes_->data; }
  const std::shared_ptr<void>& owner() const { return bytes_->owner; }

  // The same bytes, given away: the run that gets this may write over them or free them, and no handle of them is
  // available() afterwards.
  Buffer donate() const {
    Buffer given = *this;
    given.donated_ = true;
    return given;
  }
  bool donated() const { return donated_; }
  // What a program does with a donated buffer when it is done with it: the bytes leave all handles.
  std::shared_ptr<void> take() const { return std::exchange(bytes_->owner, nullptr); }

 private:
  struct Bytes {
    graph::TensorType type;
    const Backend* backend;
    std::shared_ptr<void> owner;
    void* data;
  };
  std::shared_ptr<Bytes> bytes_;
  bool donated_ = false;
};

// A tensor of state on a device: the place from which programs read its value and where they leave the next one. It is
// bound to a run once and stays where it is between runs; a backend that cannot write in place puts another buffer here.
struct StateBuffer {
  Buffer value;
};

}  // namespace deepseek::runtime
