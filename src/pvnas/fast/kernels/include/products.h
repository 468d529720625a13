// Products of matrices, a tile of some rows times one or two vectors of columns at a time: its sums are held in
// registers while the product runs.
#pragma once

#include "vectors.h"

// Rows of a tile of one or of two vectors: as many as registers hold, and eight sums at least, since one waits for its
// last addition that long.
constexpr int MOST_ROWS = 12, COLUMNS = 2 * LANES;
template <int VECTORS>
constexpr int ROWS = LINES ? MOST_ROWS : MOST_ROWS / VECTORS;

// Vectors that a tile needs where so many columns are left.
static inline Size vectors_of(Size left) { return left > LANES ? 2 : 1; }

// Calls work(std::integral_constant<int, vectors>, the same of its rows, first row) for each tile of up to COLUMNS.
template <class Work>
static inline void over_tiles(Size columns, Size rows, Work work) {
  with_constant<2>(vectors_of(columns), [&](auto vectors) {
    constexpr int EACH = ROWS<vectors.value>;
    for (Size first = 0; first < rows; first += EACH)
      with_constant<EACH>(rows - first, [&](auto count) { work(vectors, count, first); });
  });
}

constexpr Size DEPTH = 256;  // channels whose weights stay in the first cache while all tiles of a chunk meet them

// Rows of some channels of the input and the weights that they meet.
struct Segment {
  Pixels x;
  const Real* weights;
  Size channels;
};

// Adds to y, or begins it.
template <int VECTORS, int R>
static inline void multiply_tile(const Segment& segment, Size first, Pixels y, bool begin) {
  Vector sums[VECTORS][R] = {};
  if (!begin)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) sums[v][r] = Whole::load(y[first + r] + v * LANES);
  const Real *x = segment.x[first], *weights = segment.weights;
  for (Size c = 0; c < segment.channels; ++c, weights += VECTORS * LANES) {
    Vector w[VECTORS];
    for (int v = 0; v < VECTORS; ++v) w[v] = Whole::load(weights + v * LANES);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      Real value = x[r * segment.x.row + c];
      for (int v = 0; v < VECTORS; ++v) sums[v][r] += value * w[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) Whole::store(y[first + r] + v * LANES, sums[v][r]);
}

// Adds to R rows of the sums, held in registers, what some pixels give, or begins them.
template <int VECTORS, int R>
static inline void correlate_tile(Pixels g, Pixels x, Size pixels, Pixels sums, bool begin) {
  Vector total[VECTORS][R] = {};
  if (!begin)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) total[v][r] = Whole::load(sums[r] + v * LANES);
  for (Size p = 0; p < pixels; ++p) {
    Vector values[VECTORS];
    for (int v = 0; v < VECTORS; ++v) values[v] = Whole::load(x[p] + v * LANES);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) total[v][r] += g[p][r] * values[v];
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) Whole::store(sums[r] + v * LANES, total[v][r]);
}
