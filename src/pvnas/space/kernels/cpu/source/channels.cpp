// Convolutions 1x1x1 and 3x1x1 of several edges as matrix products over channels, forward and backward.
//
// A tile of ROWS pixels times two vectors of channels is held in registers while the product runs.
#include "vectors.h"

namespace {

constexpr int ROWS = 6;
constexpr Size CHUNK = 96;  // pixels that a thread takes at once: with 64 channels they stay in the first cache

template <class T>
constexpr int columns() {
  return 2 * Types<T>::lanes;
}

// Calls work(std::integral_constant<int, rows>) with 1 to ROWS rows.
template <int MOST, class Work>
inline void with_rows(Size rows, Work work) {
  if constexpr (MOST > 0) {
    if (rows >= MOST)
      work(std::integral_constant<int, MOST>{});
    else
      with_rows<MOST - 1>(rows, work);
  }
}

// Some pixels of one frame, or of all frames where a product has one tap in time.
struct Chunks {
  Size frame, each, in_frame, all;
  Chunks(Size pixels, Size frame_, bool in_time) : frame(in_time ? frame_ : pixels) {
    in_frame = std::max<Size>(1, (frame + CHUNK - 1) / CHUNK);
    each = ((frame + in_frame - 1) / in_frame + ROWS - 1) / ROWS * ROWS;
    in_frame = (frame + each - 1) / each;
    all = pixels / frame * in_frame;
  }
  Size begin(Size chunk) const { return chunk / in_frame * frame + chunk % in_frame * each; }
  Size count(Size chunk) const { return std::min(each, frame - chunk % in_frame * each); }
  Size time(Size chunk) const { return chunk / in_frame; }
};

// ---- y = x W

template <class T>
struct Mix {
  const T* x;
  Size x_row, x_edge;
  const T* kernel;
  Size k_edge, k_from, k_to, k_tap;
  T* y;
  Size y_row, y_edge, pixels, frame, frames, n_from, n_to, runs, summed, taps, sign, rectified, threads;
};

// Weights in the order in which a tile reads them: by run, by columns, by edge, by tap, by channel that enters.
template <class T>
std::vector<T> panels_of(const Mix<T>& a) {
  constexpr int N = columns<T>();
  Size blocks = (a.n_to + N - 1) / N;
  std::vector<T> panels(a.runs * blocks * a.summed * a.taps * a.n_from * N);
  T* to = panels.data();
  for (Size run = 0; run < a.runs; ++run)
    for (Size block = 0; block < blocks; ++block)
      for (Size edge = run; edge < run + a.summed; ++edge)
        for (Size tap = 0; tap < a.taps; ++tap)
          for (Size from = 0; from < a.n_from; ++from)
            for (Size n = block * N; n < block * N + N; ++n)
              *to++ = n < a.n_to ? a.kernel[edge * a.k_edge + tap * a.k_tap + from * a.k_from + n * a.k_to] : T(0);
  return panels;
}

// Rows of the input and the panel that they meet.
template <class T>
struct Segment {
  const T *x, *panel;
};

template <class T, int R>
inline void multiply_tile(const Segment<T>* segments, int count, Size first_row, Size x_row, Size n_from, T* y,
                          Size y_row, Size n) {
  constexpr int L = Types<T>::lanes;
  Vector<T> low[R] = {}, high[R] = {};
  for (int s = 0; s < count; ++s) {
    const T *x = segments[s].x + first_row * x_row, *panel = segments[s].panel;
    for (Size c = 0; c < n_from; ++c, panel += 2 * L) {
      Vector<T> w0 = Whole<T>::load(panel), w1 = Whole<T>::load(panel + L);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        T value = x[r * x_row + c];
        low[r] += value * w0;
        high[r] += value * w1;
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    T* to = y + r * y_row;
    if (n >= 2 * L) {
      Whole<T>::store(to, low[r]);
      Whole<T>::store(to + L, high[r]);
    } else {
      for (Size i = 0; i < n; ++i) to[i] = i < L ? low[r][i] : high[r][i - L];
    }
  }
}

// Rows (rows, columns) one behind the other, rectified and padded with zeros as asked.
template <class T>
void copy_rows(const T* x, Size x_row, Size rows, Size columns, T* to, Size to_row, bool rectify) {
  for (Size r = 0; r < rows; ++r) {
    over_channels<T>(columns, [&](auto lanes, Size c) {
      Vector<T> v = lanes.load(x + r * x_row + c);
      lanes.store(to + r * to_row + c, rectify ? rectified<T>(v) : v);
    });
    std::fill(to + r * to_row + columns, to + (r + 1) * to_row, T(0));
  }
}

template <class T>
void mix(const Mix<T>& a) {
  constexpr int N = columns<T>();
  auto panels = panels_of(a);
  Chunks chunks(a.pixels, a.frame, a.taps > 1);
  Size blocks = (a.n_to + N - 1) / N, panel = a.n_from * N;
#pragma omp parallel num_threads(a.threads)
  {
    std::vector<Segment<T>> segments(a.summed * a.taps);
    std::vector<T> own(a.rectified ? a.taps * chunks.each * a.n_from : 0);
#pragma omp for schedule(static)
    for (Size chunk = 0; chunk < chunks.all; ++chunk) {
      Size begin = chunks.begin(chunk), rows = chunks.count(chunk), time = chunks.time(chunk) % a.frames;
      for (Size run = 0; run < a.runs; ++run)
        for (Size block = 0; block < blocks; ++block) {
          const T* weights = panels.data() + (run * blocks + block) * a.summed * a.taps * panel;
          int count = 0;
          Size x_row = a.rectified ? a.n_from : a.x_row;
          for (Size edge = 0; edge < a.summed; ++edge)
            for (Size tap = 0; tap < a.taps; ++tap) {
              Size shift = a.taps > 1 ? a.sign * (tap - a.taps / 2) : 0;
              if (a.taps > 1 && (time + shift < 0 || time + shift >= a.frames)) continue;
              const T* x = a.x + (begin + shift * a.frame) * a.x_row + (run + edge) * a.x_edge;
              if (a.rectified) {  // once for all columns, and for all edges where they share it
                T* made = own.data() + tap * chunks.each * a.n_from;
                if (block == 0 && (run == 0 || a.x_edge)) copy_rows(x, a.x_row, rows, a.n_from, made, a.n_from, true);
                x = made;
              }
              segments[count++] = {x, weights + (edge * a.taps + tap) * panel};
            }
          T* y = a.y + begin * a.y_row + run * a.y_edge + block * N;
          for (Size r = 0; r < rows; r += ROWS)
            with_rows<ROWS>(rows - r, [&](auto R) {
              multiply_tile<T, R.value>(segments.data(), count, r, x_row, a.n_from, y + r * a.y_row, a.y_row,
                                        a.n_to - block * N);
            });
        }
    }
  }
}

// ---- gradient of the kernels: g' x

template <class T>
struct MixKernelGradient {
  const T* g;
  Size g_row, g_edge;
  const T* x;
  Size x_row, x_edge;
  T* sums;  // (k, B, A, t)
  Size pixels, frame, frames, n_b, n_a, edges, taps, rectified, parts, threads;
};

// Adds to ROWS rows of the sums, held in registers, what some pixels give.
template <class T, int R>
inline void correlate_tile(const T* g, Size g_row, const T* x, Size x_row, Size pixels, T* sums, Size sums_row) {
  constexpr int L = Types<T>::lanes;
  Vector<T> low[R], high[R];
  for (int r = 0; r < R; ++r) {
    low[r] = Whole<T>::load(sums + r * sums_row);
    high[r] = Whole<T>::load(sums + r * sums_row + L);
  }
  for (Size p = 0; p < pixels; ++p, g += g_row, x += x_row) {
    Vector<T> x0 = Whole<T>::load(x), x1 = Whole<T>::load(x + L);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      low[r] += g[r] * x0;
      high[r] += g[r] * x1;
    }
  }
  for (int r = 0; r < R; ++r) {
    Whole<T>::store(sums + r * sums_row, low[r]);
    Whole<T>::store(sums + r * sums_row + L, high[r]);
  }
}

template <class T>
void mix_kernel_gradient(const MixKernelGradient<T>& a) {
  constexpr int N = columns<T>();
  Chunks chunks(a.pixels, a.frame, a.taps > 1);
  Size wide = (a.n_a + N - 1) / N * N, of_tap = a.n_b * wide, of_edge = a.taps * of_tap;
  bool copied = a.rectified || a.n_a % N;
  std::vector<T> found(a.parts * a.edges * of_edge);
#pragma omp parallel num_threads(a.threads)
  {
    std::vector<T> own(copied ? chunks.each * wide : 0);
#pragma omp for collapse(2) schedule(static)
    for (Size part = 0; part < a.parts; ++part)
      for (Size edge = 0; edge < a.edges; ++edge) {
        Range range(chunks.all, a.parts, part);
        for (Size chunk = range.begin; chunk < range.end; ++chunk) {
          Size begin = chunks.begin(chunk), rows = chunks.count(chunk), time = chunks.time(chunk) % a.frames;
          const T* g = a.g + begin * a.g_row + edge * a.g_edge;
          for (Size tap = 0; tap < a.taps; ++tap) {
            Size shift = a.taps > 1 ? tap - a.taps / 2 : 0;
            if (a.taps > 1 && (time + shift < 0 || time + shift >= a.frames)) continue;
            const T* x = a.x + (begin + shift * a.frame) * a.x_row + edge * a.x_edge;
            if (copied) copy_rows(x, a.x_row, rows, a.n_a, own.data(), wide, a.rectified);
            Size x_row = copied ? wide : a.x_row;
            T* sums = found.data() + (part * a.edges + edge) * of_edge + tap * of_tap;
            for (Size n = 0; n < wide; n += N)
              for (Size b = 0; b < a.n_b; b += ROWS)
                with_rows<ROWS>(a.n_b - b, [&](auto R) {
                  correlate_tile<T, R.value>(g + b, a.g_row, (copied ? own.data() : x) + n, x_row, rows,
                                             sums + b * wide + n, wide);
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
            total += found[(part * a.edges + edge) * of_edge + tap * of_tap + b * wide + n];
          a.sums[(row * a.n_a + n) * a.taps + tap] = total;
        }
    }
  }
}

}  // namespace

EXPORT(mix, Mix)
EXPORT(mix_kernel_gradient, MixKernelGradient)
