// Batch norm of all operations that leave a node: statistics, weighted sums of what it makes, and backward.
//
// Of an operation that all edges share z has C channels, of one that each edge has for itself kC.
#include "moments.h"

constexpr int MOST = 8;      // operations
constexpr Size PARTS = 16;   // of the pixels that are summed
constexpr Size CHUNK = 512;  // pixels whose sums are made in the type of the numbers, before they join those in float64
constexpr Size PIXELS = 64;  // that a thread takes at once: what several edges read stays in a cache

// What a batch norm reads, and what it normalises by.
struct Operation {
  Pixels z;
  Norm norm;
};

struct Operations {
  Size per_edge, all;
  Operation each[MOST];
  // Where z has what goes into a column of the sums (k, C), channel `c` of its edge.
  Size channel(Size o, Size column, Size c) const { return o < per_edge ? column : c; }
};

// ---- statistics

struct Statistics {
  Size threads;
  Pixels x;
  Real* statistics;  // mean, variance, 1 / sqrt(variance + eps): (3, C)
  Size pixels, channels;
  double eps;
};

// Mean, and sum of squared differences from it, of a part of the pixels. Around the part's first pixel: squares of
// numbers far from zero would lose what they differ by. Both are zero before.
static void part_statistics(const Statistics& a, Range part, double* means, double* squares) {
  const Real* around = a.x[part.begin];
  for (Size first = part.begin; first < part.end; first += CHUNK) {
    Size last = std::min(part.end, first + CHUNK);
    over_channels(a.channels, [&](auto lanes, Size c) {
      Vector zero = lanes.load(around + c), s0 = {}, s1 = {}, q0 = {}, q1 = {};
      Size p = first;
      for (; p + 1 < last; p += 2) {
        Vector x0 = lanes.load(a.x[p] + c) - zero, x1 = lanes.load(a.x[p + 1] + c) - zero;
        s0 += x0, s1 += x1;
        q0 += x0 * x0, q1 += x1 * x1;
      }
      if (p < last) {
        Vector x = lanes.load(a.x[p] + c) - zero;
        s0 += x, q0 += x * x;
      }
      for (int i = 0; i < lanes.count; ++i) {
        means[c + i] += double(s0[i]) + double(s1[i]);
        squares[c + i] += double(q0[i]) + double(q1[i]);
      }
    });
  }
  double count = double(part.count());
  for (Size c = 0; c < a.channels; ++c) {
    double mean = means[c] / count;
    squares[c] -= mean * mean * count;
    means[c] = double(around[c]) + mean;
  }
}

extern "C" void pvnas_batch_statistics(const Statistics& a) {
  Size parts = std::min(PARTS, a.pixels);
  std::vector<double> moments(parts * 2 * a.channels);
  in_parallel(a.threads, parts, [&](Size part) {
    double* means = moments.data() + part * 2 * a.channels;
    part_statistics(a, Range(a.pixels, parts, part), means, means + a.channels);
  });
  auto count = [&](Size part) { return Range(a.pixels, parts, part).count(); };
  join_moments(moments.data(), parts, a.channels, a.pixels, a.eps, count, a.statistics);
}

// ---- BN alone

struct Normalise {
  Size threads;
  Operation of;
  Real* y;
  Size pixels, channels;
};

extern "C" void pvnas_normalise(const Normalise& a) {
  bool streamed = streams(a.y, a.pixels, {a.channels});
  in_parallel(a.threads, a.pixels, [&](Size p) {
    over_written(streamed, a.channels, [&](auto lanes, Size c) {
      const Norm& norm = a.of.norm;
      Vector y = (lanes.load(a.of.z[p] + c) - lanes.load(norm.mean + c)) * norm.factor(lanes, c);
      lanes.store(a.y + p * a.channels + c, norm.bias ? y + lanes.load(norm.bias + c) : y);
    });
  });
}

// ---- weighted sums

struct AddMixed {
  Size threads;
  Pixels sums;
  const Real* weights;  // (k, O)
  Size weights_row, pixels, channels, edges, begin;
  Scales scales;  // of the first operation; those of the next one lie `clips` numbers behind
  Size clips;
  Operations operations;
};

