#include "features/compute.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <unordered_map>

#include "base/random.h"
#include "base/strings.h"
#include "base/threads.h"

namespace deepseek::features {

namespace {

using Kind = Feature::Kind;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kGrain = 1 << 14;
constexpr int64_t kAhead = 32;                // rows
constexpr int64_t kChunk = int64_t{1} << 22;  // rows of children that one chunk of instances may have

// Rows of a table that are looked at together, each as it was known at a time.
struct View {
  int entity = 0;
  int64_t size = 0;
  bool whole = false;             // all rows of the table, whenever they became known
  std::vector<int32_t> rows;      // of the table, unless whole
  std::vector<int64_t> cutoffs;   // one for all rows, or one for each
  std::vector<int64_t> segments;  // where those of each cut-off begin, in views of all that is known at one
  struct Link {
    View* to = nullptr;
    std::unique_ptr<View> owned;
    // To a parent: its row by row of this view; to children: row of this view by row of theirs. -1: none.
    std::vector<int32_t> up;
  };
  std::map<Hop, Link> links;
  std::unique_ptr<Link> all;  // all that is known at the cut-offs of this view
  std::map<std::vector<Hop>, Groups> groups;
  std::map<int, Vector> values;  // by feature
  std::map<int, std::vector<int32_t>> text_rows;

  int64_t cutoff(int64_t i) const { return cutoffs[cutoffs.size() == 1 ? 0 : static_cast<size_t>(i)]; }
  int32_t row(int64_t i) const { return whole ? static_cast<int32_t>(i) : rows[static_cast<size_t>(i)]; }
};

// Dense numbers for pairs of a segment and a key, in order of appearance; -1 where the key is missing.
class Numbering {
 public:
  explicit Numbering(int64_t expected) : slots_(std::bit_ceil(static_cast<size_t>(2 * expected + 2)), {0, 0, -1}) {}
  int32_t number(int64_t segment, double key) {
    if (std::isnan(key)) return -1;
    const auto bits = std::bit_cast<uint64_t>(key + 0.0), s = static_cast<uint64_t>(segment);
    size_t at = hash_of(bits, s) & (slots_.size() - 1);
    for (; slots_[at].number >= 0; at = (at + 1) & (slots_.size() - 1))
      if (slots_[at].bits == bits && slots_[at].segment == s) return slots_[at].number;
    slots_[at] = {bits, s, count_};
    return count_++;
  }
  int32_t count() const { return count_; }

 private:
  struct Slot {
    uint64_t bits, segment;
    int32_t number;
  };
  std::vector<Slot> slots_;
  int32_t count_ = 0;
};

class Engine {
 public:
  Engine(const Entities& entities, const Definitions& definitions, const ComputeOptions& options)
      : entities_(entities), definitions_(definitions), options_(options), wholes_(entities.entities().size()) {}

  Result<std::vector<Vector>> run() {
    const Entities::Entity& target = entity(definitions_.entity());
    const bool all = !options_.rows;
    const int64_t rows = all ? target.size() : static_cast<int64_t>(options_.rows->size());
    if (options_.cutoffs.size() > 1 && static_cast<int64_t>(options_.cutoffs.size()) != rows)
      return invalid("expected a cut-off time for each of {} rows, got {}", rows, options_.cutoffs.size());
    DS_TRY(check_times());
    count_uses();
    results_.resize(definitions_.targets().size());
    for (Output& result : results_) result.vector = make_vector(rows, result.data);
    if (all && options_.cutoffs.empty()) {
      DS_TRY(fill(whole(definitions_.entity()), 0, rows, rows));
    } else {
      if (options_.window > 0)
        for (size_t e = 0; e < wholes_.size(); ++e) last_times_.push_back(entities_.last_times(static_cast<int>(e)));
      DS_TRY(run_in_chunks(rows));
    }
    std::vector<Vector> vectors;
    for (Output& result : results_) vectors.push_back(std::move(result.vector));
    return vectors;
  }

 private:
  struct Output {
    Vector vector;
    double* data = nullptr;
  };

  const Feature& at(int f) const { return definitions_.features()[static_cast<size_t>(f)]; }
  const Entities::Entity& entity(int e) const { return entities_.entities()[static_cast<size_t>(e)]; }

