// Batch norm of all operations that leave a node: statistics, weighted sums of what it makes, and backward.
//
// Of an operation that all edges share z has C channels, of one that each edge has for itself kC.
#include "moments.h"

namespace {

constexpr int MOST = 8;      // operations
constexpr Size CHUNK = 512;  // pixels whose sums are made in the type of the numbers, before they join those in float64

// What a batch norm reads, and the mean and the 1 / standard deviation that it normalises by.
template <class T>
struct Operation {
  const T* z;
  Size row;
  const T *mean, *inverse;
};

// ---- statistics

template <class T>
struct Statistics {
  const T* x;
  Size row;
  T* statistics;  // mean, variance, 1 / sqrt(variance + eps): (3, C)
  double* scratch;  // (parts, 2, C)
  Size pixels, channels, parts;
  double eps;
  Size threads;
};

// Mean, and sum of squared differences from it, of a part of the pixels. Around the part's first pixel: squares of
// numbers far from zero would lose what they differ by.
template <class T>
void part_statistics(const Statistics<T>& a, Range part, double* means, double* squares) {
  std::fill_n(means, a.channels, 0.0);
  std::fill_n(squares, a.channels, 0.0);
  const T* at = a.x + part.begin * a.row;
  for (Size first = part.begin; first < part.end; first += CHUNK) {
    Size last = std::min(part.end, first + CHUNK);
    over_channels<T>(a.channels, [&](auto lanes, Size c) {
      Vector<T> zero = lanes.load(at + c), s0 = {}, s1 = {}, q0 = {}, q1 = {};
      Size p = first;
      for (; p + 1 < last; p += 2) {
        Vector<T> x0 = lanes.load(a.x + p * a.row + c) - zero, x1 = lanes.load(a.x + (p + 1) * a.row + c) - zero;
        s0 += x0, s1 += x1;
        q0 += x0 * x0, q1 += x1 * x1;
      }
      if (p < last) {
        Vector<T> x = lanes.load(a.x + p * a.row + c) - zero;
        s0 += x, q0 += x * x;
      }
      for (int i = 0; i < lanes.count; ++i) {
        means[c + i] += double(s0[i]) + double(s1[i]);
        squares[c + i] += double(q0[i]) + double(q1[i]);
      }
    });
  }
  double count = double(part.end - part.begin);
  for (Size c = 0; c < a.channels; ++c) {
    double mean = means[c] / count;
    squares[c] -= mean * mean * count;
    means[c] = double(at[c]) + mean;
  }
}

template <class T>
void batch_statistics(const Statistics<T>& a) {
  in_parallel(a.threads, a.parts, [&](Size part) {
    double* moments = a.scratch + part * 2 * a.channels;
    part_statistics(a, Range(a.pixels, a.parts, part), moments, moments + a.channels);
  });
  auto count = [&](Size part) {
    Range range(a.pixels, a.parts, part);
    return range.end - range.begin;
  };
  join_moments(a.scratch, a.parts, a.channels, a.pixels, a.eps, count, a.statistics);
}

// ---- BN alone

template <class T>
struct Normalise {
  Operation<T> of;
  T* y;
  Size pixels, channels, threads;
};

template <class T>
void normalise(const Normalise<T>& a) {
  bool streamed = streams(a.y, a.pixels, {a.channels});
  in_parallel(a.threads, a.pixels, [&](Size p) {
    over_written<T>(streamed, a.channels, [&](auto lanes, Size c) {
      Vector<T> z = lanes.load(a.of.z + p * a.of.row + c);
      lanes.store(a.y + p * a.channels + c, (z - lanes.load(a.of.mean + c)) * lanes.load(a.of.inverse + c));
    });
  });
}

// ---- weighted sums

template <class T>
struct Operations {
  Size per_edge, all;
  Operation<T> each[MOST];
  inline Size column(Size o, Size edge, Size channels, Size c) const { return o < per_edge ? edge * channels + c : c; }
};

template <class T>
struct AddMixed {
  T* sums;
  Size row;
  const T* weights;  // (k, O)
  Size weights_row, pixels, channels, edges, begin, threads;
  Operations<T> operations;
};

template <class T, int ALL>
void add_mixed_pixels(const AddMixed<T>& a, const T* factors, const T* shifts, Size first, Size last) {
  Size step = a.edges * a.channels;
  for (Size edge = 0; edge < a.edges; ++edge)
    over_channels<T>(a.channels, [&](auto lanes, Size c) {
      Size column = edge * a.channels + c;
      const T* z[ALL];
      Size rows[ALL];
      Vector<T> factor[ALL], shift = lanes.load(shifts + column);
      for (int o = 0; o < ALL; ++o) {
        z[o] = a.operations.each[o].z + a.operations.column(o, edge, a.channels, c);
        rows[o] = a.operations.each[o].row;
        factor[o] = lanes.load(factors + o * step + column);
      }
      for (Size p = first; p < last; ++p) {
        T* to = a.sums + p * a.row + column;
        Vector<T> total = a.begin ? shift : lanes.load(to) + shift;
        for (int o = 0; o < ALL; ++o) total += lanes.load(z[o] + p * rows[o]) * factor[o];
        lanes.store(to, total);
      }
    });
}

// Calls work(std::integral_constant<int, all>).
template <int ALL = MOST, class Work>
inline void with_operations(Size all, Work work) {
  if constexpr (ALL > 0) {
    if (all == ALL)
      work(std::integral_constant<int, ALL>{});
    else
      with_operations<ALL - 1>(all, work);
  }
}

constexpr Size PIXELS = 64;  // that a thread takes at once: what several edges read stays in a cache

template <class T>
void add_mixed(const AddMixed<T>& a) {
  Size step = a.edges * a.channels, blocks = (a.pixels + PIXELS - 1) / PIXELS;
  std::vector<T> factors(a.operations.all * step), shifts(step);
  for (Size o = 0; o < a.operations.all; ++o)
    for (Size column = 0; column < step; ++column) {
      Size at = a.operations.column(o, column / a.channels, a.channels, column % a.channels);
      T factor = a.weights[column / a.channels * a.weights_row + o] * a.operations.each[o].inverse[at];
      factors[o * step + column] = factor;
      shifts[column] -= factor * a.operations.each[o].mean[at];
    }
  in_parallel(a.threads, blocks, [&](Size block) {
    with_operations(a.operations.all, [&](auto all) {
      add_mixed_pixels<T, all.value>(a, factors.data(), shifts.data(), block * PIXELS,
                                      std::min(a.pixels, (block + 1) * PIXELS));
    });
  });
}

// ---- sums over pixels of the gradient and of it times BN(z)

template <class T>
struct MixedGradSums {
  const T* g;
  Size row;
  T* sums;          // (1 + O, k, C)
  double* scratch;  // (parts, 1 + O, k, C)
  Size pixels, channels, edges, parts, threads;
  Operations<T> operations;
};

template <class T, int ALL>
void grad_sums_pixels(const MixedGradSums<T>& a, Size first, Size last, double* sums) {
  Size step = a.edges * a.channels;
  for (Size edge = 0; edge < a.edges; ++edge)
    over_channels<T>(a.channels, [&](auto lanes, Size c) {
      Size column = edge * a.channels + c;
      const T* z[ALL];
      Size rows[ALL];
      Vector<T> mean[ALL], product[ALL] = {}, sum = {};
      for (int o = 0; o < ALL; ++o) {
        Size at = a.operations.column(o, edge, a.channels, c);
        z[o] = a.operations.each[o].z + at;
        rows[o] = a.operations.each[o].row;
        mean[o] = lanes.load(a.operations.each[o].mean + at);
      }
      for (Size p = first; p < last; ++p) {
        Vector<T> g = lanes.load(a.g + p * a.row + column);
        sum += g;
        for (int o = 0; o < ALL; ++o) product[o] += g * (lanes.load(z[o] + p * rows[o]) - mean[o]);
      }
      for (int i = 0; i < lanes.count; ++i) sums[column + i] += double(sum[i]);
      for (int o = 0; o < ALL; ++o)
        for (int i = 0; i < lanes.count; ++i) sums[(1 + o) * step + column + i] += double(product[o][i]);
    });
}

template <class T>
void mixed_grad_sums(const MixedGradSums<T>& a) {
  Size step = a.edges * a.channels, numbers = (1 + a.operations.all) * step;
  in_parallel(a.threads, a.parts, [&](Size part) {
    double* sums = a.scratch + part * numbers;
    std::fill_n(sums, numbers, 0.0);
    Range range(a.pixels, a.parts, part);
    for (Size first = range.begin; first < range.end; first += PIXELS)
      with_operations(a.operations.all, [&](auto all) {
        grad_sums_pixels<T, all.value>(a, first, std::min(range.end, first + PIXELS), sums);
      });
  });
  for (Size n = 0; n < numbers; ++n) {
    double total = 0;
    for (Size part = 0; part < a.parts; ++part) total += a.scratch[part * numbers + n];
    if (n >= step) {
      Size o = n / step - 1, column = n % step;
      total *= double(a.operations.each[o].inverse[a.operations.column(o, column / a.channels, a.channels,
                                                                       column % a.channels)]);
    }
    a.sums[n] = T(total);
  }
}

// ---- gradients for the batch norms' inputs

// The gradient is g * a + z * b + c, channel by channel: (3, O, k, C). Only the first operations have a BN.
template <class T>
struct GradFactors {
  const T *weights, *sums;  // (k, O), (1 + O, k, C) as `mixed_grad_sums` gives them
  T* factors;
  Size weights_row, pixels, channels, edges, of_batch, normed;
  Operations<T> operations;
};

template <class T>
void grad_factors(const GradFactors<T>& a) {
  Size step = a.edges * a.channels, all = a.operations.all;
  for (Size o = 0; o < all; ++o)
    for (Size column = 0; column < step; ++column) {
      const auto& of = a.operations.each[o];
      Size at = a.operations.column(o, column / a.channels, a.channels, column % a.channels);
      double inverse = of.inverse[at], scale = a.weights[column / a.channels * a.weights_row + o] * inverse;
      double slope = 0, shift = 0;
      if (a.of_batch && o < a.normed) {
        slope = -scale * inverse * double(a.sums[(1 + o) * step + column]) / double(a.pixels);
        shift = -scale * double(a.sums[column]) / double(a.pixels) - slope * double(of.mean[at]);
      }
      a.factors[o * step + column] = T(scale);
      a.factors[(all + o) * step + column] = T(slope);
      a.factors[(2 * all + o) * step + column] = T(shift);
    }
}

template <class T>
struct SharedGrads {
  const T* g;
  Size row;
  const T* factors;
  Size pixels, channels, edges, threads;
  T* results[MOST];
  Operations<T> operations;
};

// Of operations that all edges share, both poolings and identity: the sum over edges.
template <class T>
void shared_grads(const SharedGrads<T>& a) {
  Size step = a.edges * a.channels, all = a.operations.all, blocks = (a.pixels + PIXELS - 1) / PIXELS;
  std::vector<T> factors(a.factors, a.factors + 3 * all * step);
  for (Size o = 0; o < all; ++o)  // z is the same for all edges: so are the slopes and the shifts, summed
    for (Size edge = 1; edge < a.edges; ++edge)
      for (Size c = 0; c < a.channels; ++c)
        for (Size kind = 1; kind < 3; ++kind)
          factors[(kind * all + o) * step + c] += factors[(kind * all + o) * step + edge * a.channels + c];
  in_parallel(a.threads, blocks, [&](Size block) {
    for (Size o = 0; o < all; ++o) {
      const T *factor = factors.data() + o * step, *z = a.operations.each[o].z;
      Size row = a.operations.each[o].row;
      over_channels<T>(a.channels, [&](auto lanes, Size c) {
        Vector<T> slope = lanes.load(factor + all * step + c), shift = lanes.load(factor + 2 * all * step + c);
        for (Size p = block * PIXELS; p < std::min(a.pixels, (block + 1) * PIXELS); ++p) {
          Vector<T> total = lanes.load(z + p * row + c) * slope + shift;
          for (Size column = c; column < step; column += a.channels)
            total += lanes.load(a.g + p * a.row + column) * lanes.load(factor + column);
          lanes.store(a.results[o] + p * a.channels + c, total);
        }
      });
    }
  });
}

}  // namespace

EXPORT(batch_statistics, Statistics)
EXPORT(normalise, Normalise)
EXPORT(add_mixed, AddMixed)
EXPORT(mixed_grad_sums, MixedGradSums)
EXPORT(grad_factors, GradFactors)
EXPORT(shared_grads, SharedGrads)