template <int ALL>
static void add_mixed_pixels(const AddMixed& a, const Real* factors, const Real* shifts, Size first, Size last) {
  Size step = a.edges * a.channels;
  for (Size edge = 0; edge < a.edges; ++edge)
    over_channels(a.channels, [&](auto lanes, Size c) {
      Size column = edge * a.channels + c;
      Pixels z[ALL];
      for (int o = 0; o < ALL; ++o) z[o] = a.operations.each[o].z.from(a.operations.channel(o, column, c));
      for (Size begin = first, end; begin < last; begin = end) {
        end = a.scales.end(begin, last);
        Vector factor[ALL], shift = {};
        for (int o = 0; o < ALL; ++o) {
          Real scale = a.scales[begin + o * a.clips * a.scales.pixels];
          factor[o] = lanes.load(factors + o * step + column) * scale;
          shift += lanes.load(shifts + o * step + column) * scale;
        }
        for (Size p = begin; p < end; ++p) {
          Real* to = a.sums[p] + column;
          Vector total = a.begin ? shift : lanes.load(to) + shift;
          for (int o = 0; o < ALL; ++o) total += lanes.load(z[o][p]) * factor[o];
          lanes.store(to, total);
        }
      }
    });
}

extern "C" void pvnas_add_mixed(const AddMixed& a) {
  Size step = a.edges * a.channels, blocks = (a.pixels + PIXELS - 1) / PIXELS;
  std::vector<Real> factors(a.operations.all * step), shifts(a.operations.all * step);
  for (Size o = 0; o < a.operations.all; ++o)
    for (Size column = 0; column < step; ++column) {
      const Norm& norm = a.operations.each[o].norm;
      Size c = a.operations.channel(o, column, column % a.channels);
      Real weight = a.weights[column / a.channels * a.weights_row + o], factor = weight * norm.inverse[c];
      if (norm.weight) factor *= norm.weight[c];
      factors[o * step + column] = factor;
      shifts[o * step + column] = (norm.bias ? weight * norm.bias[c] : 0) - factor * norm.mean[c];
    }
  in_parallel(a.threads, blocks, [&](Size block) {
    with_constant<MOST>(a.operations.all, [&](auto all) {
      Size first = block * PIXELS;
      add_mixed_pixels<all.value>(a, factors.data(), shifts.data(), first, std::min(a.pixels, first + PIXELS));
    });
  });
}

// ---- sums over pixels of the gradient and of it times BN(z)

struct MixedGradSums {
  Size threads;
  Pixels g;
  Real* sums;  // (1 + O, k, C)
  Size pixels, channels, edges;
  Scales scales;  // of the gradient
  Operations operations;
};

template <int ALL>
static void grad_sums_pixels(const MixedGradSums& a, Size first, Size last, double* sums) {
  Size step = a.edges * a.channels;
  for (Size edge = 0; edge < a.edges; ++edge)
    over_channels(a.channels, [&](auto lanes, Size c) {
      Size column = edge * a.channels + c;
      Pixels z[ALL];
      Vector mean[ALL], product[ALL] = {}, sum = {};
      for (int o = 0; o < ALL; ++o) {
        Size channel = a.operations.channel(o, column, c);
        z[o] = a.operations.each[o].z.from(channel);
        mean[o] = lanes.load(a.operations.each[o].norm.mean + channel);
      }
      for (Size begin = first, end; begin < last; begin = end) {
        end = a.scales.end(begin, last);
        Real scale = a.scales[begin];
        for (Size p = begin; p < end; ++p) {
          Vector g = lanes.load(a.g[p] + column) * scale;
          sum += g;
          for (int o = 0; o < ALL; ++o) product[o] += g * (lanes.load(z[o][p]) - mean[o]);
        }
      }
      for (int i = 0; i < lanes.count; ++i) sums[column + i] += double(sum[i]);
      for (int o = 0; o < ALL; ++o)
        for (int i = 0; i < lanes.count; ++i) sums[(1 + o) * step + column + i] += double(product[o][i]);
    });
}