  Status check_times() const {
    bool integers = false, dates = false;
    for (const auto& e : entities_.entities())
      if (!e.times.empty()) (e.integer_time ? integers : dates) = true;
    if (integers && dates && !options_.cutoffs.empty())
      return invalid("time indices are integers of some tables and dates of others; a cut-off time needs one kind");
    for (const Feature& f : definitions_.features()) {
      if (f.use.primitive == nullptr || !f.use.primitive->needs_now) continue;
      if (options_.cutoffs.empty()) return invalid("'{}' is a time up to the cut-off; give one by cutoff_time", f.name);
      if (integers) return invalid("'{}' needs time indices that are dates, not integers", f.name);
    }
    return {};
  }

  void count_uses() {
    uses_.assign(definitions_.features().size(), 0);
    const auto use = [&](int f) {
      if (f >= 0) ++uses_[static_cast<size_t>(f)];
    };
    for (const Feature& f : definitions_.features()) {
      for (const int i : f.inputs) use(i);
      use(f.where);
      use(f.group);
    }
    for (const int f : definitions_.targets()) use(f);
  }

  // Instances by time of their cut-off, so that those that see the same stand together, in chunks that bound memory.
  Status run_in_chunks(int64_t rows) {
    const auto base = [&](int64_t i) {
      return options_.rows ? (*options_.rows)[static_cast<size_t>(i)] : static_cast<int32_t>(i);
    };
    std::vector<int64_t> cutoffs = options_.cutoffs;
    if (cutoffs.empty()) cutoffs = {kNoTime};
    std::vector<int32_t> order(static_cast<size_t>(rows));
    std::iota(order.begin(), order.end(), 0);
    const auto cutoff = [&](int32_t i) { return cutoffs[cutoffs.size() == 1 ? 0 : static_cast<size_t>(i)]; };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return cutoff(a) < cutoff(b); });
    const bool costly =
        std::any_of(definitions_.features().begin(), definitions_.features().end(), [&](const Feature& f) {
          return (f.kind == Kind::kTransform || f.kind == Kind::kGroupTransform) && f.use.primitive->ordered &&
                 !is_static(static_cast<int>(&f - definitions_.features().data()));
        });
    for (int64_t begin = 0; begin < rows;) {
      int64_t end = begin, weight = 0;
      while (end < rows && (end == begin || weight < kChunk)) {
        // A change of the cut-off means all of the table anew, where a feature needs all its rows.
        if (costly &&
            (end == begin || cutoff(order[static_cast<size_t>(end)]) != cutoff(order[static_cast<size_t>(end - 1)])))
          weight += largest_table();
        weight += weight_of(base(order[static_cast<size_t>(end++)]));
      }
      View view;
      view.entity = definitions_.entity();
      std::vector<int32_t> places;
      for (int64_t k = begin; k < end; ++k) {
        const int32_t i = order[static_cast<size_t>(k)], row = base(i);
        // What is not known yet has no features.
        if (!known(view.entity, row, cutoff(i))) continue;
        view.rows.push_back(row);
        places.push_back(i);
        if (cutoffs.size() > 1) view.cutoffs.push_back(cutoff(i));
      }
      if (view.cutoffs.empty()) view.cutoffs = {cutoff(order[static_cast<size_t>(begin)])};
      view.size = static_cast<int64_t>(view.rows.size());
      if (view.cutoffs.size() == 1 && view.size > 1 && cutoffs.size() > 1)
        view.cutoffs.assign(view.rows.size(), view.cutoffs[0]);
      for (int64_t k = begin; k < end; ++k)
        for (size_t t = 0; t < results_.size(); ++t)
          results_[t].data[order[static_cast<size_t>(k)]] = at(definitions_.targets()[t]).missing;
      DS_TRY(fill(view, begin, end, rows, &places));
      begin = end;
    }
    return {};
  }

