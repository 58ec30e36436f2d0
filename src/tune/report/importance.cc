#include "tune/report/importance.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/random.h"

namespace deepseek::tune {
namespace {

constexpr int kDepth = 64;
constexpr size_t kCategories = 64;  // choices of more values are taken by position
constexpr size_t kFew = 32;         // values of an int that a curve shows one by one

struct Node {
  int32_t feature = -1;  // of a leaf
  int32_t left = 0, right = 0;
  double value = 0;      // of a leaf
  double threshold = 0;  // numbers below go left
  uint64_t mask = 0;     // categories that go left
};

// The inputs by column: unit coordinates, or categories' positions.
struct Columns {
  std::vector<std::vector<double>> x;
  std::vector<size_t> categories;  // 0: numeric
  std::vector<double> y;           // centred, at most about 1
};

// One tree over weighted rows. Numeric columns are sorted once; each node's rows stay together in every order.
class Builder {
 public:
  // Rows of weight 0 are left out at once: what remains lies close together.
  Builder(const Columns& data, const std::vector<std::vector<int32_t>>& sorted, const std::vector<double>& weights)
      : orders_(sorted.size()) {
    std::vector<int32_t> place(weights.size(), -1);
    for (size_t row = 0; row < weights.size(); ++row) {
      if (weights[row] == 0) continue;
      place[row] = static_cast<int32_t>(weights_.size());
      weights_.push_back(weights[row]);
      data_.y.push_back(data.y[row]);
    }
    data_.categories = data.categories;
    data_.x.assign(sorted.size(), std::vector<double>(weights_.size()));
    for (size_t f = 0; f < sorted.size(); ++f)
      for (const int32_t row : sorted[f]) {
        const int32_t at = place[static_cast<size_t>(row)];
        if (at < 0) continue;
        orders_[f].push_back(at);
        data_.x[f][static_cast<size_t>(at)] = data.x[f][static_cast<size_t>(row)];
      }
    left_.resize(weights_.size());
    rest_.resize(weights_.size());
  }

  std::vector<Node> run() {
    grow(0, rest_.size(), 0);
    return std::move(nodes_);
  }

 private:
  struct Split {
    double gain = 0;
    Node node;
  };

  int32_t grow(size_t begin, size_t end, int depth) {
    const int32_t id = static_cast<int32_t>(nodes_.size());
    nodes_.emplace_back();
    double weight = 0, sum = 0, squares = 0;
    for (size_t i = begin; i < end; ++i) {
      const size_t row = static_cast<size_t>(orders_[0][i]);
      weight += weights_[row], sum += weights_[row] * data_.y[row];
      squares += weights_[row] * data_.y[row] * data_.y[row];
    }
    nodes_.back().value = sum / weight;
    if (end - begin < 2 || depth == kDepth || squares - sum * sum / weight <= 1e-14 * weight) return id;
    Split best;
    for (size_t f = 0; f < orders_.size(); ++f) {
      if (data_.categories[f] == 0) {
        try_numeric(f, begin, end, weight, sum, best);
      } else if (data_.categories[f] > 1) {
        try_categories(f, begin, end, weight, sum, best);
      }
    }
    if (best.gain <= 0) return id;
    Node node = best.node;
    const size_t feature = static_cast<size_t>(node.feature);
    size_t middle = begin;
    for (size_t i = begin; i < end; ++i) {
      const size_t row = static_cast<size_t>(orders_[0][i]);
      const double x = data_.x[feature][row];
      left_[row] = data_.categories[feature] == 0 ? x < node.threshold : (node.mask >> static_cast<int>(x)) & 1;
      middle += left_[row];
    }
    for (std::vector<int32_t>& order : orders_) {
      size_t to = begin, kept = 0;
      for (size_t i = begin; i < end; ++i) {
        // Without branches, which nothing could predict.
        const int32_t row = order[i];
        const bool left = left_[static_cast<size_t>(row)] != 0;
        order[to] = row, rest_[kept] = row;
        to += left, kept += !left;
      }
      std::copy_n(rest_.begin(), kept, order.begin() + static_cast<std::ptrdiff_t>(to));
    }
    node.left = grow(begin, middle, depth + 1);
    node.right = grow(middle, end, depth + 1);
    nodes_[static_cast<size_t>(id)] = node;
    return id;
  }

  // Equal gains but for rounding stay with the earlier parameter: a parent comes before what depends on it.
  static double gain_needed(const Split& best) { return std::max(best.gain * (1 + 1e-9), 1e-14); }

