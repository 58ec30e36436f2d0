#include "base/synonyms.h"

#include <algorithm>

#include "base/strings.h"

namespace deepseek {

namespace {

struct Synonym {
  std::string_view theirs;  // lower case, without _ and -
  std::string_view ours;    // several with a comma; of several entries the first that is known counts
};
constexpr Synonym kSynonyms[] = {
    {"lr", "learning_rate"},
    {"eta", "learning_rate"},
    {"rate", "learning_rate"},
    {"learnrate", "learning_rate"},
    {"baselr", "learning_rate"},
    {"learningrateinit", "learning_rate"},
    {"initiallearningrate", "learning_rate"},
    {"betas", "beta1,beta2"},
    {"eps", "epsilon"},
    {"wd", "weight_decay"},
    {"decay", "weight_decay"},
    {"l2", "weight_decay"},
    {"rho", "alpha"},
    {"opt", "optimizer"},
    {"optim", "optimizer"},
    {"scheduler", "schedule"},
    {"lrscheduler", "schedule"},
    {"criterion", "loss"},
    {"objective", "loss"},
    {"batch", "batch_size"},
    {"bs", "batch_size"},
    {"bsz", "batch_size"},
    {"trainbatchsize", "batch_size"},
    {"perdevicetrainbatchsize", "batch_size"},
    {"nepochs", "epochs"},
    {"numepochs", "epochs"},
    {"numtrainepochs", "epochs"},
    {"maxepochs", "epochs"},
    {"nbepoch", "epochs"},
    {"maxiter", "epochs"},
    {"iterations", "epochs"},
    {"randomstate", "seed"},
    {"randomseed", "seed"},
    {"rngseed", "seed"},
    {"earlystopping", "patience"},
    {"earlystoppingpatience", "patience"},
    {"earlystoppingrounds", "patience"},
    {"niternochange", "patience"},
    {"mindelta", "min_delta"},
    {"tol", "min_delta"},
    {"gradientaccumulationsteps", "accumulate"},
    {"accumulationsteps", "accumulate"},
    {"accumulategradbatches", "accumulate"},
    {"gradaccum", "accumulate"},
    {"gradientclipval", "clip_norm"},
    {"gradclip", "clip_norm"},
    {"clipgrad", "clip_norm"},
    {"clipgradnorm", "clip_norm"},
    {"maxgradnorm", "clip_norm"},
    {"maxnorm", "clip_norm"},
    {"amp", "precision"},
    {"fp16", "precision"},
    {"bf16", "precision"},
    {"dtype", "precision"},
    {"mixedprecision", "precision"},
    {"ema", "ema_decay"},
    {"njobs", "threads"},
    {"numthreads", "threads"},
    {"numworkers", "threads"},
    {"nthreads", "threads"},
    {"outputdir", "output"},
    {"outdir", "output"},
    {"savedir", "output"},
    {"logdir", "output"},
    {"labelsmooth", "label_smoothing"},
    {"ignorelabel", "ignore_index"},
    {"warmupratio", "warmup"},
    {"warmupsteps", "warmup"},
    {"warmupepochs", "warmup"},
    {"stepsize", "step_epochs"},
    {"factor", "gamma"},
    {"arch", "name"},
    {"architecture", "name"},
    {"backbone", "name"},
    {"type", "name"},
    {"dataset", "data"},
    {"net", "model"},
    {"network", "model"},
    {"vocabsize", "vocabulary"},
    {"numembeddings", "vocabulary"},
    {"hiddensize", "width"},
    {"hiddendim", "width"},
    {"hiddenunits", "width"},
    {"hidden", "width"},
    {"units", "width"},
    {"dmodel", "width"},
    {"nembd", "width"},
    {"dim", "width"},
    {"embeddim", "width"},
    {"numlayers", "layers"},
    {"nlayers", "layers"},
    {"nlayer", "layers"},
    {"depth", "layers"},
    {"depth", "blocks"},
    {"numblocks", "blocks"},
    {"numhiddenlayers", "layers"},
    {"nhead", "heads"},
    {"nheads", "heads"},
    {"numheads", "heads"},
    {"numattentionheads", "heads"},
    {"dimfeedforward", "feedforward"},
    {"dff", "feedforward"},
    {"intermediatesize", "feedforward"},
    {"maxpositionembeddings", "positions"},
    {"maxlength", "positions"},
    {"maxlen", "positions"},
    {"dropoutrate", "dropout"},
    {"dropoutprob", "dropout"},
    {"hiddendropoutprob", "dropout"},
    {"droprate", "dropout"},
    {"features", "channels"},
    {"usebias", "bias"},
    {"inputdim", "in_features"},
    {"inputsize", "in_features"},
    {"indim", "in_features"},
    {"outputdim", "out_features"},
    {"outputsize", "out_features"},
    {"outdim", "out_features"},
    {"units", "out_features"},
    {"filters", "out_channels"},
    {"rate", "p"},
    {"prob", "p"},
    {"dropout", "p"},
    {"hiddendim", "hidden_size"},
    {"hidden", "hidden_size"},
    {"layers", "num_layers"},
    {"valfraction", "validation_fraction"},
    {"valsplit", "validation_fraction"},
    {"validationsplit", "validation_fraction"},
    {"testsize", "test_fraction"},
    {"testsplit", "test_fraction"},
    {"path", "file"},
    {"path", "folder"},
    {"root", "folder"},
    {"label", "target"},
    {"labels", "target"},
};

}  // namespace

std::vector<std::string> synonyms(std::string_view name, const std::vector<std::string>& known) {
  std::string plain = lower(name);
  std::erase_if(plain, [](char c) { return c == '_' || c == '-' || c == ' '; });
  for (const Synonym& s : kSynonyms) {
    if (s.theirs != plain) continue;
    std::vector<std::string> ours = split(s.ours, ',');
    const auto is_known = [&](const std::string& n) { return std::find(known.begin(), known.end(), n) != known.end(); };
    if (std::all_of(ours.begin(), ours.end(), is_known)) return ours;
  }
  return {};
}

std::vector<std::string> meant(std::string_view name, const std::vector<std::string>& candidates) {
  std::vector<std::string> names = synonyms(name, candidates);
  if (names.empty())
    if (std::string near = nearest(name, candidates); !near.empty()) names.push_back(std::move(near));
  return names;
}

}  // namespace deepseek
