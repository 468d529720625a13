// Optical flow of pairs of frames, step by step as data/clips/optical_flow.py has it: each pair in a core's caches.
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "vectors.h"

struct OpticalFlow {
  Size threads;
  const Real *now, *later;
  Real* flow;
  Size pairs, h, w, levels, iterations, window, smooth;
  double flat, largest_step;
  Size steady;
};

static constexpr int BUCKETS = 1024;  // of the range of a frame's flow

// A picture of one channel, rows one after another.
struct Plane {
  Size h, w;
  std::unique_ptr<Real[]> values;
  Plane(Size h, Size w) : h(h), w(w), values(new Real[h * w]) {}
  Real* operator[](Size row) const { return values.get() + row * w; }
  Real* all() const { return values.get(); }
  Size size() const { return h * w; }
};

// Means over squares of `side` pixels, at the borders over what there is of them.
static void means(const Plane& x, const Plane& y, Size side) {
  const Size r = side / 2;
  Plane lines(x.h, x.w);
  std::vector<Real> padded(x.w + 2 * r, Real(0)), shares(x.w);
  for (Size j = 0; j < x.w; ++j) shares[j] = Real(1) / (std::min(j + r, x.w - 1) - std::max(j - r, Size(0)) + 1);
  for (Size i = 0; i < x.h; ++i) {
    std::copy_n(x[i], x.w, padded.data() + r);
    over_channels(x.w, [&](auto lanes, Size j) {
      Vector sum = lanes.load(padded.data() + j);
      for (Size k = 1; k <= 2 * r; ++k) sum += lanes.load(padded.data() + j + k);
      lanes.store(lines[i] + j, sum * lanes.load(shares.data() + j));
    });
  }
  for (Size i = 0; i < x.h; ++i) {
    const Size first = std::max(i - r, Size(0)), last = std::min(i + r, x.h - 1);
    over_channels(x.w, [&](auto lanes, Size j) {
      Vector sum = lanes.load(lines[first] + j);
      for (Size k = first + 1; k <= last; ++k) sum += lanes.load(lines[k] + j);
      lanes.store(y[i] + j, sum * (Real(1) / (last - first + 1)));
    });
  }
}

// Every 2x2 pixels become one.
static void halve(const Plane& x, const Plane& y) {
  for (Size i = 0; i < y.h; ++i)
    for (Size j = 0; j < y.w; ++j) {
      const Real *above = x[2 * i] + 2 * j, *below = x[2 * i + 1] + 2 * j;
      y[i][j] = (above[0] + above[1] + below[0] + below[1]) / 4;
    }
}

// A place between pixels of a line: its pixel, the next one, and the share of that.
struct Between {
  Size pixel, next;
  Real share;
  Between(Real place, Size length) {
    place = std::min(std::max(place, Real(0)), Real(length - 1));
    pixel = Size(place);
    next = std::min(pixel + 1, length - 1);
    share = place - pixel;
  }
};

static inline Real sampled(const Plane& x, Between row, Between column) {
  const Real *above = x[row.pixel], *below = x[row.next];
  const Real a = above[column.pixel] + column.share * (above[column.next] - above[column.pixel]);
  const Real b = below[column.pixel] + column.share * (below[column.next] - below[column.pixel]);
  return a + row.share * (b - a);
}

// The flow of a coarser level, in pixels of this one.
static void enlarge(const Plane& x, const Plane& y) {
  std::vector<Between> columns;
  for (Size j = 0; j < y.w; ++j) columns.emplace_back((j + Real(0.5)) * (Real(x.w) / y.w) - Real(0.5), x.w);
  for (Size i = 0; i < y.h; ++i) {
    const Between row((i + Real(0.5)) * (Real(x.h) / y.h) - Real(0.5), x.h);
    for (Size j = 0; j < y.w; ++j) y[i][j] = 2 * sampled(x, row, columns[j]);
  }
}