  void try_numeric(size_t f, size_t begin, size_t end, double weight, double sum, Split& best) const {
    const std::vector<double>& x = data_.x[f];
    const std::vector<int32_t>& order = orders_[f];
    double w = 0, s = 0, needed = gain_needed(best) + sum * sum / weight;
    for (size_t i = begin; i + 1 < end; ++i) {
      const size_t row = static_cast<size_t>(order[i]), next = static_cast<size_t>(order[i + 1]);
      w += weights_[row], s += weights_[row] * data_.y[row];
      const double rest = weight - w;
      // s^2 / w + (sum - s)^2 / rest, with both sides times w and rest: a division only where it is better.
      if (s * s * rest + (sum - s) * (sum - s) * w <= needed * w * rest || x[row] == x[next]) continue;
      const double threshold = 0.5 * (x[row] + x[next]);
      if (!(threshold > x[row])) continue;
      best.gain = s * s / w + (sum - s) * (sum - s) / rest - sum * sum / weight;
      best.node.feature = static_cast<int32_t>(f);
      best.node.threshold = threshold;
      needed = gain_needed(best) + sum * sum / weight;
    }
  }

  // Of squared errors the best two sets are neighbours by their means (Fisher, 1958).
  void try_categories(size_t f, size_t begin, size_t end, double weight, double sum, Split& best) const {
    double w[kCategories] = {}, s[kCategories] = {};
    for (size_t i = begin; i < end; ++i) {
      const size_t row = static_cast<size_t>(orders_[0][i]), c = static_cast<size_t>(data_.x[f][row]);
      w[c] += weights_[row], s[c] += weights_[row] * data_.y[row];
    }
    std::vector<size_t> there;
    uint64_t absent = 0;
    for (size_t c = 0; c < data_.categories[f]; ++c) {
      if (w[c] > 0) {
        there.push_back(c);
      } else {
        absent |= uint64_t{1} << c;
      }
    }
    std::stable_sort(there.begin(), there.end(), [&](size_t a, size_t b) { return s[a] / w[a] < s[b] / w[b]; });
    double wl = 0, sl = 0;
    uint64_t mask = 0;
    for (size_t k = 0; k + 1 < there.size(); ++k) {
      wl += w[there[k]], sl += s[there[k]], mask |= uint64_t{1} << there[k];
      const double gain = sl * sl / wl + (sum - sl) * (sum - sl) / (weight - wl) - sum * sum / weight;
      if (gain <= gain_needed(best)) continue;
      best.gain = gain;
      best.node.feature = static_cast<int32_t>(f);
      best.node.mask = wl >= weight - wl ? mask | absent : mask;  // what isn't there goes with the majority
    }
  }

  Columns data_;
  std::vector<double> weights_;
  std::vector<std::vector<int32_t>> orders_;  // by column; of categories in any order
  std::vector<char> left_;
  std::vector<int32_t> rest_;
  std::vector<Node> nodes_;
};

// Pieces of one dimension in which a tree does not change: between thresholds, or one per category.
struct Pieces {
  std::vector<double> edges;  // 0, thresholds, 1; of categories k / categories
  bool categorical = false;

  size_t size() const { return edges.size() - 1; }
  double width(size_t k) const { return edges[k + 1] - edges[k]; }
  size_t at(double edge) const {
    return static_cast<size_t>(std::lower_bound(edges.begin(), edges.end(), edge) - edges.begin());
  }
};

// The box of a node, dimension by dimension.
struct Side {
  double low = 0, high = 1;
  uint64_t mask = 0;
  double share = 1;  // of the dimension
  int splits = 0;    // above it
};

class Walk {
 public:
  Walk(const std::vector<Node>& nodes, const std::vector<size_t>& categories)
      : nodes_(nodes), categories_(categories), sides_(categories.size()) {
    for (size_t f = 0; f < sides_.size(); ++f)
      sides_[f].mask = categories[f] == 0 ? 0 : ~uint64_t{0} >> (kCategories - categories[f]);
  }
  // Calls f(value, volume) at each leaf, while sides() and dimensions(), those that differ from the whole, are its own.
  template <class F>
  void run(const F& f) {
    step(0, 1, f);
  }
  const std::vector<Side>& sides() const { return sides_; }
  const std::vector<size_t>& dimensions() const { return path_; }

