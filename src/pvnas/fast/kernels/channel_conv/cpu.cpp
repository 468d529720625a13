// Convolutions 1x1x1 and 3x1x1 of several edges as matrix products over channels, forward and backward.
//
// A tile of some pixels times one or two vectors of channels is held in registers while the product runs. It reads and
// writes small copies: memory is read best row by row, and rows a power of two apart share a few sets of the first
// cache.
#include "moments.h"
#include "products.h"
#include "stencils.h"
#include "winograd.h"

constexpr Size CHUNK = 96;  // pixels that a thread takes at once: with 64 channels they stay in the first cache

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

// What is read: x; or where z is given, the gradient for the input z of a batch norm, x * scale * factors[0] + z *
// factors[1] + factors[2] with factors for each channel; or where taps are given, a depthwise convolution of x.
struct Read {
  Pixels x, z;
  const Real* factors;
  Size factors_step;
  Scales scales;
  Depthwise depthwise;
};

// Pixels [first, first + rows) of some channels one behind the other, through a ReLU as asked.
static void copy_rows(const Read& from, Size first, Size channel, Size rows, Size columns, Pixels to, bool with_relu) {
  if (from.depthwise.taps) {  // whole rows of pictures
    Size w = from.depthwise.w_out;
    for (Size r = 0; r < rows / w; ++r)
      depthwise_row(from.depthwise, from.x, first / w + r, channel, columns, {to[r * w], to.row});
    return;
  }
  auto over_rows = [&](auto value) {
    for (Size r = 0; r < rows; ++r) {
      Real scale = from.scales[first + r];
      over_channels(columns, [&](auto lanes, Size c) {
        Vector x = lanes.load(from.x[first + r] + channel + c);
        lanes.store(to[r] + c, value(lanes, x * scale, first + r, channel + c));
      });
    }
  };
  if (from.z.first)
    over_rows([&](auto lanes, Vector x, Size p, Size c) {
      const Real* factor = from.factors + c;
      return x * lanes.load(factor) + (lanes.load(from.z[p] + c) * lanes.load(factor + from.factors_step) +
                                       lanes.load(factor + 2 * from.factors_step));
    });
  else if (with_relu)
    over_rows([&](auto, Vector x, Size, Size) { return relu(x); });
  else
    over_rows([&](auto, Vector x, Size, Size) { return x; });
}

// ---- y = x W

// Of edges, in `runs` of which `summed` are summed, as they lie.
struct Kernels {
  Size threads;
  const Real* kernel;
  Size k_edge, k_from, k_to, k_tap, n_from, n_to, runs, summed, taps;
};

struct ChannelConv : Kernels {
  const Real* laid_out;  // these kernels as `lay_out` wrote them; if not given, it is called
  Read x;
  Size x_edge;
  Pixels y;
  Size y_edge, pixels, frame, frames, sign, relu;
  Pixels mask;       // zero is written where this is not above zero, if it is given
  const Real* bias;  // of each column, if any
  Size add;          // to what y holds
  Real* statistics;  // mean, variance and 1 / sqrt(variance + eps) of y, (3, kB), if asked for
  double eps;
};

struct LayOut : Kernels {
  Real* to;
  Size frames, sign;
};

// How many frames of three taps in time Winograd's algorithm makes at once: by which there is least to multiply. 0
// where it would not pay.
static Size frames_at_once(Size taps, Size frames, Size n_from, Size n_to) {
  if (taps != 3 || frames < 3 || std::min(n_from, n_to) < 24) return 0;
  Size best = 3;
  for (Size m : {4, 5})
    if ((frames + m - 1) / m * (m + 2) < (frames + best - 1) / best * (best + 2)) best = m;
  return best;
}

static Size laid_out_size(const Kernels& a, Size frames) {
  Size at_once = frames_at_once(a.taps, frames, a.n_from, a.n_to), taps = at_once ? at_once + 2 : a.taps;
  return a.runs * ((a.n_to + COLUMNS - 1) / COLUMNS) * a.summed * taps * a.n_from * COLUMNS;
}