  int64_t largest_table() const {
    int64_t most = 0;
    for (const auto& e : entities_.entities()) most = std::max(most, e.size());
    return most;
  }
  // How many rows an instance draws in: its children, and those of its parents.
  int64_t weight_of(int32_t row) const {
    int64_t weight = 1;
    const auto& list = entities_.relationships();
    const auto children = [&](int e, int32_t of) {
      int64_t n = 0;
      for (const auto& r : list)
        if (r.parent == e)
          n += r.children.begin[static_cast<size_t>(of) + 1] - r.children.begin[static_cast<size_t>(of)];
      return n;
    };
    weight += children(definitions_.entity(), row);
    for (const auto& r : list)
      if (r.child == definitions_.entity() && r.parent_of[static_cast<size_t>(row)] >= 0)
        weight += children(r.parent, r.parent_of[static_cast<size_t>(row)]);
    return weight;
  }

  // Computes the targets on the view; places: where its rows stand in the result, none: in the order of the table.
  Status fill(View& view, int64_t begin, int64_t end, int64_t rows, const std::vector<int32_t>* places = nullptr) {
    const Entities::Entity& target = entity(view.entity);
    const std::vector<int32_t>& place = places ? *places : target.order;
    for (size_t t = 0; t < results_.size(); ++t) {
      const int f = definitions_.targets()[t];
      DS_ASSIGN(const Vector values, eval_coded(view, f));
      Output& out = results_[t];
      if (place.empty() && view.whole) {
        out.vector = values;
      } else {
        out.vector.words = values.words;
        for (int64_t i = 0; i < view.size; ++i) out.data[place[static_cast<size_t>(i)]] = values[i];
      }
      used(view, f);
      if (options_.progress) {
        const double part = static_cast<double>(t + 1) / static_cast<double>(results_.size());
        DS_TRY(options_.progress((static_cast<double>(begin) + part * static_cast<double>(end - begin)) /
                                 static_cast<double>(std::max<int64_t>(rows, 1))));
      }
    }
    return {};
  }

  View& whole(int e) {
    auto& view = wholes_[static_cast<size_t>(e)];
    if (!view) {
      view = std::make_unique<View>();
      view->entity = e;
      view->size = entity(e).size();
      view->whole = true;
    }
    return *view;
  }

  // Whether a row is known at the cut-off, and not older than the window.
  bool known(int e, int32_t row, int64_t cutoff) const {
    const auto& times = entity(e).times;
    if (times.empty() || cutoff == kNoTime) return true;
    const int64_t t = times[static_cast<size_t>(row)];
    if (options_.include_cutoff ? t > cutoff : t >= cutoff) return false;
    if (options_.window <= 0) return true;
    const int64_t from = cutoff - options_.window, last = last_times_[static_cast<size_t>(e)][static_cast<size_t>(row)];
    return options_.include_cutoff ? t > from || last > from : t >= from || last >= from;
  }

  // --- views of related rows