 private:
  template <class F>
  void step(int32_t id, double volume, const F& f) {
    const Node& node = nodes_[static_cast<size_t>(id)];
    if (node.feature < 0) return f(node.value, volume);
    const size_t feature = static_cast<size_t>(node.feature);
    Side& side = sides_[feature];
    const Side before = side;
    if (++side.splits == 1) path_.push_back(feature);
    for (const bool left : {true, false}) {
      if (categories_[feature] == 0) {
        (left ? side.high : side.low) = node.threshold;
        (left ? side.low : side.high) = left ? before.low : before.high;
        side.share = side.high - side.low;
      } else {
        side.mask = before.mask & (left ? node.mask : ~node.mask);
        side.share = std::popcount(side.mask) / static_cast<double>(categories_[feature]);
      }
      if (side.share > 0) step(left ? node.left : node.right, volume * (side.share / before.share), f);
    }
    if (side.splits == 1) path_.pop_back();
    side = before;
  }

  const std::vector<Node>& nodes_;
  const std::vector<size_t>& categories_;
  std::vector<Side> sides_;
  std::vector<size_t> path_;
};

std::vector<Pieces> pieces_of(const std::vector<Node>& nodes, const std::vector<size_t>& categories) {
  std::vector<Pieces> pieces(categories.size());
  for (const Node& n : nodes)
    if (n.feature >= 0 && categories[static_cast<size_t>(n.feature)] == 0)
      pieces[static_cast<size_t>(n.feature)].edges.push_back(n.threshold);
  for (size_t f = 0; f < pieces.size(); ++f) {
    std::vector<double>& edges = pieces[f].edges;
    pieces[f].categorical = categories[f] > 0;
    for (size_t k = 0; pieces[f].categorical && k <= categories[f]; ++k)
      edges.push_back(static_cast<double>(k) / static_cast<double>(categories[f]));
    if (pieces[f].categorical) continue;
    edges.push_back(0), edges.push_back(1);
    std::sort(edges.begin(), edges.end());
    edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  }
  return pieces;
}

// Calls f(begin, end) for each run of pieces that the side covers.
template <class F>
void for_runs(const Pieces& pieces, const Side& side, const F& f) {
  if (side.splits == 0) return f(size_t{0}, pieces.size());
  if (!pieces.categorical) return f(pieces.at(side.low), pieces.at(side.high));
  for (size_t c = 0; c < pieces.size();) {
    size_t end = c;
    while (end < pieces.size() && (side.mask >> end) & 1) ++end;
    if (end > c) f(c, end);
    c = end + 1;
  }
}

struct Tree {
  std::vector<Node> nodes;
  std::vector<Pieces> pieces;
  std::vector<std::vector<double>> effects;  // mean over the others, by parameter and piece
  std::vector<double> variances;             // of those
  double variance = 0;                       // of the whole
};

void find_effects(Tree& tree, const std::vector<size_t>& categories) {
  const size_t d = categories.size();
  tree.pieces = pieces_of(tree.nodes, categories);
  std::vector<std::vector<double>> steps(d);  // differences from piece to piece
  for (size_t f = 0; f < d; ++f) steps[f].assign(tree.pieces[f].size() + 1, 0);
  std::vector<double> told(d, 0);  // mean's parts that leaves with a side of their own give
  double mean = 0, squares = 0;
  Walk walk(tree.nodes, categories);
  walk.run([&](double value, double volume) {
    mean += value * volume;
    squares += value * value * volume;
    for (const size_t f : walk.dimensions()) {
      told[f] += value * volume;
      const double height = value * volume / walk.sides()[f].share;
      for_runs(tree.pieces[f], walk.sides()[f], [&](size_t begin, size_t end) {
        steps[f][begin] += height;
        steps[f][end] -= height;
      });
    }
  });
  tree.variance = squares - mean * mean;
  tree.effects.resize(d), tree.variances.assign(d, 0);
  for (size_t f = 0; f < d; ++f) {
    double height = mean - told[f];
    for (size_t k = 0; k < tree.pieces[f].size(); ++k) {
      height += steps[f][k];
      tree.effects[f].push_back(height);
      tree.variances[f] += (height - mean) * (height - mean) * tree.pieces[f].width(k);
    }
  }
}

// Variance of the mean over all parameters but two.
double pair_variance(const Tree& tree, const std::vector<size_t>& categories, size_t a, size_t b) {
  const Pieces &rows = tree.pieces[a], &columns = tree.pieces[b];
  const size_t stride = columns.size() + 1;
  std::vector<double> steps((rows.size() + 1) * stride, 0);
  Walk walk(tree.nodes, categories);
  walk.run([&](double value, double volume) {
    const Side &sa = walk.sides()[a], &sb = walk.sides()[b];
    const double height = value * volume / (sa.share * sb.share);
    for_runs(rows, sa, [&](size_t top, size_t bottom) {
      for_runs(columns, sb, [&](size_t left, size_t right) {
        steps[top * stride + left] += height, steps[top * stride + right] -= height;
        steps[bottom * stride + left] -= height, steps[bottom * stride + right] += height;
      });
    });
  });
  double mean = 0, squares = 0;
  std::vector<double> above(stride, 0);
  for (size_t i = 0; i < rows.size(); ++i) {
    double height = 0;
    for (size_t j = 0; j < columns.size(); ++j) {
      above[j] += steps[i * stride + j];
      height += above[j];
      const double area = rows.width(i) * columns.width(j);
      mean += height * area, squares += height * height * area;
    }
  }
  return squares - mean * mean;
}

}  // namespace

struct Forest::Trees {
  Space space;
  std::vector<size_t> categories;
  std::vector<Tree> trees;
  double centre = 0, scale = 1;  // values are centre + scale * a tree's
};

Result<Forest> Forest::fit(const Setting& setting, const std::vector<Trial>& trials, const ImportanceOptions& options) {
  if (options.objective >= setting.objectives())
    return invalid("importances: objective {}: the study has {}", options.objective, setting.objectives());
  if (options.trees < 1) return invalid("importances: trees: expected at least 1, got {}", options.trees);
  const size_t d = setting.space.size();
  if (d == 0) return invalid("importances: the space has no parameters");
  const bool up = setting.directions[options.objective] == Direction::kMaximize;
  std::vector<const Trial*> used;
  std::vector<double> values;
  for (const Trial& t : trials) {
    if (t.state != TrialState::kComplete || t.point.size() != d || t.values.size() <= options.objective) continue;
    double v = t.values[options.objective];
    if (!std::isfinite(v)) continue;
    if (options.worst) v = up ? std::max(v, *options.worst) : std::min(v, *options.worst);
    used.push_back(&t);
    values.push_back(v);
  }
  const size_t n = used.size();
  if (n < 4) return invalid("importances: expected at least 4 complete trials, got {}", n);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*low == *high) return invalid("importances: all {} values are {}", n, *low);

