// A model ready to run: by any number of threads, without code of training. Programs are compiled once per batch size
// and choice of outputs, with the weights as constants, and shared by all threads; the longest unused go first. Each run
// has memory of its own from the backend's pool. Test: tests/infer/session_test.cc
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "infer/model_file.h"
#include "runtime/module_cache.h"

namespace deepseek::infer {

struct SessionOptions {
  std::string device = std::string(runtime::kDefaultDevice);
  size_t max_programs = 32;      // compiled ones that are kept, at least 1
  std::vector<int64_t> warm_up;  // batch sizes that are compiled and run once while opening
  bool measure_kernels = false;  // the fastest kernels as measured here, not as listed (runtime::CompileOptions)
};

class Session {
 public:
  // Errors: those of load_model() and runtime::open_backend(), and of compiling and running what `warm_up` asks for.
  static Result<std::shared_ptr<Session>> open(const std::string& path, const SessionOptions& options = {});
  // The weights are the session's from now on: nobody may write to them. Errors: also check_model()'s.
  static Result<std::shared_ptr<Session>> open(ModelFile model, const SessionOptions& options = {});
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The outputs by name: those asked for, by default all; what others alone need is not computed. Inputs are row-major
  // host tensors, exactly those of the signature; they are only read. For any number of threads at once. Errors:
  // kInvalidArgument for inputs that are missing, unknown or of another type than the signature's, batch sizes that
  // differ, an empty batch, one that takes more memory than the device has.
  Result<std::map<std::string, graph::Tensor>> run(const std::map<std::string, graph::Tensor>& inputs,
                                                   std::span<const std::string> outputs = {});

  const Signature& signature() const { return model_.signature; }
  const std::map<std::string, OutputInfo>& outputs() const { return model_.outputs; }
  // Of an output; empty where none are known, or there is no such output.
  const std::vector<std::string>& class_names(const std::string& output) const;
  const std::string& preprocessing() const { return model_.preprocessing; }
  const std::map<std::string, std::string>& provenance() const { return model_.provenance; }
  const runtime::Backend& backend() const { return *backend_; }
  size_t programs() const;   // compiled ones that are kept now
  int64_t compiled() const;  // how often one was compiled

 private:
  using Entry = runtime::ModuleCache::Entry;
  // What a program is made for.
  struct Wanted {
    int64_t size = 0;           // of the batch; 0 where the model knows one size alone
    std::vector<bool> outputs;  // by the signature's order
    std::string key() const;
  };
  struct Pending {
    std::optional<Result<Entry>> result;
  };
  Session(ModelFile model, runtime::BackendPtr backend, const SessionOptions& options);
  Status warm_up(int64_t size);
  Result<int64_t> batch_size(const std::map<std::string, graph::Tensor>& inputs) const;
  Result<std::vector<bool>> choose(std::span<const std::string> outputs) const;
  Result<Entry> program(const Wanted& wanted);
  Result<runtime::ModuleCache::Got> compile(const Wanted& wanted) const;

  ModelFile model_;  // not changed once the session is there
  const runtime::BackendPtr backend_;
  const bool measure_kernels_;
  const std::vector<graph::Dims> multiples_;    // size_multiples()
  std::map<std::string, std::string> port_of_;  // by what a graph calls the input
  mutable std::mutex mutex_;
  std::condition_variable compiled_;
  runtime::CacheView<> programs_;                            // by Wanted::key()
  std::map<std::string, std::shared_ptr<Pending>> pending_;  // who needs a program that is being compiled waits for it
  int64_t count_ = 0;
};

}  // namespace deepseek::infer
