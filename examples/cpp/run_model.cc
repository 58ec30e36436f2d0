// Runs a model file: run_model MODEL INPUT ROWS. INPUT: the first input's float32 values, row after row.
#include <backends/builtin/register.h>
#include <infer/session.h>

#include <cstdio>
#include <fstream>

int main(int argc, char** argv) {
  using namespace deepseek;
  if (argc != 4) return std::fprintf(stderr, "usage: run_model MODEL INPUT ROWS\n"), 2;
  backends::builtin::register_backends();
  const auto session = infer::Session::open(argv[1]);
  if (!session.ok()) return std::fprintf(stderr, "%s\n", session.status().to_string().c_str()), 1;

  const infer::Port& port = (*session)->signature().inputs.at(0);
  graph::Dims dims = port.dims;
  dims[0] = std::stoll(argv[3]);
  graph::Tensor x(DType::kF32, dims);
  std::ifstream(argv[2], std::ios::binary).read(x.as<char>(), static_cast<std::streamsize>(x.num_bytes()));

  const auto outputs = (*session)->run({{port.name, x}});
  if (!outputs.ok()) return std::fprintf(stderr, "%s\n", outputs.status().to_string().c_str()), 1;
  for (const auto& [name, y] : *outputs) {
    std::printf("%s", name.c_str());
    for (int64_t i = 0; i < y.num_elements(); ++i) std::printf(" %.9g", y.at(i));
    std::printf("\n");
  }
}
