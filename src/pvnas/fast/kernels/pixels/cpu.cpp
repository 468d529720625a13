// Every other pixel of a picture, taken and put back.
#include "vectors.h"

struct PickPixels {
  Size threads;
  Pixels x;
  Real* y;
  Size frames, h, w, h_out, w_out, channels, offset;
};

extern "C" void pvnas_pick_pixels(const PickPixels& a) {
  in_parallel(a.threads, a.frames * a.h_out, [&](Size r) {
    Size i = r % a.h_out * 2 + a.offset;
    Pixels row = {a.x[(r / a.h_out * a.h + i) * a.w], a.x.row};
    for (Size j = 0; j < a.w_out; ++j) {
      Real* y = a.y + (r * a.w_out + j) * a.channels;
      Size b = 2 * j + a.offset;
      if (i >= a.h || b >= a.w)
        std::fill_n(y, a.channels, Real(0));
      else
        over_channels(a.channels, [&](auto lanes, Size c) { lanes.store(y + c, relu(lanes.load(row[b] + c))); });
    }
  });
}

struct SpreadPixels {
  Size threads;
  const Real *even, *odd;
  Real* dx;
  Size frames, h, w, h_out, w_out, channels, add;
};

extern "C" void pvnas_spread_pixels(const SpreadPixels& a) {
  in_parallel(a.threads, a.frames * a.h, [&](Size r) {
    Size i = r % a.h;
    const Real* from = i % 2 ? a.odd : a.even;
    for (Size j = 0; j < a.w; ++j) {
      Real* to = a.dx + (r * a.w + j) * a.channels;
      bool there = from && i % 2 == j % 2;
      if (!there && !a.add) std::fill_n(to, a.channels, Real(0));
      if (!there) continue;
      const Real* pixel = from + ((r / a.h * a.h_out + i / 2) * a.w_out + j / 2) * a.channels;
      over_channels(a.channels, [&](auto lanes, Size c) {
        Vector v = lanes.load(pixel + c);
        lanes.store(to + c, a.add ? v + lanes.load(to + c) : v);
      });
    }
  });
}
