// Dense 3x3 convolutions at stride 1, padded to keep the picture's size, by Winograd's algorithm along both sides of
// squares of M x M pixels: (M + 2)^2 products of matrices over channels in place of 9 M^2, 25 for 81 with M = 3.
#include "products.h"
#include "winograd.h"

namespace {

template <int M>
constexpr int POINTS = (M + 2) * (M + 2);  // pairs of them

// Pictures cut into squares of M x M pixels; what lies past them is zero, and is not written.
struct Squares {
  Size frames, h, w, m;
  Size down() const { return (h + m - 1) / m; }
  Size across() const { return (w + m - 1) / m; }
  Size all() const { return frames * down() * across(); }
};

// The square of a number, with `around` pixels on all sides: over(work(index in it, pixel)) calls for pixels there are.
struct Square {
  Size first, top, left, h, w;
  Square(const Squares& a, Size number, Size around) : h(a.h), w(a.w) {
    Size of_frame = a.down() * a.across();
    first = number / of_frame * a.h * a.w;
    top = number % of_frame / a.across() * a.m - around, left = number % a.across() * a.m - around;
  }
  template <int SIDE, class Inside, class Outside>
  void over(Inside inside, Outside outside) const {
    for (int i = 0; i < SIDE; ++i)
      for (int j = 0; j < SIDE; ++j) {
        Size a = top + i, b = left + j;
        if (a >= 0 && a < h && b >= 0 && b < w)
          inside(i * SIDE + j, first + a * w + b);
        else
          outside(i * SIDE + j);
      }
  }
};

// Writes the values of some squares at all points, (points, squares, channels), rows and points so far apart.
template <class Of>
static void write_values(const Squares& a, Size begin, Size count, Size around, Pixels x, Size channels,
                         bool with_relu, Real* to, Size row, Size point) {
  constexpr int SIDE = Of::MATRIX.columns;
  for (Size t = 0; t < count; ++t) {
    Square square(a, begin + t, around);
    over_channels(channels, [&](auto lanes, Size c) {
      Vector read[SIDE * SIDE];
      square.over<SIDE>(
          [&](int i, Size pixel) {
            Vector v = lanes.load(x[pixel] + c);
            read[i] = with_relu ? relu(v) : v;
          },
          [&](int i) { read[i] = Vector{}; });
      both_sides<Of>(read, [&](int p, Vector v) { lanes.store(to + p * point + t * row + c, v); });
    });
  }
}

// ---- the kernel's values

struct SpatialWeights {
  Size threads;
  const Real* kernel;
  Size k_from, k_to, k_tap, flip, n_from, n_to, m;
  Real* to;  // (blocks of columns, points, n_from, columns)
};

template <int M>
static void weights_of(const SpatialWeights& a) {
  Size blocks = (a.n_to + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for collapse(2) num_threads(a.threads) schedule(static)
  for (Size block = 0; block < blocks; ++block)
    for (Size c = 0; c < a.n_from; ++c) {
      Size n = std::min<Size>(COLUMNS, a.n_to - block * COLUMNS), width = vectors_of(n) * LANES;
      Real taps[9][COLUMNS] = {};
      const Real* from = a.kernel + c * a.k_from + block * COLUMNS * a.k_to;
      for (Size i = 0; i < n; ++i)
        for (int tap = 0; tap < 9; ++tap) taps[a.flip ? 8 - tap : tap][i] = from[i * a.k_to + tap * a.k_tap];
      Real* to = a.to + block * POINTS<M> * a.n_from * COLUMNS + c * width;
      for (Size v = 0; v < width; v += LANES) {
        Vector read[9];
        for (int tap = 0; tap < 9; ++tap) read[tap] = Whole::load(taps[tap] + v);
        both_sides<OfKernel<M>>(read, [&](int p, Vector value) { Whole::store(to + p * a.n_from * width + v, value); });
      }
    }
}

// ---- y = the convolution of x

struct SpatialConv {
  Size threads;
  Pixels x;
  Size relu;
  const Real* weights;  // as `SpatialWeights` writes them
  Size n_from, n_to, frames, h, w, m;
  Pixels y;
  Size add;  // to what y holds
};

constexpr Size NUMBERS_AT_ONCE = 1 << 17;  // of the input's values: half of a core's second cache

template <int M>
static void convolve(const SpatialConv& a) {
  Squares squares{a.frames, a.h, a.w, M};
  Size each = std::max<Size>(MOST_ROWS, NUMBERS_AT_ONCE / (POINTS<M> * a.n_from) / MOST_ROWS * MOST_ROWS);
  each = std::min(each, squares.all());
  Size blocks = (a.n_to + COLUMNS - 1) / COLUMNS, chunks = (squares.all() + each - 1) / each;
#pragma omp parallel num_threads(a.threads)
  {
    Size row = Numbers::apart(a.n_from), point = each * row;
    Numbers values(POINTS<M> * point), products(POINTS<M> * each * COLUMNS);
#pragma omp for schedule(static) nowait
    for (Size chunk = 0; chunk < chunks; ++chunk) {
      Size begin = chunk * each, count = std::min(each, squares.all() - begin);
      write_values<OfInput<M>>(squares, begin, count, 1, a.x, a.n_from, a.relu, values.at(0), row, point);
      for (Size block = 0; block < blocks; ++block) {
        Size n = std::min<Size>(COLUMNS, a.n_to - block * COLUMNS), width = vectors_of(n) * LANES;
        const Real* weights = a.weights + block * POINTS<M> * a.n_from * COLUMNS;
        for (int p = 0; p < POINTS<M>; ++p)
          for (Size c = 0; c < a.n_from; c += DEPTH) {
            Segment segment{Pixels{values.at(p * point), row}.from(c), weights + (p * a.n_from + c) * width,
                            std::min(DEPTH, a.n_from - c)};
            Pixels to{products.at(p * each * COLUMNS), COLUMNS};
            over_tiles(n, count, [&](auto vectors, auto rows, Size first) {
              multiply_tile<vectors.value, rows.value>(segment, first, to, c == 0);
            });
          }
        for (Size t = 0; t < count; ++t) {
          Square square(squares, begin + t, 0);
          over_channels(n, [&](auto lanes, Size c) {
            Vector read[POINTS<M>], written[M * M];
            for (int p = 0; p < POINTS<M>; ++p) read[p] = Whole::load(products.at((p * each + t) * COLUMNS + c));
            both_sides<ToOutputs<M>>(read, [&](int i, Vector v) { written[i] = v; });
            square.over<M>(
                [&](int i, Size pixel) {
                  Real* to = a.y[pixel] + block * COLUMNS + c;
                  lanes.store(to, a.add ? written[i] + lanes.load(to) : written[i]);
                },
                [](int) {});
          });
        }
      }
    }
  }
}

// ---- gradient of the kernel

struct SpatialConvKernelGrad {
  Size threads;
  Pixels g, x;
  Size relu, n_b, n_a, frames, h, w, m;
  Real* sums;  // (B, A, 3, 3)
};

constexpr Size NUMBERS_OF_GROUP = 1 << 20;  // of the values of both: what the processor's caches hold

template <int M>
static void kernel_grad(const SpatialConvKernelGrad& a) {
  Squares squares{a.frames, a.h, a.w, M};
  Size x_row = Numbers::apart(a.n_a), g_row = Numbers::apart(a.n_b);
  Size each = std::min(squares.all(), std::max<Size>(64, NUMBERS_OF_GROUP / (POINTS<M> * (x_row + g_row))));
  Size x_point = each * x_row, g_point = each * g_row, of_point = a.n_b * x_row;
  Numbers x_values(POINTS<M> * x_point, a.n_a % LANES ? ZEROS : ANYTHING), g_values(POINTS<M> * g_point), sums(POINTS<M> * of_point);
  constexpr Size STRETCH = 24;  // squares, or rows of the sums, that a thread takes at once
#pragma omp parallel num_threads(a.threads)
  {
    for (Size begin = 0; begin < squares.all(); begin += each) {
      Size count = std::min(each, squares.all() - begin);
#pragma omp for schedule(static)
      for (Size first = 0; first < count; first += STRETCH) {
        Size here = std::min(STRETCH, count - first);
        write_values<OfInput<M>>(squares, begin + first, here, 1, a.x, a.n_a, a.relu,
                                 x_values.at(first * x_row), x_row, x_point);
        write_values<Transposed<ToOutputs<M>>>(squares, begin + first, here, 0, a.g, a.n_b, false,
                                               g_values.at(first * g_row), g_row, g_point);
      }
#pragma omp for collapse(2) schedule(static)
      for (int p = 0; p < POINTS<M>; ++p)
        for (Size b = 0; b < a.n_b; b += STRETCH) {
          Pixels g{g_values.at(p * g_point + b), g_row}, x{x_values.at(p * x_point), x_row};
          Pixels to{sums.at(p * of_point + b * x_row), x_row};
          for (Size n = 0; n < a.n_a; n += COLUMNS)
            over_tiles(a.n_a - n, std::min(STRETCH, a.n_b - b), [&](auto vectors, auto rows, Size r) {
              correlate_tile<vectors.value, rows.value>(g.from(r), x.from(n), count, {to[r] + n, x_row}, begin == 0);
            });
        }
    }
#pragma omp for schedule(static)
    for (Size b = 0; b < a.n_b; ++b)
      for (Size n = 0; n < a.n_a; n += LANES) {
        Vector read[POINTS<M>];
        for (int p = 0; p < POINTS<M>; ++p) read[p] = Whole::load(sums.at(p * of_point + b * x_row + n));
        both_sides<Transposed<OfKernel<M>>>(read, [&](int tap, Vector v) {
          for (Size i = 0; i < std::min<Size>(LANES, a.n_a - n); ++i) a.sums[(b * a.n_a + n + i) * 9 + tap] = v[i];
        });
      }
  }
}

}  // namespace

extern "C" void pvnas_spatial_weights(const SpatialWeights& a) {
  with_points(a.m, [&](auto m) { weights_of<m>(a); });
}

extern "C" void pvnas_spatial_conv(const SpatialConv& a) {
  with_points(a.m, [&](auto m) { convolve<m>(a); });
}

extern "C" void pvnas_spatial_conv_kernel_grad(const SpatialConvKernelGrad& a) {
  with_points(a.m, [&](auto m) { kernel_grad<m>(a); });
}