  auto all = std::make_shared<Trees>();
  all->space = setting.space;
  // By halves: the difference of huge values of both signs is no double.
  all->scale = *high / 2 - *low / 2;
  all->centre = *high / 2 + *low / 2;
  Columns data;
  for (const double v : values) data.y.push_back(v / all->scale - all->centre / all->scale);
  data.x.resize(d);
  std::vector<std::vector<int32_t>> sorted(d);
  std::vector<char> partly(d, 0);  // not active everywhere
  for (size_t f = 0; f < d; ++f) {
    const Parameter& p = setting.space[f];
    all->categories.push_back(!p.numeric() && p.choices.size() <= kCategories ? p.choices.size() : 0);
    for (const Trial* t : used) {
      const double v = t->point[f];
      partly[f] |= std::isnan(v);
      data.x[f].push_back(std::isnan(v)             ? 0
                          : all->categories[f] == 0 ? p.to_unit(v)
                                                    : std::clamp(v, 0.0, static_cast<double>(p.choices.size() - 1)));
    }
  }
  data.categories = all->categories;
  const auto sort = [&](size_t f) {
    sorted[f].resize(n);
    std::iota(sorted[f].begin(), sorted[f].end(), 0);
    if (data.categories[f] > 0) return;
    const std::vector<double>& x = data.x[f];
    std::stable_sort(sorted[f].begin(), sorted[f].end(),
                     [&](int32_t a, int32_t b) { return x[static_cast<size_t>(a)] < x[static_cast<size_t>(b)]; });
  };
  for (size_t f = 0; f < d; ++f) sort(f);
  const size_t draws = std::min(n, std::max<size_t>(options.rows, 4));
  for (int k = 0; k < options.trees; ++k) {
    Numbers numbers(hash_of(options.seed, 0xf0a, static_cast<uint64_t>(k)));
    for (size_t f = 0; f < d; ++f) {
      if (!partly[f]) continue;
      for (size_t i = 0; i < n; ++i) {
        if (!std::isnan(used[i]->point[f])) continue;
        const double u = numbers.uniform();
        data.x[f][i] = data.categories[f] == 0 ? u : std::floor(u * static_cast<double>(data.categories[f]));
      }
      sort(f);
    }
    std::vector<double> weights(n, 0);
    for (size_t i = 0; i < draws; ++i)
      weights[std::min(n - 1, static_cast<size_t>(numbers.uniform() * static_cast<double>(n)))] += 1;
    Tree tree;
    tree.nodes = Builder(data, sorted, weights).run();
    find_effects(tree, data.categories);
    all->trees.push_back(std::move(tree));
  }
  return Forest(std::move(all));
}