extern "C" void pvnas_mixed_grad_sums(const MixedGradSums& a) {
  Size step = a.edges * a.channels, numbers = (1 + a.operations.all) * step;
  Size parts = std::min(PARTS, a.pixels);
  std::vector<double> part_sums(parts * numbers);
  in_parallel(a.threads, parts, [&](Size part) {
    double* sums = part_sums.data() + part * numbers;
    Range range(a.pixels, parts, part);
    for (Size first = range.begin; first < range.end; first += PIXELS)
      with_constant<MOST>(a.operations.all, [&](auto all) {
        grad_sums_pixels<all.value>(a, first, std::min(range.end, first + PIXELS), sums);
      });
  });
  for (Size n = 0; n < numbers; ++n) {
    double total = 0;
    for (Size part = 0; part < parts; ++part) total += part_sums[part * numbers + n];
    if (n >= step) {
      Size o = n / step - 1, c = a.operations.channel(o, n % step, n % a.channels);
      total *= double(a.operations.each[o].norm.inverse[c]);
    }
    a.sums[n] = Real(total);
  }
}

// ---- gradients for the batch norms' inputs

// The gradient is g * a + z * b + c, channel by channel: (3, O, k, C). Only the first operations have a BN.
struct GradFactors {
  Size threads;
  const Real *weights, *sums;  // (k, O), (1 + O, k, C) as `mixed_grad_sums` gives them
  Real* factors;
  Size weights_row, pixels, channels, edges, of_batch, normed;
  Operations operations;
};

extern "C" void pvnas_grad_factors(const GradFactors& a) {
  Size step = a.edges * a.channels, all = a.operations.all;
  for (Size o = 0; o < all; ++o)
    for (Size column = 0; column < step; ++column) {
      const Norm& norm = a.operations.each[o].norm;
      Size c = a.operations.channel(o, column, column % a.channels);
      double inverse = norm.inverse[c], scale = a.weights[column / a.channels * a.weights_row + o] * inverse;
      if (norm.weight) scale *= double(norm.weight[c]);
      double slope = 0, shift = 0;
      if (a.of_batch && o < a.normed) {
        slope = -scale * inverse * double(a.sums[(1 + o) * step + column]) / double(a.pixels);
        shift = -scale * double(a.sums[column]) / double(a.pixels) - slope * double(norm.mean[c]);
      }
      a.factors[o * step + column] = Real(scale);
      a.factors[(all + o) * step + column] = Real(slope);
      a.factors[(2 * all + o) * step + column] = Real(shift);
    }
}

struct SharedGrads {
  Size threads;
  Pixels g;
  const Real* factors;
  Size pixels, channels, edges;
  Real* results[MOST];
  Operations operations;
};

// Of operations that all edges share, both poolings and identity: the sum over edges.
extern "C" void pvnas_shared_grads(const SharedGrads& a) {
  Size step = a.edges * a.channels, all = a.operations.all, blocks = (a.pixels + PIXELS - 1) / PIXELS;
  std::vector<Real> factors(a.factors, a.factors + 3 * all * step);
  for (Size o = 0; o < all; ++o)  // z is the same for all edges: so are the slopes and the shifts, summed
    for (Size edge = 1; edge < a.edges; ++edge)
      for (Size c = 0; c < a.channels; ++c)
        for (Size kind = 1; kind < 3; ++kind)
          factors[(kind * all + o) * step + c] += factors[(kind * all + o) * step + edge * a.channels + c];
  in_parallel(a.threads, blocks, [&](Size block) {
    for (Size o = 0; o < all; ++o) {
      const Real* factor = factors.data() + o * step;
      Pixels z = a.operations.each[o].z;
      over_channels(a.channels, [&](auto lanes, Size c) {
        Vector slope = lanes.load(factor + all * step + c), shift = lanes.load(factor + 2 * all * step + c);
        for (Size p = block * PIXELS; p < std::min(a.pixels, (block + 1) * PIXELS); ++p) {
          Vector total = lanes.load(z[p] + c) * slope + shift;
          for (Size column = c; column < step; column += a.channels)
            total += lanes.load(a.g[p] + column) * lanes.load(factor + column);
          lanes.store(a.results[o] + p * a.channels + c, total);
        }
      });
    }
  });
}