  View::Link& link(View& view, Hop hop) {
    const auto [found, fresh] = view.links.try_emplace(hop);
    View::Link& link = found->second;
    if (!fresh) return link;
    const auto& r = entities_.relationships()[static_cast<size_t>(hop.relationship)];
    if (view.whole) {
      link.to = &whole(hop.forward ? r.parent : r.child);
      return link;  // its `up` is the relationship's
    }
    link.owned = std::make_unique<View>();
    link.to = link.owned.get();
    link.to->entity = hop.forward ? r.parent : r.child;
    hop.forward ? to_parents(view, r, link) : to_children(view, r, link);
    link.to->size = static_cast<int64_t>(link.to->rows.size());
    return link;
  }
  const std::vector<int32_t>& up_of(const View& view, Hop hop, const View::Link& link) const {
    return view.whole ? entities_.relationships()[static_cast<size_t>(hop.relationship)].parent_of : link.up;
  }
  void to_children(const View& view, const Entities::Relationship& r, View::Link& link) const {
    View& to = *link.to;
    const bool one = view.cutoffs.size() == 1;
    if (one) to.cutoffs = view.cutoffs;
    const auto& times = entity(r.child).times;
    const bool parent = std::any_of(entities_.relationships().begin(), entities_.relationships().end(),
                                    [&](const auto& other) { return other.parent == r.child; });
    for (int64_t i = 0; i < view.size; ++i) {
      const auto row = static_cast<size_t>(view.rows[static_cast<size_t>(i)]);
      const int64_t cutoff = view.cutoff(i);
      auto begin = r.children.rows.begin() + r.children.begin[row],
           end = r.children.rows.begin() + r.children.begin[row + 1];
      if (!times.empty() && cutoff != kNoTime) {
        // They are in order of time: known ones come first. Old ones may be known by rows that refer to them.
        const auto before = [&](int64_t bound, bool inclusive) {
          return std::partition_point(begin, end, [&](int32_t child) {
            const int64_t t = times[static_cast<size_t>(child)];
            return inclusive ? t <= bound : t < bound;
          });
        };
        end = before(cutoff, options_.include_cutoff);
        if (options_.window > 0 && !parent) begin = before(cutoff - options_.window, options_.include_cutoff);
      }
      for (; begin != end; ++begin) {
        if (options_.window > 0 && !known(r.child, *begin, cutoff)) continue;
        to.rows.push_back(*begin);
        link.up.push_back(static_cast<int32_t>(i));
        if (!one) to.cutoffs.push_back(cutoff);
      }
    }
  }
  void to_parents(const View& view, const Entities::Relationship& r, View::Link& link) const {
    View& to = *link.to;
    const bool one = view.cutoffs.size() == 1;
    if (one) to.cutoffs = view.cutoffs;
    link.up.assign(static_cast<size_t>(view.size), -1);
    Numbering numbering(std::min<int64_t>(view.size, one ? entity(r.parent).size() : view.size));
    for (int64_t i = 0; i < view.size; ++i) {
      const int32_t parent = r.parent_of[static_cast<size_t>(view.rows[static_cast<size_t>(i)])];
      const int64_t cutoff = view.cutoff(i);
      if (parent < 0 || !known(r.parent, parent, cutoff)) continue;
      const int32_t number = numbering.number(cutoff, parent);
      if (number == static_cast<int32_t>(to.rows.size())) {
        to.rows.push_back(parent);
        if (!one) to.cutoffs.push_back(cutoff);
      }
      link.up[static_cast<size_t>(i)] = number;
    }
  }
  // All rows of the view's table that are known at its cut-offs, one cut-off after the other.
  Result<View::Link*> all_known(View& view) {
    if (view.all) return view.all.get();
    view.all = std::make_unique<View::Link>();
    View::Link& link = *view.all;
    link.owned = std::make_unique<View>();
    link.to = link.owned.get();
    View& to = *link.to;
    to.entity = view.entity;
    std::vector<int64_t> cutoffs = view.cutoffs;
    std::sort(cutoffs.begin(), cutoffs.end());
    cutoffs.erase(std::unique(cutoffs.begin(), cutoffs.end()), cutoffs.end());
    const int64_t rows = entity(view.entity).size();
    to.segments = {0};
    for (const int64_t cutoff : cutoffs) {
      for (int64_t row = 0; row < rows; ++row)
        if (known(view.entity, static_cast<int32_t>(row), cutoff)) {
          to.rows.push_back(static_cast<int32_t>(row));
          to.cutoffs.push_back(cutoff);
        }
      if (to.rows.size() > INT32_MAX)
        return Status(
            ErrorCode::kUnsupported,
            fmt::format("table '{}' at {} cut-off times has more than {} rows; give fewer cut-off times, or leave "
                        "out transforms that need all rows",
                        entity(view.entity).name, cutoffs.size(), INT32_MAX));
      to.segments.push_back(static_cast<int64_t>(to.rows.size()));
    }
    to.size = static_cast<int64_t>(to.rows.size());
    for (int64_t i = 0; i < view.size; ++i) {
      const size_t s =
          static_cast<size_t>(std::lower_bound(cutoffs.begin(), cutoffs.end(), view.cutoff(i)) - cutoffs.begin());
      const auto from = to.rows.begin() + to.segments[s], until = to.rows.begin() + to.segments[s + 1];
      link.up.push_back(
          static_cast<int32_t>(std::lower_bound(from, until, view.rows[static_cast<size_t>(i)]) - to.rows.begin()));
    }
    return view.all.get();
  }

