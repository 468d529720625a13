// Convolutions 1x1x1 and 3x1x1 of several edges as matrix products over channels, forward and backward.
//
// A tile of some pixels times one or two vectors of channels is held in registers while the product runs. It reads and
// writes small copies: memory is read best row by row, and rows a power of two apart share a few sets of the first
// cache.
#include "moments.h"
#include "stencils.h"

namespace {

// Rows of a tile of one or of two vectors: as many as registers hold, and eight sums at least, since one waits for its
// last addition that long.
#ifdef WIDE
template <int VECTORS>
constexpr int ROWS = 12;
#else
template <int VECTORS>
constexpr int ROWS = 12 / VECTORS;
#endif
constexpr int MOST_ROWS = 12;
constexpr Size CHUNK = 96;  // pixels that a thread takes at once: with 64 channels they stay in the first cache

template <class T>
constexpr int columns() {
  return 2 * Types<T>::lanes;
}

// Calls work(std::integral_constant<int, vectors>) with the vectors that a tile of so many columns needs.
template <class T, class Work>
inline void with_vectors(Size left, Work work) {
  if (left > Types<T>::lanes)
    work(std::integral_constant<int, 2>{});
  else
    work(std::integral_constant<int, 1>{});
}

// Calls work(std::integral_constant<int, rows>) with 1 to MOST rows.
template <int MOST, class Work>
inline void with_rows(Size rows, Work work) {
  if constexpr (MOST > 0) {
    if (rows >= MOST)
      work(std::integral_constant<int, MOST>{});
    else
      with_rows<MOST - 1>(rows, work);
  }
}

// Some pixels of one frame, or of all frames where a product has one tap in time. Whole lines of so many pixels where
// `line` is given.
struct Chunks {
  Size frame, each, in_frame, all;
  Chunks(Size pixels, Size frame_, bool in_time, Size line) : frame(in_time ? frame_ : pixels) {
    in_frame = std::max<Size>(1, (frame + CHUNK - 1) / CHUNK);
    each = ((frame + in_frame - 1) / in_frame + MOST_ROWS - 1) / MOST_ROWS * MOST_ROWS;
    if (line) each = std::max<Size>(1, (CHUNK + line / 2) / line) * line;
    in_frame = (frame + each - 1) / each;
    all = pixels / frame * in_frame;
  }
  Size begin(Size chunk) const { return chunk / in_frame * frame + chunk % in_frame * each; }
  Size count(Size chunk) const { return std::min(each, frame - chunk % in_frame * each); }
  Size time(Size chunk) const { return chunk / in_frame; }
};

// What is read: x; or where z is given, the gradient for the input z of a batch norm, x * factors[0] + z * factors[1] +
// factors[2] with factors for each channel; or where taps are given, a depthwise convolution of x.
template <class T>
struct Read {
  const T* x;
  Size row;
  const T* z;
  Size z_row;
  const T* factors;
  Size factors_step;
  Depthwise<T> depthwise;
};

// Whole rows of pictures that a depthwise convolution makes.
template <class T>
void convolve_rows(const Read<T>& from, Size first, Size channel, Size rows, Size columns, T* to, Size to_row) {
  const Depthwise<T>& a = from.depthwise;
  for (Size r = first / a.w_out; r < (first + rows) / a.w_out; ++r, to += a.w_out * to_row) {
    if (a.mean)
      depthwise_row<T, NORM_RELU>(a, from.x, from.row, r, channel, columns, to, to_row);
    else
      depthwise_row<T, RELU>(a, from.x, from.row, r, channel, columns, to, to_row);
  }
}

// Pixels [first, first + rows) of some channels one behind the other, through a ReLU as asked.
template <class T>
void copy_rows(const Read<T>& from, Size first, Size channel, Size rows, Size columns, T* to, Size to_row,
               bool with_relu) {
  if (from.depthwise.taps) return convolve_rows(from, first, channel, rows, columns, to, to_row);
  const T* x = from.x + first * from.row + channel;
  auto over_rows = [&](auto value) {
    for (Size r = 0; r < rows; ++r)
      over_channels<T>(columns, [&](auto lanes, Size c) { lanes.store(to + r * to_row + c, value(lanes, r, c)); });
  };
  if (from.z) {
    const T *z = from.z + first * from.z_row + channel, *factor = from.factors + channel;
    over_rows([&](auto lanes, Size r, Size c) {
      return lanes.load(x + r * from.row + c) * lanes.load(factor + c) +
             (lanes.load(z + r * from.z_row + c) * lanes.load(factor + from.factors_step + c) +
              lanes.load(factor + 2 * from.factors_step + c));
    });
  } else if (with_relu) {
    over_rows([&](auto lanes, Size r, Size c) { return relu<T>(lanes.load(x + r * from.row + c)); });
  } else {
    over_rows([&](auto lanes, Size r, Size c) { return lanes.load(x + r * from.row + c); });
  }
}

// ---- y = x W

// Of edges, in `runs` of which `summed` are summed, as they lie.
template <class T>
struct Kernels {
  const T* kernel;
  Size k_edge, k_from, k_to, k_tap, n_from, n_to, runs, summed, taps;
};

template <class T>
struct ChannelConv : Kernels<T> {
  const T* laid_out;  // these kernels as `lay_out` wrote them; if not given, it is called
  Read<T> x;
  Size x_edge;
  T* y;
  Size y_row, y_edge, pixels, frame, frames, sign, relu;
  const T* bias;  // of each column, if any
  Size add;       // to what y holds
  T* statistics;  // mean, variance and 1 / sqrt(variance + eps) of y, (3, kB), if asked for
  double eps;
  Size threads;
};

// Of the weights of a tile of so many columns.
template <class T>
inline Size width_of(Size left) {
  return left > Types<T>::lanes ? columns<T>() : Types<T>::lanes;
}

template <class T>
struct LayOut : Kernels<T> {
  T* to;
  Size threads;
};

template <class T>
Size laid_out_size(const Kernels<T>& a) {
  return a.runs * ((a.n_to + columns<T>() - 1) / columns<T>()) * a.summed * a.taps * a.n_from * columns<T>();
}

// Weights in the order in which a tile reads them: by run, by columns, by edge, by tap, by channel that enters.
template <class T>
void lay_out(const LayOut<T>& a) {
  constexpr int N = columns<T>();
  Size blocks = (a.n_to + N - 1) / N, all = a.runs * blocks * a.summed * a.taps;
#pragma omp parallel for num_threads(a.threads) schedule(static) if (laid_out_size<T>(a) > 65536)
  for (Size panel = 0; panel < all; ++panel) {
    Size tap = panel % a.taps, edge = panel / a.taps % a.summed, block = panel / (a.taps * a.summed) % blocks;
    Size run = panel / (a.taps * a.summed * blocks), n = std::min<Size>(N, a.n_to - block * N);
    Size width = width_of<T>(n);
    const T* from = a.kernel + (run + edge) * a.k_edge + tap * a.k_tap + block * N * a.k_to;
    T* to = a.to + panel * a.n_from * N;
    if (a.k_from == 1 || n < N) {  // column by column, as they lie
      for (Size first = 0; first < a.n_from; first += 16)  // a few rows that stay in the first cache
        for (Size i = 0; i < n; ++i)
          for (Size c = first; c < std::min(a.n_from, first + 16); ++c)
            to[c * width + i] = from[i * a.k_to + c * a.k_from];
    } else {
      for (Size c = 0; c < a.n_from; ++c)
        for (Size i = 0; i < N; ++i) to[c * width + i] = from[i * a.k_to + c * a.k_from];
    }
  }
}

constexpr Size DEPTH = 256;  // channels whose weights stay in the first cache while all tiles of a chunk meet them

// Rows of some channels of the input and the weights that they meet.
template <class T>
struct Segment {
  const T *x, *weights;
  Size channels;
};

// Adds to y, or begins it.
template <class T, int VECTORS, int R>
inline void multiply_tile(const Segment<T>& segment, Size first_row, Size x_row, T* y, Size y_row, bool begin) {
  constexpr int L = Types<T>::lanes;
  Vector<T> sums[VECTORS][R] = {};
  if (!begin)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) sums[v][r] = Whole<T>::load(y + r * y_row + v * L);
  const T *x = segment.x + first_row * x_row, *weights = segment.weights;
  for (Size c = 0; c < segment.channels; ++c, weights += VECTORS * L) {
    Vector<T> w[VECTORS];
    for (int v = 0; v < VECTORS; ++v) w[v] = Whole<T>::load(weights + v * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      T value = x[r * x_row + c];
      for (int v = 0; v < VECTORS; ++v) sums[v][r] += value * w[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) Whole<T>::store(y + r * y_row + v * L, sums[v][r]);
}

// Rows of a copy to y.
template <class T>
void write_rows(const ChannelConv<T>& a, const T* from, Size from_row, Size first, Size rows, Size run, bool streamed) {
  T* to = a.y + first * a.y_row + run * a.y_edge;
  for (Size r = 0; r < rows; ++r, from += from_row, to += a.y_row)
    over_written<T>(streamed, a.n_to, [&](auto lanes, Size c) {
      Vector<T> v = lanes.load(from + c);
      if (a.bias) v += lanes.load(a.bias + run * a.n_to + c);
      if (a.add) v += lanes.load(to + c);
      lanes.store(to + c, v);
    });
}

// Mean, and sum of squared differences from it, of rows of a copy.
template <class T>
void moments_of_rows(const T* from, Size from_row, Size rows, Size columns, T* means, T* squares) {
  constexpr int EACH = 4;  // sums, which do not wait for each other
  over_channels<T>(columns, [&](auto lanes, Size c) {
    auto sum = [&](auto term) {
      Vector<T> sums[EACH] = {};
      for (Size r = 0; r < rows; r += EACH)
        for (Size i = 0; i < EACH && r + i < rows; ++i) sums[i] += term(lanes.load(from + (r + i) * from_row + c));
      return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    };
    Vector<T> mean = sum([](Vector<T> x) { return x; }) * (T(1) / T(rows));
    lanes.store(means + c, mean);
    lanes.store(squares + c, sum([&](Vector<T> x) { return (x - mean) * (x - mean); }));
  });
}

// What a thread needs to go through its chunks.
template <class T>
struct Scratch {
  std::vector<T> read, made;
  std::vector<Segment<T>> segments;
  Size made_row;
  Scratch(const ChannelConv<T>& a, Size rows, Size blocks)
      : read(a.summed * a.taps * rows * a.n_from), made_row((blocks + 1) * columns<T>()) {
    made.resize(rows * made_row);
  }
};

// Gathers what the tiles of one block of columns multiply. Rows are copied once for all columns, and for all edges
// where they share what they read.
template <class T>
void gather(const ChannelConv<T>& a, const Chunks& chunks, Size chunk, Size run, Size block, const T* weights,
            Scratch<T>& scratch) {
  Size time = chunks.time(chunk) % a.frames, width = width_of<T>(a.n_to - block * columns<T>());
  scratch.segments.clear();
  for (Size edge = 0; edge < a.summed; ++edge)
    for (Size tap = 0; tap < a.taps; ++tap) {
      Size shift = a.taps > 1 ? a.sign * (tap - a.taps / 2) : 0, number = edge * a.taps + tap;
      if (a.taps > 1 && (time + shift < 0 || time + shift >= a.frames)) continue;
      T* copy = scratch.read.data() + number * chunks.each * a.n_from;
      if (block == 0 && (run == 0 || a.x_edge))
        copy_rows(a.x, chunks.begin(chunk) + shift * a.frame, (run + edge) * a.x_edge, chunks.count(chunk), a.n_from,
                  copy, a.n_from, a.relu);
      for (Size c = 0; c < a.n_from; c += DEPTH)
        scratch.segments.push_back({copy + c, weights + number * a.n_from * columns<T>() + c * width,
                                 std::min(DEPTH, a.n_from - c)});
    }
}

// All tiles of one block of columns.
template <class T>
void multiply_block(const ChannelConv<T>& a, Size rows, Size block, Scratch<T>& scratch) {
  with_vectors<T>(a.n_to - block * columns<T>(), [&](auto vectors) {
    constexpr int V = vectors.value;
    for (const auto& segment : scratch.segments)
      for (Size r = 0; r < rows; r += ROWS<V>)
        with_rows<ROWS<V>>(rows - r, [&](auto R) {
          T* y = scratch.made.data() + r * scratch.made_row + block * columns<T>();
          bool begin = &segment == scratch.segments.data();
          multiply_tile<T, V, R.value>(segment, r, a.n_from, y, scratch.made_row, begin);
        });
  });
}

// A block of columns after the other, so that their weights stay in a cache, then all of them to y.
template <class T>
void channel_conv(const ChannelConv<T>& a) {
  std::vector<T> panels;
  const T* weights = a.laid_out;
  if (!weights) {
    panels.resize(laid_out_size<T>(a));
    lay_out(LayOut<T>{a, panels.data(), a.threads});
    weights = panels.data();
  }
  Chunks chunks(a.pixels, a.frame, a.taps > 1, a.x.depthwise.w_out);
  Size blocks = (a.n_to + columns<T>() - 1) / columns<T>(), panel = a.summed * a.taps * a.n_from * columns<T>();
  bool streamed = !a.add && streams(a.y, a.pixels, {a.y_row, a.y_edge, a.n_to});
  Size channels = a.runs * a.n_to;
  std::vector<T> moments(a.statistics ? chunks.all * 2 * channels : 0);
#pragma omp parallel num_threads(a.threads)
  {
    Scratch<T> scratch(a, chunks.each, blocks);
#pragma omp for schedule(static) nowait
    for (Size chunk = 0; chunk < chunks.all; ++chunk)
      for (Size run = 0; run < a.runs; ++run) {
        for (Size block = 0; block < blocks; ++block) {
          gather(a, chunks, chunk, run, block, weights + (run * blocks + block) * panel, scratch);
          multiply_block(a, chunks.count(chunk), block, scratch);
        }
        write_rows(a, scratch.made.data(), scratch.made_row, chunks.begin(chunk), chunks.count(chunk), run, streamed);
        if (a.statistics) {
          T* means = moments.data() + chunk * 2 * channels + run * a.n_to;
          moments_of_rows(scratch.made.data(), scratch.made_row, chunks.count(chunk), a.n_to, means, means + channels);
        }
      }
    streams_end();
  }
  auto count = [&](Size chunk) { return chunks.count(chunk); };
  if (a.statistics) join_moments(moments.data(), chunks.all, channels, a.pixels, a.eps, count, a.statistics);
}

// ---- gradient of the kernels: g' x

template <class T>
struct ChannelConvKernelGrad {
  Read<T> g;
  Size g_edge;
  Read<T> x;
  Size x_edge;
  T* sums;  // (k, B, A, t)
  Size pixels, frame, frames, n_b, n_a, edges, taps, relu, parts, threads;
};

// Adds to R rows of the sums, held in registers, what some pixels give.
template <class T, int VECTORS, int R>
inline void correlate_tile(const T* g, Size g_row, const T* x, Size x_row, Size pixels, T* sums, Size sums_row) {
  constexpr int L = Types<T>::lanes;
  Vector<T> total[VECTORS][R];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) total[v][r] = Whole<T>::load(sums + r * sums_row + v * L);
  for (Size p = 0; p < pixels; ++p, g += g_row, x += x_row) {
    Vector<T> values[VECTORS];
    for (int v = 0; v < VECTORS; ++v) values[v] = Whole<T>::load(x + v * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) total[v][r] += g[r] * values[v];
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) Whole<T>::store(sums + r * sums_row + v * L, total[v][r]);
}

template <class T>
void channel_conv_kernel_grad(const ChannelConvKernelGrad<T>& a) {
  constexpr int N = columns<T>(), L = Types<T>::lanes;
  Chunks chunks(a.pixels, a.frame, a.taps > 1, a.x.depthwise.w_out);
  Size wide = (a.n_a + L - 1) / L * L, of_tap = a.n_b * wide, of_edge = a.taps * of_tap;
  std::vector<T> part_sums(a.parts * a.edges * of_edge);
#pragma omp parallel num_threads(a.threads)
  {
    // Rows are a little apart: a power of two apart they would share a few sets of the first cache.
    Size x_row = wide + L, g_row = (a.n_b + L - 1) / L * L + L;
    std::vector<T> x(chunks.each * x_row), g(chunks.each * g_row);
#pragma omp for collapse(2) schedule(static)
    for (Size part = 0; part < a.parts; ++part)
      for (Size edge = 0; edge < a.edges; ++edge) {
        Range range(chunks.all, a.parts, part);
        for (Size chunk = range.begin; chunk < range.end; ++chunk) {
          Size begin = chunks.begin(chunk), rows = chunks.count(chunk), time = chunks.time(chunk) % a.frames;
          copy_rows(a.g, begin, edge * a.g_edge, rows, a.n_b, g.data(), g_row, false);
          for (Size tap = 0; tap < a.taps; ++tap) {
            Size shift = a.taps > 1 ? tap - a.taps / 2 : 0;
            if (a.taps > 1 && (time + shift < 0 || time + shift >= a.frames)) continue;
            copy_rows(a.x, begin + shift * a.frame, edge * a.x_edge, rows, a.n_a, x.data(), x_row, a.relu);
            T* sums = part_sums.data() + (part * a.edges + edge) * of_edge + tap * of_tap;
            for (Size n = 0; n < a.n_a; n += N)
              with_vectors<T>(a.n_a - n, [&](auto vectors) {
                constexpr int V = vectors.value;
                for (Size b = 0; b < a.n_b; b += ROWS<V>)
                  with_rows<ROWS<V>>(a.n_b - b, [&](auto R) {
                    correlate_tile<T, V, R.value>(g.data() + b, g_row, x.data() + n, x_row, rows, sums + b * wide + n,
                                                  wide);
                  });
              });
          }
        }
      }
#pragma omp for schedule(static)
    for (Size row = 0; row < a.edges * a.n_b; ++row) {
      Size edge = row / a.n_b, b = row % a.n_b;
      for (Size tap = 0; tap < a.taps; ++tap)
        for (Size n = 0; n < a.n_a; ++n) {
          T total = 0;
          for (Size part = 0; part < a.parts; ++part)
            total += part_sums[(part * a.edges + edge) * of_edge + tap * of_tap + b * wide + n];
          a.sums[(row * a.n_a + n) * a.taps + tap] = total;
        }
    }
  }
}

}  // namespace

EXPORT(lay_out, LayOut)
EXPORT(channel_conv, ChannelConv)
EXPORT(channel_conv_kernel_grad, ChannelConvKernelGrad)