// Their values by Winograd's algorithm, points in the place of taps.
template <int M>
static void weights_in_time(const LayOut& a) {
  constexpr int N = M + 2;
  Size blocks = (a.n_to + COLUMNS - 1) / COLUMNS, all = a.runs * blocks * a.summed;
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size panel = 0; panel < all; ++panel) {
    Size edge = panel % a.summed, block = panel / a.summed % blocks, run = panel / (a.summed * blocks);
    Size n = std::min<Size>(COLUMNS, a.n_to - block * COLUMNS), width = vectors_of(n) * LANES;
    for (Size c = 0; c < a.n_from; ++c) {
      const Real* from = a.kernel + (run + edge) * a.k_edge + c * a.k_from + block * COLUMNS * a.k_to;
      Real taps[3][COLUMNS] = {};
      for (Size i = 0; i < n; ++i)
        for (int tap = 0; tap < 3; ++tap) taps[a.sign < 0 ? 2 - tap : tap][i] = from[i * a.k_to + tap * a.k_tap];
      for (Size v = 0; v < width; v += LANES) {
        Vector read[3] = {Whole::load(taps[0] + v), Whole::load(taps[1] + v), Whole::load(taps[2] + v)};
        one_side<OfKernel<M>>(read, [&](auto point, Vector value) {
          Whole::store(a.to + (panel * N + point) * a.n_from * COLUMNS + c * width + v, value);
        });
      }
    }
  }
}