  View& follow(View& view, const std::vector<Hop>& path) {
    View* to = &view;
    for (const Hop& hop : path) to = link(*to, hop).to;
    return *to;
  }
  // The rows at the end of the path by row of this view, in order of time.
  const Groups& groups_of(View& view, const std::vector<Hop>& path) {
    if (view.whole && path.size() == 1)
      return entities_.relationships()[static_cast<size_t>(path[0].relationship)].children;
    const auto [found, fresh] = view.groups.try_emplace(path);
    Groups& groups = found->second;
    if (!fresh) return groups;
    std::vector<int32_t> owner;
    View* to = &view;
    for (const Hop& hop : path) {
      View::Link& next = link(*to, hop);
      const std::vector<int32_t>& up = up_of(*to, hop, next);
      if (owner.empty() && to == &view) {
        owner = up;
      } else {
        std::vector<int32_t> further(up.size());
        for (size_t i = 0; i < up.size(); ++i) further[i] = up[i] < 0 ? -1 : owner[static_cast<size_t>(up[i])];
        owner = std::move(further);
      }
      to = next.to;
    }
    groups = group_by(owner, view.size);
    if (!view.whole && path.size() > 1)
      parallel_for(view.size, 64, [&](int64_t begin, int64_t end) {
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
          std::sort(groups.rows.begin() + groups.begin[i], groups.rows.begin() + groups.begin[i + 1],
                    [&](int32_t a, int32_t b) {
                      return to->rows[static_cast<size_t>(a)] < to->rows[static_cast<size_t>(b)];
                    });
      });
    return groups;
  }

  // --- features

  // A use of the feature is over; whole columns that nobody wants any more go.
  void used(View& view, int f) {
    if (f < 0 || !view.whole || options_.rows || !options_.cutoffs.empty()) return;
    if (--uses_[static_cast<size_t>(f)] == 0) view.values.erase(f);
  }

  // Whether the value of a row is the same at each cut-off that it is known at.
  bool is_static(int f) const {
    const Feature& feature = at(f);
    if (options_.window > 0 && feature.kind != Kind::kIdentity) return false;
    switch (feature.kind) {
      case Kind::kIdentity: return true;
      case Kind::kAggregation: return false;
      case Kind::kDirect: {
        const auto& r = entities_.relationships()[static_cast<size_t>(feature.path[0].relationship)];
        return entity(r.parent).times.empty() && is_static(feature.inputs[0]);
      }
      default: break;
    }
    if (feature.use.primitive && (feature.use.primitive->needs_now || !feature.use.primitive->causal)) return false;
    return (feature.group < 0 || is_static(feature.group)) &&
           std::all_of(feature.inputs.begin(), feature.inputs.end(), [&](int i) { return is_static(i); });
  }

  Result<Vector> eval(View& view, int f) {
    if (const auto found = view.values.find(f); found != view.values.end()) return found->second;
    const Feature& feature = at(f);
    Vector result;
    switch (feature.kind) {
      case Kind::kIdentity: {
        DS_ASSIGN(result, identity(view, f));
        break;
      }
      case Kind::kDirect: {
        DS_ASSIGN(result, direct(view, f));
        break;
      }
      case Kind::kEquals: {
        DS_ASSIGN(result, equals(view, f));
        break;
      }
      case Kind::kAggregation: {
        DS_TRY(aggregate(view, f));
        return view.values.at(f);
      }
      default: {
        DS_ASSIGN(result, transform(view, f));
        break;
      }
    }
    view.values[f] = result;
    return result;
  }

  // Text as categories; those are the same in every view.
  Result<Vector> eval_coded(View& view, int f) {
    DS_ASSIGN(const Vector values, eval(view, f));
    if (!values.text) return values;
    const auto [found, fresh] = coded_.try_emplace(f);
    if (fresh) {
      DS_ASSIGN(const Vector all, eval(whole(view.entity), f));
      DS_ASSIGN(found->second, coded(all));
    }
    return view.whole ? found->second : gather(found->second, view.rows, kNan);
  }

  Result<Vector> identity(View& view, int f) {
    const Feature& feature = at(f);
    if (view.whole) return entities_.values(view.entity, feature.field);
    DS_ASSIGN(const Vector values, eval(whole(view.entity), f));
    if (!values.text) return gather(values, view.rows, kNan);
    std::vector<int32_t>& rows = view.text_rows[f];
    rows = view.rows;
    if (values.rows)
      for (int32_t& row : rows) row = values.rows[row];
    Vector result = values;
    result.size = view.size;
    result.rows = rows.data();
    return result;
  }

