// Depthwise 3x3 convolutions row by row; ReLU and BN before them are computed as it reads.
//
// At stride 1 a vector of channels at a time: each pixel of three rows is read once and gives its share to the sums of
// three columns, which are held in registers.
#pragma once

#include "vectors.h"

// Calls work(prepare) with what a convolution makes of what it reads before it multiplies: ReLU, behind BN where its
// statistics are given.
template <class Lanes, class Work>
inline void with_prologue(Lanes lanes, const Norm& norm, Size c, Work work) {
  if (!norm.mean) return work([](Vector x) { return relu(x); });
  Vector factor = norm.factor(lanes, c), shift = norm.shift(lanes, c, factor);
  work([=](Vector x) { return relu(x * factor + shift); });
}

// The three rows that a row of the output reads; of those past the picture nothing counts, whatever stands for them.
struct Rows {
  const Real* at[3];
  bool inside[3];
  Rows(const Real* picture, Size i, Size dilation, Size h, Size row) {
    for (int ky = 0; ky < 3; ++ky) {
      Size a = i + (ky - 1) * dilation;
      inside[ky] = a >= 0 && a < h;
      at[ky] = picture + (inside[ky] ? a : i) * row;
    }
  }
  Rows from(Size channel) const {
    Rows rows = *this;
    for (auto& first : rows.at) first += channel;
    return rows;
  }
};

// One row of the output, for one vector of channels: put(column, numbers). `flip`: by the kernel turned round, as
// gradients are.
template <class Lanes, class Prepare, class Put>
inline void convolve_row(Lanes lanes, const Rows& rows, Size x_step, const Real* taps, Size taps_step, bool flip,
                         Prepare prepare, Size w, Size dilation, Put put) {
  Vector k[3][3];
  for (int ky = 0; ky < 3; ++ky)
    for (int kx = 0; kx < 3; ++kx) {
      int tap = flip ? 8 - ky * 3 - kx : ky * 3 + kx;
      k[ky][kx] = rows.inside[ky] ? lanes.load(taps + tap * taps_step) : Vector{};
    }
  const Real *x0 = rows.at[0], *x1 = rows.at[1], *x2 = rows.at[2];
  for (Size phase = 0; phase < std::min(dilation, w); ++phase) {
    Vector before = {}, here = {};
    Size j = phase;
    for (; j < w; j += dilation) {
      Vector a = prepare(lanes.load(x0 + j * x_step)), b = prepare(lanes.load(x1 + j * x_step)),
             c = prepare(lanes.load(x2 + j * x_step));
      Vector last = before + (a * k[0][2] + b * k[1][2] + c * k[2][2]);
      if (j >= dilation) put(j - dilation, last);
      before = here + (a * k[0][1] + b * k[1][1] + c * k[2][1]);
      here = a * k[0][0] + b * k[1][0] + c * k[2][0];
    }
    put(j - dilation, before);
  }
}

// Calls work(tap, pixel of the input) for the taps of an output at stride 2 that are in the picture.
template <class Work>
inline void over_taps(Size i, Size j, Size dilation, Size h, Size w, Work work) {
  for (int ky = 0; ky < 3; ++ky) {
    Size a = 2 * i + (ky - 1) * dilation;
    if (a < 0 || a >= h) continue;
    for (int kx = 0; kx < 3; ++kx) {
      Size b = 2 * j + (kx - 1) * dilation;
      if (b >= 0 && b < w) work(ky * 3 + kx, a * w + b);
    }
  }
}

// A depthwise convolution: its taps (9, kC), the statistics of the batch norm before it, if any, and its sizes. All
// edges read the same channels where c_in is as many as one edge has.
struct Depthwise {
  const Real* taps;
  Norm norm;
  Size channels, c_in, h, w, h_out, w_out, stride, dilation;
};

// One row of the output at stride 2, for one vector of channels: several columns at a time, whose sums do not wait for
// each other. Each adds the taps in their order, whichever way it goes.
template <class Lanes, class Put>
inline void convolve_row_stride2(Lanes lanes, const Depthwise& a, Pixels x, Size i, const Real* taps, Put put) {
  constexpr Size EACH = 4;
  auto weight = [&](int tap) { return lanes.load(taps + tap * a.channels); };
  auto at_the_side = [&](Size j) {
    Vector total = {};
    over_taps(i, j, a.dilation, a.h, a.w,
              [&](int tap, Size pixel) { total += relu(lanes.load(x[pixel])) * weight(tap); });
    put(j, total);
  };
  at_the_side(0);
  Size j = 1;
  Rows rows(x.first, 2 * i, a.dilation, a.h, a.w * x.row);
  for (; 2 * (j + EACH - 1) + a.dilation < a.w; j += EACH) {
    Vector totals[EACH] = {};
    for (int ky = 0; ky < 3; ++ky) {
      if (!rows.inside[ky]) continue;
      for (int kx = 0; kx < 3; ++kx) {
        const Real* from = rows.at[ky] + (2 * j + (kx - 1) * a.dilation) * x.row;
        Vector k = weight(ky * 3 + kx);
        for (Size n = 0; n < EACH; ++n) totals[n] += relu(lanes.load(from + 2 * n * x.row)) * k;
      }
    }
    for (Size n = 0; n < EACH; ++n) put(j + n, totals[n]);
  }
  for (; j < a.w_out; ++j) at_the_side(j);
}

// Row `r` of all frames, of some channels of the output.
static inline void depthwise_row(const Depthwise& a, Pixels x, Size r, Size channel, Size channels, Pixels y) {
  Size i = r % a.h_out, x_channel = channel % a.c_in;
  Pixels picture = {x[r / a.h_out * a.h * a.w] + x_channel, x.row};
  over_channels(channels, [&](auto lanes, Size c) {
    const Real* taps = a.taps + channel + c;
    auto put = [&](Size j, Vector v) { lanes.store(y[j] + c, v); };
    if (a.stride == 2) return convolve_row_stride2(lanes, a, picture.from(c), i, taps, put);
    Rows rows(picture.first + c, i, a.dilation, a.h, a.w * x.row);
    with_prologue(lanes, a.norm, x_channel + c, [&](auto prepare) {
      convolve_row(lanes, rows, x.row, taps, a.channels, false, prepare, a.w, a.dilation, put);
    });
  });
}
