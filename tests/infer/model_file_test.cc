// Model files: the same bits back, and every kind of file that is none as an error that says so.
#include "infer/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>

#include "graph/text.h"
#include "io/atomic_file.h"
#include "io/safetensors.h"
#include "ops/scan.h"
#include "tests/infer/models.h"
#include "tests/io/temp_folder.h"

namespace deepseek::infer {
namespace {

using graph::Builder;
using graph::Expr;
using graph::Graph;
using graph::Tensor;
using ::testing::AllOf;
using ::testing::HasSubstr;

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.type() == b.type() && std::memcmp(a.data(), b.data(), a.num_bytes()) == 0;
}

std::vector<std::byte> bytes_of(const ModelFile& model) {
  const TempFolder folder;
  const Status saved = save_model(folder / "m", model);
  EXPECT_TRUE(saved.ok()) << saved.to_string();
  const auto bytes = io::read_file(folder / "m");
  return bytes.ok() ? *bytes : std::vector<std::byte>();
}

TEST(ModelFile, ComesBackToTheBit) {
  TempFolder folder;
  ModelFile model = mlp(1500);  // a constant that lies outside of the graph's text
  for (const Graph& graph : model.graphs) {
    mlp_table(graph).as<float>()[7] = std::bit_cast<float>(0x7fc01234u);  // a NaN that is not every NaN
    mlp_table(graph).as<float>()[8] = -0.0f;
  }
  const std::string path = folder / "m.safetensors";
  const Status saved = save_model(path, model);
  ASSERT_TRUE(saved.ok()) << saved.to_string();
  const Result<ModelFile> back = load_model(path);
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  ASSERT_EQ(back->graphs.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(print(back->graphs[i]), print(model.graphs[i]));
    EXPECT_TRUE(same_bytes(mlp_table(back->graphs[i]), mlp_table(model.graphs[i])));
  }
  ASSERT_EQ(back->weights.size(), 2u);
  for (const auto& [name, value] : model.weights) EXPECT_TRUE(same_bytes(back->weights.at(name), value)) << name;
  EXPECT_EQ(back->signature, model.signature);
  EXPECT_EQ(back->outputs, model.outputs);
  EXPECT_EQ(back->preprocessing, model.preprocessing);
  EXPECT_EQ(back->provenance, model.provenance);
  EXPECT_EQ(back->format, kFormatVersion);
  EXPECT_EQ(bytes_of(*back), *io::read_file(path));
  const auto parsed = parse_model(*io::read_file(path), "memory");
  ASSERT_TRUE(parsed.ok()) << parsed.status().to_string();
  EXPECT_EQ(print(parsed->graphs[1]), print(model.graphs[1]));
}

TEST(ModelFile, IsSafetensorsWithLargeConstantsOnce) {
  TempFolder folder;
  ASSERT_TRUE(save_model(folder / "m", mlp(1500)).ok());
  const auto file = io::load_safetensors(folder / "m");
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  std::vector<std::string> names;
  for (const auto& named : file->tensors) names.push_back(named.first);
  EXPECT_EQ(names, (std::vector<std::string>{"deepseek.constant.0", "v", "w"}));
  EXPECT_TRUE(same_bytes(file->tensors.at("w"), weights({4, 1500}, 0.5)));
  for (const auto& [key, text] : file->metadata) {
    EXPECT_TRUE(key.starts_with("deepseek.")) << key;
    EXPECT_LT(text.size(), 1000u) << key;
  }
  EXPECT_THAT(file->metadata.at("deepseek.graph.1"), HasSubstr("{value=f32[1500]<\"deepseek.constant.0\">}"));
  EXPECT_EQ(file->metadata.at("deepseek.format"), "1");
}

TEST(ModelFile, ConstantsInBodiesLieOutsideToo) {
  Builder body(ops::registry());
  const graph::TensorType row{DType::kF64, {600}};
  const Expr h = body.input("h", row), x = body.input("x", row);
  Tensor third(row);
  for (int64_t i = 0; i < 600; ++i) third.as<double>()[i] = static_cast<double>(i) / 3;
  body.output("h", h + x * body.constant(third));
  Builder b(ops::registry());
  const ops::ScanResult r =
      ops::scan(b, *body.finish(), {b.state("start", row)}, {b.input("xs", {DType::kF64, {5, 600}})}, {});
  b.output("sum", r.carries[0]);
  const ModelFile model = model_of({*b.finish()}, {{"start", Tensor::zeros(DType::kF64, {600})}});
  const std::vector<std::byte> bytes = bytes_of(model);
  const auto file = io::parse_safetensors(bytes, "m");
  EXPECT_TRUE(same_bytes(file->tensors.at("deepseek.constant.0"), third));
  const auto back = parse_model(bytes, "m");
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  EXPECT_EQ(print(back->graphs[0]), print(model.graphs[0]));
}

TEST(ModelFile, TwoTracesTellOfEverySize) {
  const auto back = parse_model(bytes_of(mlp(5)), "m");
  ASSERT_TRUE(back.ok()) << back.status().to_string();
  for (const int64_t n : {1, 2, 3, 4, 64}) {
    const Result<Graph> graph = graph_for(*back, n);
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    EXPECT_EQ(print(*graph), print(mlp_graph(n, 5)));
  }
  EXPECT_THAT(graph_for(*back, 0).status().message(), HasSubstr("expected a batch size in [1, 2147483647], got 0"));
  EXPECT_EQ(to_string(back->signature.inputs[0]), "f32[?,4]");
  EXPECT_EQ(back->signature.outputs[1].dims, (graph::Dims{-1, 3}));
  EXPECT_EQ(to_string(mlp(5, 7).signature.inputs[0]), "f32[7,4]");
}

TEST(ModelFile, SizesThatAreMultiplesOfTheBatch) {
  const auto trace = [](int64_t n) {
    Builder b(ops::registry());
    const Expr x = b.input("x", {DType::kF32, {n, 2}}), pairs = b.input("pairs", {DType::kF32, {2 * n, 3}});
    b.output("y", ops::sum(x, {1}) + ops::sum(ops::reshape(pairs, {n, 6}), {1}));
    return *b.finish();
  };
  const ModelFile model = model_of({trace(4), trace(6)}, {});
  EXPECT_EQ(size_multiples(model), (std::vector<graph::Dims>{{1, 0}, {2, 0}}));
  EXPECT_EQ(print(*graph_for(model, 5)), print(trace(5)));
  EXPECT_FALSE(bytes_of(model).empty());
}

TEST(ModelFile, AnInputCalledLikeAWeight) {
  Builder b(ops::registry());
  const Expr x = b.input("input/w", {DType::kF32, {2}}), z = b.input("input/z", {DType::kF32, {2}});
  b.output("y", x * b.state("w", {DType::kF32, {2}}) + z);
  const ModelFile model = model_of({*b.finish()}, {{"w", weights({2}, 0)}});
  EXPECT_EQ(model.signature.inputs[0].name, "w");
  EXPECT_EQ(model.signature.inputs[1].name, "input/z");  // that is its name
  EXPECT_EQ(input_name(model.graphs[0], "w"), "input/w");
  EXPECT_EQ(input_name(model.graphs[0], "y"), "y");
  EXPECT_FALSE(bytes_of(model).empty());
}

// --- what is refused before anything is written

TEST(ModelFile, PartsThatDoNotAgree) {
  TempFolder folder;
  const auto error = [&](const std::function<void(ModelFile&)>& change) {
    ModelFile model = mlp(5);
    change(model);
    const Status s = save_model(folder / "m", model);
    EXPECT_FALSE(s.ok());
    EXPECT_FALSE(std::filesystem::exists(folder / "m"));
    return s.ok() ? "" : s.to_string();
  };
  EXPECT_THAT(error([](ModelFile& m) { m.graphs.clear(); }),
              HasSubstr("expected one graph, or those for two sizes, got 0"));
  EXPECT_THAT(error([](ModelFile& m) { m.graphs[1] = m.graphs[0]; }), HasSubstr("have inputs of the same sizes"));
  EXPECT_THAT(error([](ModelFile& m) { m.graphs.pop_back(); }),
              HasSubstr("input 0: the graph has 'x', f32[2,4], the signature 'x', f32[?,4]"));
  EXPECT_THAT(error([](ModelFile& m) { m.signature.outputs.pop_back(); }),
              HasSubstr("the graph has 2 outputs, the signature 1"));
  EXPECT_THAT(error([](ModelFile& m) { m.weights.erase("w"); }), HasSubstr("weight 'w', f32[4,5], is missing"));
  EXPECT_THAT(error([](ModelFile& m) { m.weights["more"] = Tensor::zeros(DType::kF32, {}); }),
              HasSubstr("weight 'more' is none that the graph has"));
  EXPECT_THAT(error([](ModelFile& m) {
                m.weights["w"] = Tensor::zeros(DType::kF64, {4, 5});
              }),
              HasSubstr("weight 'w': the graph expects f32[4,5], got f64[4,5]"));
  EXPECT_THAT(error([](ModelFile& m) { m.weights["w"] = Tensor(); }), HasSubstr("weight 'w' has no data"));
  EXPECT_THAT(error([](ModelFile& m) { m.weights["deepseek.x"] = Tensor::zeros(DType::kF32, {}); }),
              HasSubstr("names that begin with 'deepseek.' are the file's own"));
  EXPECT_THAT(error([](ModelFile& m) {
                for (int i = 0; i < 8; ++i) m.weights[fmt::format("w{}", i)] = Tensor::zeros(DType::kF32, {});
              }),
              HasSubstr("; and 3 more"));
  EXPECT_THAT(error([](ModelFile& m) { m.outputs["logit"] = {}; }), HasSubstr("there is no output 'logit'"));
  EXPECT_THAT(error([](ModelFile& m) { m.preprocessing = "{\n1}"; }),
              AllOf(HasSubstr("the preprocessing is not valid JSON"), HasSubstr("line 2, column 1")));
  EXPECT_THAT(error([](ModelFile& m) { m.preprocessing = std::string(100000, '['); }),
              HasSubstr("the preprocessing nests deeper than 64 levels"));
  EXPECT_THAT(error([](ModelFile& m) { m.provenance["by"] = "M\xfcller"; }),
              HasSubstr("the provenance's 'by' is not UTF-8 at byte 1"));
}

TEST(ModelFile, GraphsThatAreNoEvaluation) {
  const auto error = [](const std::function<void(Builder&, Expr)>& code) {
    Builder b(ops::registry());
    code(b, b.input("x", {DType::kF32, {2}}));
    Result<Graph> graph = b.finish();
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    ModelFile model = model_of({*graph}, {});
    for (const graph::Input& input : graph->inputs())
      if (input.kind == graph::InputKind::kState)
        model.weights[input.name] = Tensor::zeros(graph->type(input.value).dtype, graph->type(input.value).dims);
    const Status s = check_model(model);
    EXPECT_FALSE(s.ok());
    EXPECT_TRUE(s.ok() || s.code() == ErrorCode::kUnsupported);
    return s.message();
  };
  EXPECT_THAT(error([](Builder& b, Expr x) {
                const Expr mean = b.state("mean", {DType::kF32, {2}});
                b.update(mean, mean + x);
                b.output("y", x - mean);
              }),
              HasSubstr("the graph changes its state 'mean', as in training; trace the model after eval()"));
  EXPECT_THAT(error([](Builder& b, Expr x) {
                b.output("y", b.op("dropout", {x, b.state("random/counter", {DType::kI64, {2}})},
                                   {{"rate", 0.5}, {"stream", int64_t{0}}}));
              }),
              HasSubstr("[dropout] node '' draws random numbers, as in training"));
}

TEST(ModelFile, TracesThatDoNotTellOfOtherSizes) {
  const auto trace = [](int64_t n, double factor) {
    Builder b(ops::registry());
    b.output("y", b.input("x", {DType::kF32, {n}}) * factor);
    return *b.finish();
  };
  EXPECT_THAT(check_model(model_of({trace(4, 4), trace(6, 6)}, {})).message(),
              AllOf(HasSubstr("do not tell of others"), HasSubstr("constants of other numbers")));
  const auto other = [](int64_t n) {
    Builder b(ops::registry());
    b.output("y", b.input("x", {DType::kF64, {n}}));
    return *b.finish();
  };
  const std::vector<Graph> mixed{trace(4, 1), other(6)};
  EXPECT_THAT(signature_of(mixed).status().message(),
              HasSubstr("input 'x' is f32[4] in one graph and f64[6] in the other"));
}

// --- files that are none, or broken

std::string error_of(std::span<const std::byte> bytes, const std::string& where, ErrorCode code) {
  const Result<ModelFile> model = parse_model(bytes, where);
  EXPECT_FALSE(model.ok()) << where;
  if (model.ok()) return "";
  EXPECT_EQ(to_string(model.status().code()), std::string(to_string(code))) << model.status().to_string();
  EXPECT_THAT(model.status().message(), HasSubstr("'" + where + "'"));
  return model.status().to_string();
}

// The error of a right file that was changed.
std::string error_after(const std::function<void(io::TensorFile&)>& change, ErrorCode code = ErrorCode::kDataCorrupt) {
  TempFolder folder;
  const std::string path = folder / "m";
  EXPECT_TRUE(save_model(path, mlp(1500)).ok());
  io::TensorFile file = *io::load_safetensors(path);
  change(file);
  EXPECT_TRUE(io::save_safetensors(path, file).ok());
  return error_of(*io::read_file(path), "m.safetensors", code);
}

void replace(std::string& text, const std::string& what, const std::string& by) {
  const size_t at = text.find(what);
  ASSERT_NE(at, text.npos) << what;
  text.replace(at, what.size(), by);
}

TEST(BrokenModelFile, Metadata) {
  EXPECT_THAT(error_after([](auto& f) { f.metadata.clear(); }, ErrorCode::kInvalidArgument),
              AllOf(HasSubstr("holds weights (3 tensors), but no model"), HasSubstr("deepseek export")));
  EXPECT_THAT(
      error_after([](auto& f) { f.metadata["deepseek.format"] = "2"; }, ErrorCode::kUnsupported),
      AllOf(HasSubstr("has format version 2, this build reads versions up to 1"), HasSubstr("update deepseek")));
  for (const char* text : {"", "0", "-1", "one", "1.0", "99999999999999999999"})
    EXPECT_THAT(error_after([&](auto& f) { f.metadata["deepseek.format"] = text; }),
                HasSubstr(fmt::format("'deepseek.format' is '{}', expected a number from 1 on", text)));
  for (const char* key : {"deepseek.graph.0", "deepseek.signature"})
    EXPECT_THAT(error_after([&](auto& f) { f.metadata.erase(key); }),
                HasSubstr(fmt::format("the metadata's '{}' is missing", key)));
  EXPECT_THAT(error_after([](auto& f) { f.metadata["deepseek.graph.2"] = "graph {}"; }),
              HasSubstr("'deepseek.graph.2' is none of format version 1"));
}

TEST(BrokenModelFile, OtherPeoplesMetadataAreIgnored) {
  TempFolder folder;
  ASSERT_TRUE(save_model(folder / "m", mlp(5)).ok());
  io::TensorFile file = *io::load_safetensors(folder / "m");
  file.metadata["format"] = "pt";
  ASSERT_TRUE(io::save_safetensors(folder / "m", file).ok());
  EXPECT_TRUE(load_model(folder / "m").ok());
}

TEST(BrokenModelFile, Graphs) {
  const auto changed = [](const std::string& what, const std::string& by, ErrorCode code = ErrorCode::kDataCorrupt) {
    return error_after([&](auto& f) { replace(f.metadata["deepseek.graph.0"], what, by); }, code);
  };
  EXPECT_THAT(changed("matmul", "matmool"), AllOf(HasSubstr("deepseek.graph.0:6:8: 'matmool' is no registered op"),
                                                  HasSubstr("note: the file is of deepseek 0.1.0")));
  EXPECT_THAT(changed("f32[2,1500]", "f32[2,1501]"), HasSubstr("do not broadcast"));
  EXPECT_THAT(changed("f32[2,4]", "f32[2,4,99999999999]"), HasSubstr("expected sizes in [0, 2147483647]"));
  EXPECT_THAT(changed("}\n", "}\ngraph"), HasSubstr("deepseek.graph.0"));
  EXPECT_THAT(changed("constant.0", "constant.1"), HasSubstr("there is no tensor 'deepseek.constant.1' in the file"));
  EXPECT_THAT(changed("f32[1500]<\"deepseek.constant.0\">", "f32[3]<1,2,3>"),
              HasSubstr("expected f32[3] by inference"));
  EXPECT_THAT(changed("\"x\" : f32[2,4]", "\"x\" : f32[2,4]{c2}", ErrorCode::kUnsupported),
              HasSubstr("row-major values only"));
  EXPECT_THAT(error_after([](auto& f) { f.metadata.erase("deepseek.graph.1"); }),
              HasSubstr("the graph has 'x', f32[2,4], the signature 'x', f32[?,4]"));
  EXPECT_THAT(error_after([](auto& f) {
                f.tensors["deepseek.constant.0"] = Tensor::zeros(DType::kF32, {2, 750});
              }),
              HasSubstr("tensor 'deepseek.constant.0': expected f32[1500], got f32[2,750]"));
  EXPECT_THAT(error_after([](auto& f) { f.tensors["deepseek.constant.7"] = Tensor::zeros(DType::kF32, {}); }),
              HasSubstr("no graph uses the tensor 'deepseek.constant.7'"));
  EXPECT_THAT(error_after([](auto& f) { f.tensors.erase("v"); }), HasSubstr("weight 'v', f32[1500,3], is missing"));
  EXPECT_THAT(error_after([](auto& f) { f.tensors["u"] = Tensor::zeros(DType::kF32, {}); }),
              HasSubstr("weight 'u' is none that the graph has"));
  EXPECT_THAT(error_after([](auto& f) {
                f.tensors["v"] = Tensor::zeros(DType::kF16, {1500, 3});
              }),
              HasSubstr("weight 'v': the graph expects f32[1500,3], got f16[1500,3]"));
  std::string nested;
  for (int i = 0; i < 2000; ++i) nested += "graph { %0 = fused() {body=";
  EXPECT_THAT(error_after([&](auto& f) { f.metadata["deepseek.graph.0"] = nested; }), HasSubstr("nested too deeply"));
}

TEST(BrokenModelFile, Json) {
  const auto with = [](const char* key, const std::string& text) {
    return error_after([&](auto& f) { f.metadata[key] = text; });
  };
  const std::string deep(1000000, '[');
  for (const char* key : {"deepseek.signature", "deepseek.outputs", "deepseek.provenance"}) {
    EXPECT_THAT(with(key, deep), HasSubstr(fmt::format("'{}' nests deeper than 8 levels", key)));
    EXPECT_THAT(with(key, "{"), HasSubstr(fmt::format("'{}' is not valid JSON", key)));
    EXPECT_THAT(with(key, "[]"), HasSubstr(fmt::format("'{}': expected an object, got array", key)));
  }
  EXPECT_THAT(with("deepseek.preprocessing", deep), HasSubstr("the preprocessing nests deeper than 64 levels"));
  EXPECT_THAT(with("deepseek.signature", R"({"inputs": []})"), HasSubstr("'outputs' is missing"));
  EXPECT_THAT(with("deepseek.signature", R"({"inputs": [], "outputs": [], "x": 1})"),
              HasSubstr("expected 2 fields, got 3"));
  EXPECT_THAT(with("deepseek.signature", R"({"inputs": 3, "outputs": []})"),
              HasSubstr("'inputs' must be a list, got number"));
  const auto port = [&](const std::string& text) {
    return with("deepseek.signature", R"({"inputs": [)" + text + R"(], "outputs": []})");
  };
  EXPECT_THAT(port("7"), HasSubstr("inputs[0]: expected an object, got number"));
  EXPECT_THAT(port(R"({"name": 1})"), HasSubstr("inputs[0]: 'name' must be a text, got number"));
  EXPECT_THAT(port(R"({"name": "x", "dtype": "f31", "dims": []})"), HasSubstr("f31"));
  EXPECT_THAT(port(R"({"name": "x", "dtype": "f32", "dims": 1})"), HasSubstr("'dims' must be a list"));
  for (const char* dim : {"-2", "2147483648", "18446744073709551615", "1.5", "\"a\"", "null", "-9223372036854775808"})
    EXPECT_THAT(port(fmt::format(R"({{"name": "x", "dtype": "f32", "dims": [{}]}})", dim)),
                HasSubstr("sizes are -1 or in [0, 2147483647]"));
  EXPECT_THAT(with("deepseek.outputs", R"({"logits": {"task": "", "class_names": [1]}})"),
              HasSubstr("a class name must be a text, got number"));
  EXPECT_THAT(with("deepseek.outputs", R"({"logitz": {"task": "", "class_names": []}})"),
              HasSubstr("there is no output 'logitz'"));
  EXPECT_THAT(with("deepseek.provenance", R"({"a": {}})"), HasSubstr("'a' must be a text, got object"));
}

std::vector<std::byte> raw(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

TEST(OtherFile, IsToldApart) {
  using std::literals::string_view_literals::operator""sv;
  const auto error = [](std::string_view text, const std::string& name) {
    return error_of(raw(text), name, ErrorCode::kInvalidArgument);
  };
  EXPECT_THAT(error("", "m"), HasSubstr("is empty"));
  EXPECT_THAT(error("PK\x03\x04\x14\x00\x00\x00\x08\x00....archive/data.pkl"sv, "m"), HasSubstr("is a PyTorch file"));
  EXPECT_THAT(error("PK\x03\x04\x14\x00"sv, "m.PT"), AllOf(HasSubstr("is a PyTorch file"), HasSubstr("save_file")));
  EXPECT_THAT(error("PK\x03\x04...x.npy"sv, "m"), HasSubstr("is a NumPy archive"));
  EXPECT_THAT(error("PK\x03\x04..."sv, "m.zip"), HasSubstr("is a zip archive"));
  EXPECT_THAT(error("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P"sv, "m.pt"), HasSubstr("is a Python pickle"));
  EXPECT_THAT(error("\x08\x07\x12\x07pytorch\x1a\x03"sv, "m"), HasSubstr("is an ONNX model"));
  EXPECT_THAT(error("\x0a\x00\x00"sv, "m.onnx"), HasSubstr("is an ONNX model"));
  EXPECT_THAT(error("\x89HDF\r\n\x1a\n\0\0"sv, "m.h5"), HasSubstr("is an HDF5 file"));
  EXPECT_THAT(error("GGUF\x03\0\0\0"sv, "m"), HasSubstr("is a GGUF file"));
  EXPECT_THAT(error("\x93NUMPY\x01\0"sv, "m"), HasSubstr("is a NumPy array"));
  EXPECT_THAT(error("PAR1\x15\x04"sv, "m"), HasSubstr("is a Parquet table"));
  EXPECT_THAT(error("\x1f\x8b\x08\0"sv, "m.gz"), HasSubstr("is compressed by gzip"));
  EXPECT_THAT(error("version https://git-lfs.github.com/spec/v1\n", "m"), HasSubstr("run `git lfs pull`"));
  EXPECT_THAT(error(" <!DOCTYPE html><html>", "m"), HasSubstr("is a web page"));
  EXPECT_THAT(error("age,kind\n1,a\n", "m.csv"), HasSubstr("a table it seems"));
  EXPECT_THAT(error("data:\n  path: x\n", "m.yaml"), HasSubstr("a config it seems"));
  EXPECT_THAT(error("hello", "m"), HasSubstr("is text, and no model file"));
  EXPECT_THAT(error_of(raw("\xff\xfe\x00\x01"sv), "m", ErrorCode::kDataCorrupt), HasSubstr("the file is truncated"));
  EXPECT_THAT(error_of(raw("\xff\xff\xff\xff\xff\xff\x01\x01\x01"sv), "m", ErrorCode::kDataCorrupt),
              HasSubstr("is this a safetensors file?"));
}

TEST(OtherFile, OnDisk) {
  TempFolder folder;
  const auto error = [&](const std::string& path) { return load_model(path).status(); };
  EXPECT_EQ(error(folder / "none").code(), ErrorCode::kNotFound);
  EXPECT_THAT(error(folder / "none").message(), HasSubstr("none"));
  EXPECT_THAT(error(folder.path()).message(), HasSubstr("is a folder; give a model file, as `deepseek export`"));
  ASSERT_TRUE(save_model(folder / "model.safetensors", mlp(5)).ok());
  EXPECT_THAT(error(folder.path()).message(),
              HasSubstr("give the model file in it, '" + folder.path() + "/model.safetensors'"));
  EXPECT_THAT(error(std::string("a\0b", 3)).message(), HasSubstr("can't hold the character 0"));
  EXPECT_THAT(error("").message(), HasSubstr("expected a path"));
  EXPECT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error(folder / "pipe").message(), HasSubstr("is a pipe"));
  ASSERT_TRUE(io::write_file_atomic(folder / "m.csv", raw("a,b\n1,2\n")).ok());
  EXPECT_THAT(error(folder / "m.csv").message(), HasSubstr("a table it seems"));
}

TEST(HostileModelFile, CutAnywhere) {
  const std::vector<std::byte> bytes = bytes_of(mlp(5));
  ASSERT_LT(bytes.size(), 6000u);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Result<ModelFile> model = parse_model(std::span(bytes).first(size), "m");
    ASSERT_FALSE(model.ok()) << size;
    ASSERT_THAT(model.status().message(), HasSubstr("'m'"));
  }
}