  Result<Vector> direct(View& view, int f) {
    const Feature& feature = at(f);
    View::Link& parents = link(view, feature.path[0]);
    DS_ASSIGN(const Vector values, eval_coded(*parents.to, feature.inputs[0]));
    Vector result = gather(values, up_of(view, feature.path[0], parents), feature.missing);
    used(*parents.to, feature.inputs[0]);
    return result;
  }

  Result<Vector> equals(View& view, int f) {
    const Feature& feature = at(f);
    DS_ASSIGN(const Vector values, eval(view, feature.inputs[0]));
    double wanted = kNan;
    if (values.words) {
      for (int64_t w = 0; w < values.words->length(); ++w)
        if (values.words->GetView(w) == feature.value) wanted = static_cast<double>(w);
    } else if (const std::string word = lower(feature.value); word == "true" || word == "false") {
      wanted = word == "true" ? 1 : 0;
    } else if (const auto number = parse_number(feature.value)) {
      wanted = *number;
    } else {
      return invalid("where: '{}': '{}' is no {}", feature.name, feature.value,
                     name_of(at(feature.inputs[0]).schema.logical));
    }
    double* out = nullptr;
    Vector result = make_vector(values.size, out);
    for (int64_t i = 0; i < values.size; ++i) out[i] = values[i] == wanted ? 1 : 0;
    used(view, feature.inputs[0]);
    return result;
  }