// Weights in the order in which a tile reads them: by run, by columns, by edge, by tap, by channel that enters.
extern "C" void pvnas_lay_out(const LayOut& a) {
  if (Size at_once = frames_at_once(a.taps, a.frames, a.n_from, a.n_to))
    return with_points(at_once, [&](auto m) { weights_in_time<m>(a); });
  constexpr int N = COLUMNS;
  Size blocks = (a.n_to + N - 1) / N, all = a.runs * blocks * a.summed * a.taps;
#pragma omp parallel for num_threads(a.threads) schedule(static) if (all * a.n_from * N > 65536)
  for (Size panel = 0; panel < all; ++panel) {
    Size tap = panel % a.taps, edge = panel / a.taps % a.summed, block = panel / (a.taps * a.summed) % blocks;
    Size run = panel / (a.taps * a.summed * blocks), n = std::min<Size>(N, a.n_to - block * N);
    Size width = vectors_of(n) * LANES;
    const Real* from = a.kernel + (run + edge) * a.k_edge + tap * a.k_tap + block * N * a.k_to;
    Real* to = a.to + panel * a.n_from * N;
    if (n < width) std::fill_n(to, a.n_from * width, Real(0));  // of the rest: see `Filling`
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

// Rows of a copy to y.
static void write_rows(const ChannelConv& a, Pixels from, Size first, Size rows, Size run, bool streamed) {
  for (Size r = 0; r < rows; ++r)
    over_written(streamed, a.n_to, [&](auto lanes, Size c) {
      Real* to = a.y[first + r] + run * a.y_edge + c;
      Vector v = lanes.load(from[r] + c);
      if (a.mask.first) v = lanes.load(a.mask[first + r] + run * a.n_to + c) > 0 ? v : Vector{};
      if (a.bias) v += lanes.load(a.bias + run * a.n_to + c);
      if (a.add) v += lanes.load(to);
      lanes.store(to, v);
    });
}

// Mean, and sum of squared differences from it, of rows of a copy.
static void moments_of_rows(Pixels from, Size rows, Size columns, Real* means, Real* squares) {
  constexpr int EACH = 4;  // sums, which do not wait for each other
  over_channels(columns, [&](auto lanes, Size c) {
    auto sum = [&](auto term) {
      Vector sums[EACH] = {};
      for (Size r = 0; r < rows; r += EACH)
        for (Size i = 0; i < EACH && r + i < rows; ++i) sums[i] += term(lanes.load(from[r + i] + c));
      return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    };
    Vector mean = sum([](Vector x) { return x; }) * (Real(1) / Real(rows));
    lanes.store(means + c, mean);
    lanes.store(squares + c, sum([&](Vector x) { return (x - mean) * (x - mean); }));
  });
}

// What a thread needs to go through its chunks.
struct Scratch {
  std::vector<Real> read, numbers;
  std::vector<Segment> segments;
  Pixels made;
  Scratch(const ChannelConv& a, Size rows, Size blocks)
      : read(a.summed * a.taps * rows * a.n_from), numbers(rows * (blocks + 1) * COLUMNS) {
    made = {numbers.data(), (blocks + 1) * COLUMNS};
  }
};

// Gathers what the tiles of one block of columns multiply. Rows are copied once for all columns, and for all edges
// where they share what they read.
static void gather(const ChannelConv& a, const Chunks& chunks, Size chunk, Size run, Size block, const Real* weights,
                   Scratch& scratch) {
  Size time = chunks.time(chunk) % a.frames, width = vectors_of(a.n_to - block * COLUMNS) * LANES;
  scratch.segments.clear();
  for (Size edge = 0; edge < a.summed; ++edge)
    for (Size tap = 0; tap < a.taps; ++tap) {
      Size shift = a.taps > 1 ? a.sign * (tap - a.taps / 2) : 0, number = edge * a.taps + tap;
      if (a.taps > 1 && (time + shift < 0 || time + shift >= a.frames)) continue;
      Pixels copy = {scratch.read.data() + number * chunks.each * a.n_from, a.n_from};
      if (block == 0 && (run == 0 || a.x_edge))
        copy_rows(a.x, chunks.begin(chunk) + shift * a.frame, (run + edge) * a.x_edge, chunks.count(chunk), a.n_from,
                  copy, a.relu);
      for (Size c = 0; c < a.n_from; c += DEPTH)
        scratch.segments.push_back({copy.from(c), weights + number * a.n_from * COLUMNS + c * width,
                                    std::min(DEPTH, a.n_from - c)});
    }
}

// ---- the same of three taps in time, by Winograd's algorithm

// Chunks of some pixels, in all frames of a clip. Whole lines of so many pixels where `line` is given.
struct ChunksInTime {
  Size frame, frames, each, in_clip, all;
  ChunksInTime(Size pixels, Size frame_, Size frames_, Size line) : frame(frame_), frames(frames_) {
    in_clip = (frame + CHUNK / 2 - 1) / (CHUNK / 2);
    each = (frame + in_clip - 1) / in_clip;
    if (line) each = (each + line - 1) / line * line;
    in_clip = (frame + each - 1) / each;
    all = pixels / (frame * frames) * in_clip;
  }
  Size begin(Size chunk, Size time) const { return (chunk / in_clip * frames + time) * frame + chunk % in_clip * each; }
  Size count(Size chunk) const { return std::min(each, frame - chunk % in_clip * each); }
};

// Copies all frames of a chunk, and writes their values: (points, tiles in time, pixels) rows.
template <class Of, int M, int BEFORE>
static void values_in_time(const Read& x, const ChunksInTime& chunks, Size chunk, Size channel, Size channels,
                           bool with_relu, Real* copies, Real* to, Size row) {
  constexpr int READ = Of::MATRIX.columns;
  Size count = chunks.count(chunk), frame = count * row, tiles = (chunks.frames + M - 1) / M;
  for (Size time = 0; time < chunks.frames; ++time)
    copy_rows(x, chunks.begin(chunk, time), channel, count, channels, {copies + time * frame, row}, with_relu);
  for (Size tile = 0; tile < tiles; ++tile)
    for (Size i = 0; i < frame; i += LANES) {
      Vector read[READ];
      for (int k = 0; k < READ; ++k) {
        Size time = tile * M + k - BEFORE;
        read[k] = time >= 0 && time < chunks.frames ? Whole::load(copies + time * frame + i) : Vector{};
      }
      one_side<Of>(read, [&](auto point, Vector value) {
        Whole::store(to + (point * tiles + tile) * frame + i, value);
      });
    }
}

template <int M>
static void convolve_in_time(const ChannelConv& a, const Real* weights) {
  constexpr int N = M + 2;
  ChunksInTime chunks(a.pixels, a.frame, a.frames, a.x.depthwise.w_out);
  Size blocks = (a.n_to + COLUMNS - 1) / COLUMNS, panel = N * a.n_from * COLUMNS, channels = a.runs * a.n_to;
  Size tiles = (a.frames + M - 1) / M, row = Numbers::apart(a.n_from), made_row = Numbers::apart(a.n_to);
  bool streamed = !a.add && streams(a.y.first, a.pixels, {a.y.row, a.y_edge, a.n_to});
  std::vector<Real> moments(a.statistics ? chunks.all * 2 * channels : 0);
#pragma omp parallel num_threads(a.threads)
  {
    Size of_edge = N * tiles * chunks.each * row, of_point = tiles * chunks.each * COLUMNS;
    Numbers copies(a.frames * chunks.each * row, ZEROS), values(a.summed * of_edge), products(N * of_point);
    Numbers made(a.frames * chunks.each * made_row);
#pragma omp for schedule(static) nowait
    for (Size chunk = 0; chunk < chunks.all; ++chunk)
      for (Size run = 0; run < a.runs; ++run) {
        Size count = chunks.count(chunk), rows = tiles * count;
        if (run == 0 || a.x_edge)
          for (Size edge = 0; edge < a.summed; ++edge)
            values_in_time<OfInput<M>, M, 1>(a.x, chunks, chunk, (run + edge) * a.x_edge, a.n_from, a.relu,
                                             copies.at(0), values.at(edge * of_edge), row);
        for (Size block = 0; block < blocks; ++block) {
          Size n = std::min<Size>(COLUMNS, a.n_to - block * COLUMNS), width = vectors_of(n) * LANES;
          for (int point = 0; point < N; ++point)
            for (Size edge = 0; edge < a.summed; ++edge)
              for (Size c = 0; c < a.n_from; c += DEPTH) {
                Pixels x{values.at(edge * of_edge + point * rows * row + c), row};
                const Real* from = weights + ((run * blocks + block) * a.summed + edge) * panel;
                Segment segment{x, from + point * a.n_from * COLUMNS + c * width, std::min(DEPTH, a.n_from - c)};
                over_tiles(n, rows, [&](auto vectors, auto height, Size first) {
                  Pixels to{products.at(point * of_point), COLUMNS};
                  multiply_tile<vectors.value, height.value>(segment, first, to, edge == 0 && c == 0);
                });
              }
          for (Size tile = 0; tile < tiles; ++tile)
            for (Size pixel = 0; pixel < count; ++pixel)
              for (Size v = 0; v < width; v += LANES) {
                Vector read[N];
                for (int point = 0; point < N; ++point)
                  read[point] = Whole::load(products.at(point * of_point + (tile * count + pixel) * COLUMNS + v));
                one_side<ToOutputs<M>>(read, [&](auto i, Vector y) {
                  Size time = tile * M + i;
                  if (time >= a.frames) return;
                  Whole::store(made.at((time * count + pixel) * made_row + block * COLUMNS + v), y);
                });
              }
        }
        for (Size time = 0; time < a.frames; ++time)
          write_rows(a, {made.at(time * count * made_row), made_row}, chunks.begin(chunk, time), count, run, streamed);
        if (a.statistics) {
          Real* means = moments.data() + chunk * 2 * channels + run * a.n_to;
          moments_of_rows({made.at(0), made_row}, a.frames * count, a.n_to, means, means + channels);
        }
      }
    streams_end();
  }
  auto count = [&](Size chunk) { return chunks.count(chunk) * a.frames; };
  if (a.statistics) join_moments(moments.data(), chunks.all, channels, a.pixels, a.eps, count, a.statistics);
}

// ---- in any case

// A block of columns after the other, so that their weights stay in a cache, then all of them to y.
extern "C" void pvnas_channel_conv(const ChannelConv& a) {
  Numbers panels(a.laid_out ? 0 : laid_out_size(a, a.frames));
  if (!a.laid_out) pvnas_lay_out(LayOut{a, panels.at(0), a.frames, a.sign});
  const Real* weights = a.laid_out ? a.laid_out : panels.at(0);
  if (Size at_once = frames_at_once(a.taps, a.frames, a.n_from, a.n_to))
    return with_points(at_once, [&](auto m) { convolve_in_time<m>(a, weights); });
  Chunks chunks(a.pixels, a.frame, a.taps > 1, a.x.depthwise.w_out);
  Size blocks = (a.n_to + COLUMNS - 1) / COLUMNS, panel = a.summed * a.taps * a.n_from * COLUMNS;
  bool streamed = !a.add && streams(a.y.first, a.pixels, {a.y.row, a.y_edge, a.n_to});
  Size channels = a.runs * a.n_to;
  std::vector<Real> moments(a.statistics ? chunks.all * 2 * channels : 0);
#pragma omp parallel num_threads(a.threads)
  {
    Scratch scratch(a, chunks.each, blocks);
#pragma omp for schedule(static) nowait
    for (Size chunk = 0; chunk < chunks.all; ++chunk)
      for (Size run = 0; run < a.runs; ++run) {
        Size rows = chunks.count(chunk);
        for (Size block = 0; block < blocks; ++block) {
          gather(a, chunks, chunk, run, block, weights + (run * blocks + block) * panel, scratch);
          for (const Segment& segment : scratch.segments)
            over_tiles(a.n_to - block * COLUMNS, rows, [&](auto vectors, auto count, Size first) {
              bool begin = &segment == scratch.segments.data();
              multiply_tile<vectors.value, count.value>(segment, first, scratch.made.from(block * COLUMNS), begin);
            });
        }
        write_rows(a, scratch.made, chunks.begin(chunk), rows, run, streamed);
        if (a.statistics) {
          Real* means = moments.data() + chunk * 2 * channels + run * a.n_to;
          moments_of_rows(scratch.made, rows, a.n_to, means, means + channels);
        }
      }
    streams_end();
  }
  auto count = [&](Size chunk) { return chunks.count(chunk); };
  if (a.statistics) join_moments(moments.data(), chunks.all, channels, a.pixels, a.eps, count, a.statistics);
}

// ---- gradient of the kernels: g' x

struct ChannelConvKernelGrad {
  Size threads;
  Read g;
  Size g_edge;
  Read x;
  Size x_edge;
  Real* sums;  // (k, B, A, t)
  Size pixels, frame, frames, n_b, n_a, edges, taps, relu;
};

// Parts of the pixels that are summed apart, the fewest chunks of one, and the most numbers that all of them may have.
constexpr Size PARTS = 16, CHUNKS_OF_PART = 8, NUMBERS_OF_PARTS = 1 << 20;

static Size parts_of(Size chunks, Size numbers) {
  return std::max<Size>(1, std::min({PARTS, chunks / CHUNKS_OF_PART, NUMBERS_OF_PARTS / numbers}));
}

template <int M>
static void kernel_grad_in_time(const ChannelConvKernelGrad& a) {
  constexpr int N = M + 2;
  ChunksInTime chunks(a.pixels, a.frame, a.frames, a.x.depthwise.w_out);
  Size x_row = Numbers::apart(a.n_a), g_row = Numbers::apart(a.n_b), tiles = (a.frames + M - 1) / M;
  Size of_point = a.n_b * x_row, of_edge = N * of_point, parts = parts_of(chunks.all, a.edges * a.n_b * a.n_a * N);
  Numbers part_sums(parts * a.edges * of_edge);
#pragma omp parallel num_threads(a.threads)
  {
    Numbers copies(a.frames * chunks.each * std::max(x_row, g_row), ZEROS);
    Numbers x_values(N * tiles * chunks.each * x_row), g_values(N * tiles * chunks.each * g_row);
#pragma omp for collapse(2) schedule(static)
    for (Size part = 0; part < parts; ++part)
      for (Size edge = 0; edge < a.edges; ++edge) {
        Range range(chunks.all, parts, part);
        for (Size chunk = range.begin; chunk < range.end; ++chunk) {
          Size rows = tiles * chunks.count(chunk);
          values_in_time<Transposed<ToOutputs<M>>, M, 0>(a.g, chunks, chunk, edge * a.g_edge, a.n_b, false,
                                                         copies.at(0), g_values.at(0), g_row);
          values_in_time<OfInput<M>, M, 1>(a.x, chunks, chunk, edge * a.x_edge, a.n_a, a.relu, copies.at(0),
                                           x_values.at(0), x_row);
          for (int point = 0; point < N; ++point) {
            Pixels g{g_values.at(point * rows * g_row), g_row}, x{x_values.at(point * rows * x_row), x_row};
            Pixels sums{part_sums.at((part * a.edges + edge) * of_edge + point * of_point), x_row};
            for (Size n = 0; n < a.n_a; n += COLUMNS)
              over_tiles(a.n_a - n, a.n_b, [&](auto vectors, auto count, Size b) {
                bool begin = chunk == range.begin;
                correlate_tile<vectors.value, count.value>(g.from(b), x.from(n), rows, {sums[b] + n, x_row}, begin);
              });
          }
        }
      }
#pragma omp for schedule(static)
    for (Size row = 0; row < a.edges * a.n_b; ++row)
      for (Size n = 0; n < a.n_a; n += LANES) {
        Vector read[N] = {};
        for (int point = 0; point < N; ++point)
          for (Size part = 0; part < parts; ++part)
            read[point] += Whole::load(part_sums.at((part * a.edges + row / a.n_b) * of_edge + point * of_point +
                                                    row % a.n_b * x_row + n));
        one_side<Transposed<OfKernel<M>>>(read, [&](auto tap, Vector sum) {
          for (Size i = 0; i < std::min<Size>(LANES, a.n_a - n); ++i) a.sums[(row * a.n_a + n + i) * 3 + tap] = sum[i];
        });
      }
  }
}

extern "C" void pvnas_channel_conv_kernel_grad(const ChannelConvKernelGrad& a) {
  if (Size at_once = frames_at_once(a.taps, a.frames, a.n_a, a.n_b))
    return with_points(at_once, [&](auto m) { kernel_grad_in_time<m>(a); });
  // Of small frames a chunk takes several, whose pixels and those of the frames around them all taps in time share.
  bool whole_frames = a.taps > 1 && a.frame <= CHUNK;
  Size clip = a.taps > 1 ? a.frame * a.frames : a.pixels, around = whole_frames ? a.frame : 0;
  Chunks chunks(a.pixels, whole_frames ? clip : a.frame, a.taps > 1, whole_frames ? a.frame : a.x.depthwise.w_out);
  Size wide = (a.n_a + LANES - 1) / LANES * LANES, of_tap = a.n_b * wide, of_edge = a.taps * of_tap;
  Size parts = parts_of(chunks.all, a.edges * a.n_b * a.n_a * a.taps);
  std::vector<Real> part_sums(parts * a.edges * of_edge);
#pragma omp parallel num_threads(a.threads)
  {
    // Rows are a little apart: a power of two apart they would share a few sets of the first cache.
    Size x_row = wide + LANES, g_row = (a.n_b + LANES - 1) / LANES * LANES + LANES;
    std::vector<Real> x_copy((chunks.each + 2 * around) * x_row), g_copy(chunks.each * g_row);
    Pixels x = {x_copy.data(), x_row}, g = {g_copy.data(), g_row};
#pragma omp for collapse(2) schedule(static)
    for (Size part = 0; part < parts; ++part)
      for (Size edge = 0; edge < a.edges; ++edge) {
        Range range(chunks.all, parts, part);
        for (Size chunk = range.begin; chunk < range.end; ++chunk) {
          Size begin = chunks.begin(chunk), rows = chunks.count(chunk), in_clip = begin % clip;
          copy_rows(a.g, begin, edge * a.g_edge, rows, a.n_b, g, false);
          Size before = std::min(around, in_clip), after = std::min(around, clip - in_clip - rows);
          if (a.taps == 1 || whole_frames)
            copy_rows(a.x, begin - before, edge * a.x_edge, before + rows + after, a.n_a, x, a.relu);
          for (Size tap = 0; tap < a.taps; ++tap) {
            Size shift = (tap - a.taps / 2) * a.frame;
            Size first = std::max<Size>(0, -shift - in_clip), last = std::min(rows, clip - shift - in_clip);
            if (first >= last) continue;
            if (a.taps > 1 && !whole_frames) copy_rows(a.x, begin + shift, edge * a.x_edge, rows, a.n_a, x, a.relu);
            Pixels from = {whole_frames ? x[before + first + shift] : x[first], x_row}, of = {g[first], g_row};
            Pixels sums = {part_sums.data() + (part * a.edges + edge) * of_edge + tap * of_tap, wide};
            for (Size n = 0; n < a.n_a; n += COLUMNS)
              over_tiles(a.n_a - n, a.n_b, [&](auto vectors, auto count, Size b) {
                correlate_tile<vectors.value, count.value>(of.from(b), from.from(n), last - first, {sums[b] + n, wide},
                                                            false);
              });
          }
        }
      }
    std::vector<Real> total(wide);
#pragma omp for schedule(static)
    for (Size row = 0; row < a.edges * a.n_b; ++row)
      for (Size tap = 0; tap < a.taps; ++tap) {
        const Real* first = part_sums.data() + row / a.n_b * of_edge + tap * of_tap + row % a.n_b * wide;
        for (Size n = 0; n < wide; n += LANES) {
          Vector sum = Whole::load(first + n);
          for (Size part = 1; part < parts; ++part) sum += Whole::load(first + part * a.edges * of_edge + n);
          Whole::store(total.data() + n, sum);
        }
        for (Size n = 0; n < a.n_a; ++n) a.sums[(row * a.n_a + n) * a.taps + tap] = total[n];
      }
  }
}