// Steps of Gauss and Newton on one level: [xx xy; xy yy] step = -[xt; yt].
static void refine(const OpticalFlow& a, const Plane& now, const Plane& later, const Plane& u, const Plane& v) {
  const Size h = now.h, w = now.w;
  Plane gx(h, w), gy(h, w), xx(h, w), xy(h, w), yy(h, w), xt(h, w), yt(h, w), scratch(h, w);
  for (Size i = 0; i < h; ++i) {
    const Real *above = now[std::max(i - 1, Size(0))], *below = now[std::min(i + 1, h - 1)];
    for (Size j = 0; j < w; ++j) gy[i][j] = (below[j] - above[j]) / 2;
    for (Size j = 0; j < w; ++j)
      gx[i][j] = (now[i][std::min(j + 1, w - 1)] - now[i][std::max(j - 1, Size(0))]) / 2;
  }
  const auto window = [&](const Plane& first, const Plane& second, const Plane& to) {
    for (Size k = 0; k < first.size(); ++k) scratch.all()[k] = first.all()[k] * second.all()[k];
    means(scratch, to, a.window);
  };
  window(gx, gx, xx), window(gx, gy, xy), window(gy, gy, yy);
  const Real flat = a.flat, most = a.largest_step;
  for (Size k = 0; k < xx.size(); ++k) xx.all()[k] += flat, yy.all()[k] += flat;
  Plane change(h, w);
  for (Size iteration = 0; iteration < a.iterations; ++iteration) {
    for (Size i = 0; i < h; ++i)
      for (Size j = 0; j < w; ++j)
        change[i][j] = sampled(later, Between(i + v[i][j], h), Between(j + u[i][j], w)) - now[i][j];
    window(gx, change, xt), window(gy, change, yt);
    for (Size k = 0; k < xx.size(); ++k) {
      const Real fxx = xx.all()[k], fxy = xy.all()[k], fyy = yy.all()[k], fxt = xt.all()[k], fyt = yt.all()[k];
      const Real determinant = fxx * fyy - fxy * fxy;
      const Real du = (fxy * fyt - fyy * fxt) / determinant, dv = (fxy * fxt - fxx * fyt) / determinant;
      u.all()[k] += std::min(std::max(du, -most), most);
      v.all()[k] += std::min(std::max(dv, -most), most);
    }
  }
}

// The flow (u to the right, v down) from `now` to `later`, whose level is this; `below`: how many coarser ones may be.
static void flow_of(const OpticalFlow& a, const Plane& now, const Plane& later, Size below, const Plane& u,
                    const Plane& v) {
  const Size h = now.h, w = now.w;
  if (below > 0 && std::min(h, w) >= 2 * a.window) {
    Plane small_now(h / 2, w / 2), small_later(h / 2, w / 2), small_u(h / 2, w / 2), small_v(h / 2, w / 2);
    halve(now, small_now), halve(later, small_later);
    flow_of(a, small_now, small_later, below - 1, small_u, small_v);
    enlarge(small_u, u), enlarge(small_v, v);
  } else {
    std::fill_n(u.all(), h * w, Real(0)), std::fill_n(v.all(), h * w, Real(0));
  }
  Plane once(h, w), smooth_now(h, w), smooth_later(h, w);
  means(now, once, a.smooth), means(once, smooth_now, a.smooth);
  means(later, once, a.smooth), means(once, smooth_later, a.smooth);
  refine(a, smooth_now, smooth_later, u, v);
}

// The lower median, exactly: of the values in the bucket that holds it, the buckets being parts of their range.
static Real median(const Plane& x) {
  const Size n = x.size(), rank = (n - 1) / 2;
  Real lowest = x.all()[0], highest = lowest;
  bool numbers = true;
  for (Size k = 0; k < n; ++k) {
    const Real value = x.all()[k];
    lowest = std::min(lowest, value), highest = std::max(highest, value);
    numbers &= value == value;
  }
  if (!numbers) return std::numeric_limits<Real>::quiet_NaN();
  const Real scale = (BUCKETS - 1) / (highest - lowest);
  if (!std::isfinite(scale)) {  // all of them (nearly) the same, or infinite
    std::vector<Real> values(x.all(), x.all() + n);
    std::nth_element(values.begin(), values.begin() + rank, values.end());
    return values[rank];
  }
  std::array<Size, BUCKETS> counts{};
  std::vector<int> buckets(n);
  for (Size k = 0; k < n; ++k) buckets[k] = int((x.all()[k] - lowest) * scale);  // never falls where values rise
  for (Size k = 0; k < n; ++k) ++counts[buckets[k]];
  Size before = 0;
  int bucket = 0;
  while (before + counts[bucket] <= rank) before += counts[bucket++];
  std::vector<Real> values;
  values.reserve(counts[bucket]);
  for (Size k = 0; k < n; ++k)
    if (buckets[k] == bucket) values.push_back(x.all()[k]);
  std::nth_element(values.begin(), values.begin() + (rank - before), values.end());
  return values[rank - before];
}

extern "C" void pvnas_optical_flow(const OpticalFlow& a) {
  in_parallel(a.threads, a.pairs, [&](Size pair) {
    const Size pixels = a.h * a.w;
    Plane now(a.h, a.w), later(a.h, a.w), u(a.h, a.w), v(a.h, a.w);
    std::copy_n(a.now + pair * pixels, pixels, now.all());
    std::copy_n(a.later + pair * pixels, pixels, later.all());
    flow_of(a, now, later, a.levels - 1, u, v);
    means(u, now, a.smooth), means(v, later, a.smooth);
    Real* to = a.flow + 2 * pair * pixels;
    for (const Plane* part : {&now, &later}) {
      const Real camera = a.steady ? median(*part) : Real(0);
      for (Size k = 0; k < pixels; ++k) *to++ = part->all()[k] - camera;
    }
  });
}