TEST(HostileModelFile, RandomBytes) {
  const std::vector<std::byte> bytes = bytes_of(mlp(5));
  std::mt19937 random(5);
  int valid = 0;
  for (int round = 0; round < 4000; ++round) {
    std::vector<std::byte> changed = bytes;
    for (unsigned n = 1 + random() % 3; n > 0; --n)
      changed[random() % changed.size()] = static_cast<std::byte>(random());
    const Result<ModelFile> model = parse_model(changed, "m");
    if (!model.ok()) {
      ASSERT_FALSE(model.status().message().empty());
      continue;
    }
    ++valid;  // another weight, or another name in the provenance
    ASSERT_TRUE(check_model(*model).ok());
  }
  EXPECT_GT(valid, 100);
}

TEST(HostileModelFile, KilledWhileSavingLeavesAWholeFile) {
  TempFolder folder;
  const std::string path = folder / "m.safetensors";
  ModelFile odd = mlp(20000), even = mlp(20000);
  odd.provenance["round"] = "odd";
  even.provenance["round"] = "even";
  for (auto& [name, value] : even.weights) value = Tensor::full(DType::kF32, value.dims(), 2);
  ASSERT_TRUE(save_model(path, odd).ok());
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0)
      for (;;)
        if (!save_model(path, even).ok() || !save_model(path, odd).ok()) ::_exit(1);
    ::usleep(500 + random() % 20000);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int state = 0;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    ASSERT_TRUE(WIFSIGNALED(state)) << "the child ended by itself with status " << state;
    const Result<ModelFile> back = load_model(path);
    ASSERT_TRUE(back.ok()) << "round " << round << ": " << back.status().to_string();
    const ModelFile& whole = back->provenance.at("round") == "odd" ? odd : even;
    for (const auto& [name, value] : whole.weights) ASSERT_TRUE(same_bytes(back->weights.at(name), value)) << name;
  }
}

}  // namespace
}  // namespace deepseek::infer