std::vector<Importance> Forest::importances() const {
  const size_t d = trees_->categories.size();
  std::vector<Importance> list;
  double total = 0;
  for (size_t f = 0; f < d; ++f) {
    double n = 0, sum = 0, squares = 0;
    for (const Tree& t : trees_->trees) {
      if (!(t.variance > 1e-14)) continue;  // a draw of equal values
      const double share = std::clamp(t.variances[f] / t.variance, 0.0, 1.0);
      ++n, sum += share, squares += share * share;
    }
    const double mean = n > 0 ? sum / n : 0;
    list.push_back({f, mean, n > 0 ? std::sqrt(std::max(squares / n - mean * mean, 0.0)) : 0, 0});
    total += mean;
  }
  for (Importance& i : list) i.normalised = total > 0 ? i.share / total : 0;
  std::stable_sort(list.begin(), list.end(),
                   [](const Importance& a, const Importance& b) { return a.share > b.share; });
  return list;
}

std::vector<Interaction> Forest::interactions(const std::vector<size_t>& among) const {
  std::vector<Interaction> list;
  for (size_t i = 0; i < among.size(); ++i)
    for (size_t j = i + 1; j < among.size(); ++j) {
      const size_t a = std::min(among[i], among[j]), b = std::max(among[i], among[j]);
      double n = 0, sum = 0;
      for (const Tree& t : trees_->trees) {
        if (!(t.variance > 1e-14)) continue;
        const double both = pair_variance(t, trees_->categories, a, b) - t.variances[a] - t.variances[b];
        ++n, sum += std::clamp(both / t.variance, 0.0, 1.0);
      }
      list.push_back({a, b, n > 0 ? sum / n : 0});
    }
  std::stable_sort(list.begin(), list.end(),
                   [](const Interaction& a, const Interaction& b) { return a.share > b.share; });
  return list;
}

Marginal Forest::marginal(size_t parameter, size_t points) const {
  const Parameter& p = trees_->space[parameter];
  Marginal curve;
  const double cardinality = p.cardinality();
  const bool every = p.kind == Kind::kChoice || cardinality <= static_cast<double>(kFew);
  const size_t count = every ? static_cast<size_t>(cardinality) : std::max<size_t>(points, 2);
  for (size_t k = 0; k < count; ++k) {
    const double unit = static_cast<double>(k) / static_cast<double>(count - 1);
    const double v = every ? p.low + static_cast<double>(k) * p.step : p.from_unit(unit);
    if (curve.values.empty() || v != curve.values.back()) curve.values.push_back(v);
  }
  const size_t categories = trees_->categories[parameter];
  for (const double v : curve.values) {
    const double unit = categories == 0 ? p.to_unit(v) : (v + 0.5) / static_cast<double>(categories);
    double sum = 0, squares = 0;
    for (const Tree& t : trees_->trees) {
      const std::vector<double>& edges = t.pieces[parameter].edges;
      const size_t after = static_cast<size_t>(std::upper_bound(edges.begin(), edges.end(), unit) - edges.begin());
      const double height = t.effects[parameter][std::clamp<size_t>(after, 1, edges.size() - 1) - 1];
      sum += height, squares += height * height;
    }
    const double n = static_cast<double>(trees_->trees.size()), mean = sum / n;
    curve.mean.push_back(trees_->centre + trees_->scale * mean);
    curve.deviation.push_back(trees_->scale * std::sqrt(std::max(squares / n - mean * mean, 0.0)));
  }
  return curve;
}

Result<std::vector<Importance>> importances(const Setting& setting, const std::vector<Trial>& trials,
                                            const ImportanceOptions& options) {
  DS_ASSIGN(const Forest forest, Forest::fit(setting, trials, options));
  return forest.importances();
}

}  // namespace deepseek::tune