  // All aggregations of the same rows and values at once, since bringing those together is most of the work.
  Status aggregate(View& view, int f) {
    const Feature& first = at(f);
    std::vector<int> list;
    for (size_t g = 0; g < definitions_.features().size(); ++g) {
      const Feature& other = at(static_cast<int>(g));
      if (other.kind == Kind::kAggregation && other.entity == first.entity && other.path == first.path &&
          other.where == first.where && other.inputs == first.inputs && !view.values.contains(static_cast<int>(g)))
        list.push_back(static_cast<int>(g));
    }
    View& rows = follow(view, first.path);
    const Groups* groups = &groups_of(view, first.path);
    Groups chosen;
    if (first.where >= 0) {
      DS_ASSIGN(const Vector where, eval(rows, first.where));
      chosen.begin = {0};
      for (int64_t i = 0; i < view.size; ++i) {
        for (int64_t k = groups->begin[static_cast<size_t>(i)]; k < groups->begin[static_cast<size_t>(i) + 1]; ++k)
          if (const int32_t row = groups->rows[static_cast<size_t>(k)]; where[row] == 1) chosen.rows.push_back(row);
        chosen.begin.push_back(static_cast<int64_t>(chosen.rows.size()));
      }
      groups = &chosen;
    }
    const bool counts = std::all_of(list.begin(), list.end(), [&](int g) { return at(g).use.primitive->counts_rows; });
    std::vector<Vector> inputs;
    for (const int i : first.inputs) {
      if (counts) break;
      DS_ASSIGN(Vector values, eval_coded(rows, i));
      inputs.push_back(std::move(values));
    }
    std::vector<double*> out(list.size());
    std::vector<Vector> results;
    for (double*& data : out) results.push_back(make_vector(view.size, data));
    const std::vector<double> now = now_of(view, list);
    parallel_for(view.size, 16, [&](int64_t begin, int64_t end) {
      Group group;
      std::vector<double> gathered[2];
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = groups->begin[static_cast<size_t>(i)],
                      n = groups->begin[static_cast<size_t>(i) + 1] - from;
        for (size_t k = 0; k < inputs.size(); ++k) {
          const int32_t* row = groups->rows.data() + from;
          if (n > 0 && row[n - 1] - row[0] == n - 1) {  // they stand together
            group.x[k] = inputs[k].data + row[0];
            continue;
          }
          gathered[k].resize(static_cast<size_t>(n));
          // Rows of one parent lie apart; those of the next parents are fetched meanwhile.
          const int64_t left = static_cast<int64_t>(groups->rows.size()) - from;
          for (int64_t j = 0; j < n; ++j) {
            if (j + kAhead < left) __builtin_prefetch(inputs[k].data + row[j + kAhead]);
            gathered[k][static_cast<size_t>(j)] = inputs[k].data[row[j]];
          }
          group.x[k] = gathered[k].data();
        }
        group.reset(n);
        if (!now.empty()) group.now = now[static_cast<size_t>(i)];
        for (size_t g = 0; g < list.size(); ++g) {
          const Feature& feature = at(list[g]);
          const double value = n == 0 ? kNan : feature.use.primitive->reduce(group, feature.use.arguments.data());
          out[g][i] = std::isnan(value) ? feature.missing : value;
        }
      }
    });
    for (size_t g = 0; g < list.size(); ++g) {
      if (!at(list[g]).use.primitive->output && !inputs.empty()) results[g].words = inputs[0].words;
      view.values[list[g]] = std::move(results[g]);
    }
    for (size_t g = 0; g < list.size(); ++g) {
      for (const int i : first.inputs) used(rows, i);
      used(rows, first.where);
    }
    return {};
  }

  // Cut-offs in microseconds by row, where one of the features needs them.
  std::vector<double> now_of(const View& view, const std::vector<int>& features) const {
    const bool needed =
        std::any_of(features.begin(), features.end(), [&](int f) { return at(f).use.primitive->needs_now; });
    std::vector<double> now;
    for (int64_t i = 0; needed && i < view.size; ++i)
      now.push_back(static_cast<double>(view.whole ? options_.cutoffs[0] : view.cutoff(i)) / 1000);
    return now;
  }

  Result<Vector> transform(View& view, int f) {
    const Feature& feature = at(f);
    const Primitive& p = *feature.use.primitive;
    if (p.ordered && !view.whole) {
      // What does not depend on the cut-off is computed once for the whole table, else for all that is known at each.
      if (is_static(f)) {
        DS_ASSIGN(const Vector values, eval(whole(view.entity), f));
        return gather(values, view.rows, feature.missing);
      }
      if (view.segments.empty()) {
        DS_ASSIGN(View::Link * all, all_known(view));
        DS_ASSIGN(const Vector values, eval(*all->to, f));
        return gather(values, all->up, feature.missing);
      }
    }
    std::vector<Vector> inputs;
    for (const int i : feature.inputs) {
      DS_ASSIGN(Vector values, p.measure ? eval(view, i) : eval_coded(view, i));
      inputs.push_back(std::move(values));
    }
    if (p.compares_words) match_words(inputs);
    double* out = nullptr;
    Vector result = make_vector(view.size, out);
    result.words = p.words.empty() ? p.output ? nullptr : inputs[0].words : words_of(p);
    if (p.measure) {
      measure(inputs[0], p.measure, out);
    } else if (p.ordered) {
      DS_TRY(run_in_order(view, feature, inputs, out));
    } else {
      const std::vector<double> now = now_of(view, {f});
      parallel_for(view.size, kGrain, [&](int64_t begin, int64_t end) {
        Rows rows{.size = end - begin, .arguments = feature.use.arguments.data()};
        for (size_t k = 0; k < inputs.size(); ++k) rows.x[k] = inputs[k].data + begin;
        if (!now.empty()) rows.now = now.data() + begin;
        p.map(rows, out + begin);
      });
    }
    for (const int i : feature.inputs) used(view, i);
    used(view, feature.group);
    return result;
  }

  static void measure(const Vector& text, Measure measure, double* out) {
    if (text.words) {
      std::vector<double> of;
      for (int64_t w = 0; w < text.words->length(); ++w) of.push_back(measure(text.words->GetView(w)));
      for (int64_t i = 0; i < text.size; ++i) out[i] = std::isnan(text[i]) ? kNan : of[static_cast<size_t>(text[i])];
      return;
    }
    parallel_for(text.size, 1 << 10, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = text.rows ? text.rows[i] : i;
        out[i] = row < 0 || text.text->IsNull(row) ? kNan : measure(text.text->GetView(row));
      }
    });
  }

  // Segment by segment, and in each group of rows by group.
  Status run_in_order(View& view, const Feature& feature, const std::vector<Vector>& inputs, double* out) {
    std::vector<int64_t> segments = view.segments;
    if (segments.empty()) segments = {0, view.size};
    const auto run = [&](const double* const* x, int64_t n, double* to) {
      Rows rows{.size = n, .arguments = feature.use.arguments.data()};
      for (size_t k = 0; k < inputs.size(); ++k) rows.x[k] = x[k];
      feature.use.primitive->map(rows, to);
    };
    if (feature.group < 0) {
      parallel_for(static_cast<int64_t>(segments.size()) - 1, 1, [&](int64_t begin, int64_t end) {
        for (auto s = static_cast<size_t>(begin); s < static_cast<size_t>(end); ++s) {
          const double* x[3] = {};
          for (size_t k = 0; k < inputs.size(); ++k) x[k] = inputs[k].data + segments[s];
          run(x, segments[s + 1] - segments[s], out + segments[s]);
        }
      });
      return {};
    }
    DS_ASSIGN(const Vector keys, eval(view, feature.group));
    Numbering numbering(view.size);
    std::vector<int32_t> owner(static_cast<size_t>(view.size));
    for (size_t s = 0; s + 1 < segments.size(); ++s)
      for (int64_t i = segments[s]; i < segments[s + 1]; ++i)
        owner[static_cast<size_t>(i)] = numbering.number(static_cast<int64_t>(s), keys[i]);
    const Groups groups = group_by(owner, numbering.count());
    std::fill(out, out + view.size, feature.missing);  // where the key is missing
    parallel_for(numbering.count(), 64, [&](int64_t begin, int64_t end) {
      std::vector<double> gathered[3], result;
      for (auto g = static_cast<size_t>(begin); g < static_cast<size_t>(end); ++g) {
        const int32_t* row = groups.rows.data() + groups.begin[g];
        const int64_t n = groups.begin[g + 1] - groups.begin[g];
        const double* x[3] = {};
        for (size_t k = 0; k < inputs.size(); ++k) {
          gathered[k].resize(static_cast<size_t>(n));
          for (int64_t j = 0; j < n; ++j) gathered[k][static_cast<size_t>(j)] = inputs[k].data[row[j]];
          x[k] = gathered[k].data();
        }
        result.resize(static_cast<size_t>(n));
        run(x, n, result.data());
        for (int64_t j = 0; j < n; ++j) out[row[j]] = result[static_cast<size_t>(j)];
      }
    });
    return {};
  }

  // The second's categories as numbers of the first's, so that equal words are equal numbers.
  static void match_words(std::vector<Vector>& inputs) {
    Vector &a = inputs[0], &b = inputs[1];
    if (a.words == b.words) return;
    double* out = nullptr;
    Vector matched = make_vector(b.size, out);
    if (!a.words || !b.words) {
      std::fill(out, out + b.size, kNan);  // a word is no number
    } else {
      std::unordered_map<std::string_view, double> number;
      for (int64_t w = 0; w < a.words->length(); ++w) number[a.words->GetView(w)] = static_cast<double>(w);
      std::vector<double> of;
      for (int64_t w = 0; w < b.words->length(); ++w) {
        const auto found = number.find(b.words->GetView(w));
        of.push_back(found == number.end() ? -1 : found->second);
      }
      for (int64_t i = 0; i < b.size; ++i) out[i] = std::isnan(b[i]) ? kNan : of[static_cast<size_t>(b[i])];
    }
    b = matched;
  }

  std::shared_ptr<arrow::StringArray> words_of(const Primitive& p) {
    auto& words = words_[&p];
    if (words) return words;
    arrow::StringBuilder builder;
    std::shared_ptr<arrow::Array> array;
    if (builder.AppendValues(p.words).ok() && builder.Finish(&array).ok())
      words = std::static_pointer_cast<arrow::StringArray>(array);
    return words;
  }

  const Entities& entities_;
  const Definitions& definitions_;
  const ComputeOptions& options_;
  std::vector<std::unique_ptr<View>> wholes_;  // by entity
  std::vector<std::vector<int64_t>> last_times_;
  std::map<int, Vector> coded_;  // text as categories, by feature
  std::vector<int> uses_;
  std::vector<Output> results_;
  std::map<const Primitive*, std::shared_ptr<arrow::StringArray>> words_;
};

}  // namespace

Result<std::vector<Vector>> compute(const Entities& entities, const Definitions& definitions,
                                    const ComputeOptions& options) {
  return Engine(entities, definitions, options).run();
}

}  // namespace deepseek::features
