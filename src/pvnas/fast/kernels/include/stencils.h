// Depthwise 3x3 convolutions row by row; ReLU and BN before them are computed as it reads.
//
// At stride 1 a vector of channels at a time: each pixel of three rows is read once and gives its share to the sums of
// three columns, which are held in registers.
#pragma once

#include "vectors.h"

enum Prologue { AS_IS, RELU, NORM_RELU };

// What a convolution makes of what it reads before it multiplies.
template <class T, Prologue BEFORE>
struct Prepare {
  Vector<T> factor, shift;  // of BN
  inline Vector<T> operator()(Vector<T> x) const {
    if (BEFORE == NORM_RELU) x = x * factor + shift;
    return BEFORE == AS_IS ? x : relu<T>(x);
  }
};

template <class T, Prologue BEFORE, class Lanes>
Prepare<T, BEFORE> prologue_of(Lanes lanes, const T* mean, const T* inverse, Size c) {
  Prepare<T, BEFORE> prepare{};
  if (BEFORE == NORM_RELU) {
    prepare.factor = lanes.load(inverse + c);
    prepare.shift = -lanes.load(mean + c) * prepare.factor;
  }
  return prepare;
}

// The three rows that a row of the output reads; of those past the picture nothing counts, whatever stands for them.
template <class T>
struct Rows {
  const T* at[3];
  bool inside[3];
  Rows(const T* picture, Size i, Size dilation, Size h, Size row) {
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
template <class T, Prologue BEFORE, class Lanes, class Put>
inline void convolve_row(Lanes lanes, const Rows<T>& rows, Size x_step, const T* taps, Size taps_step, bool flip,
                         const Prepare<T, BEFORE>& prepare, Size w, Size dilation, Put put) {
  Vector<T> k[3][3];
  for (int ky = 0; ky < 3; ++ky)
    for (int kx = 0; kx < 3; ++kx) {
      int tap = flip ? 8 - ky * 3 - kx : ky * 3 + kx;
      k[ky][kx] = rows.inside[ky] ? lanes.load(taps + tap * taps_step) : Vector<T>{};
    }
  const T *x0 = rows.at[0], *x1 = rows.at[1], *x2 = rows.at[2];
  for (Size phase = 0; phase < std::min(dilation, w); ++phase) {
    Vector<T> before = {}, here = {};
    Size j = phase;
    for (; j < w; j += dilation) {
      Vector<T> a = prepare(lanes.load(x0 + j * x_step)), b = prepare(lanes.load(x1 + j * x_step)),
                c = prepare(lanes.load(x2 + j * x_step));
      Vector<T> last = before + (a * k[0][2] + b * k[1][2] + c * k[2][2]);
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
template <class T>
struct Depthwise {
  const T *taps, *mean, *inverse;
  Size channels, c_in, h, w, h_out, w_out, stride, dilation;
};

// One row of the output at stride 2, for one vector of channels: several columns at a time, whose sums do not wait for
// each other. Each adds the taps in their order, whichever way it goes.
template <class T, class Lanes, class Put>
inline void convolve_row_stride2(Lanes lanes, const Depthwise<T>& a, const T* x, Size x_row, Size i, const T* taps,
                                 Put put) {
  constexpr Size EACH = 4;
  auto weight = [&](int tap) { return lanes.load(taps + tap * a.channels); };
  auto at_the_side = [&](Size j) {
    Vector<T> total = {};
    over_taps(i, j, a.dilation, a.h, a.w,
              [&](int tap, Size pixel) { total += relu<T>(lanes.load(x + pixel * x_row)) * weight(tap); });
    put(j, total);
  };
  at_the_side(0);
  Size j = 1;
  Rows<T> rows(x, 2 * i, a.dilation, a.h, a.w * x_row);
  for (; 2 * (j + EACH - 1) + a.dilation < a.w; j += EACH) {
    Vector<T> totals[EACH] = {};
    for (int ky = 0; ky < 3; ++ky) {
      if (!rows.inside[ky]) continue;
      for (int kx = 0; kx < 3; ++kx) {
        const T* from = rows.at[ky] + (2 * j + (kx - 1) * a.dilation) * x_row;
        Vector<T> k = weight(ky * 3 + kx);
        for (Size n = 0; n < EACH; ++n) totals[n] += relu<T>(lanes.load(from + 2 * n * x_row)) * k;
      }
    }
    for (Size n = 0; n < EACH; ++n) put(j + n, totals[n]);
  }
  for (; j < a.w_out; ++j) at_the_side(j);
}

// Row `r` of all frames, of some channels of the output, to where pixels lie y_row apart.
template <class T, Prologue BEFORE>
void depthwise_row(const Depthwise<T>& a, const T* x, Size x_row, Size r, Size channel, Size channels, T* y,
                   Size y_row) {
  Size i = r % a.h_out, x_channel = channel % a.c_in;
  const T* picture = x + r / a.h_out * a.h * a.w * x_row + x_channel;
  over_channels<T>(channels, [&](auto lanes, Size c) {
    const T* taps = a.taps + channel + c;
    if (a.stride == 2) {
      convolve_row_stride2(lanes, a, picture + c, x_row, i, taps,
                           [&](Size j, Vector<T> v) { lanes.store(y + j * y_row + c, v); });
    } else {
      Rows<T> rows(picture + c, i, a.dilation, a.h, a.w * x_row);
      convolve_row<T, BEFORE>(lanes, rows, x_row, taps, a.channels, false,
                              prologue_of<T, BEFORE>(lanes, a.mean, a.inverse, x_channel + c), a.w, a.dilation,
                              [&](Size j, Vector<T> v) { lanes.store(y + j * y_row + c, v); });
    }
  });
}
