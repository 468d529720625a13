// Every other pixel of a picture, taken and put back.
#include "vectors.h"

namespace {

template <class T>
struct PickPixels {
  const T* x;
  Size row;
  T* y;
  Size frames, h, w, h_out, w_out, channels, offset, threads;
};

template <class T>
void pick_pixels(const PickPixels<T>& a) {
  in_parallel(a.threads, a.frames * a.h_out, [&](Size r) {
    Size i = r % a.h_out * 2 + a.offset;
    const T* x = a.x + (r / a.h_out * a.h + i) * a.w * a.row;
    for (Size j = 0; j < a.w_out; ++j) {
      T* y = a.y + (r * a.w_out + j) * a.channels;
      Size b = 2 * j + a.offset;
      if (i >= a.h || b >= a.w)
        std::fill_n(y, a.channels, T(0));
      else
        over_channels<T>(a.channels,
                         [&](auto lanes, Size c) { lanes.store(y + c, relu<T>(lanes.load(x + b * a.row + c))); });
    }
  });
}

template <class T>
struct SpreadPixels {
  const T *even, *odd;
  T* dx;
  Size frames, h, w, h_out, w_out, channels, add, threads;
};

template <class T>
void spread_pixels(const SpreadPixels<T>& a) {
  in_parallel(a.threads, a.frames * a.h, [&](Size r) {
    Size i = r % a.h;
    const T* from = i % 2 ? a.odd : a.even;
    for (Size j = 0; j < a.w; ++j) {
      T* to = a.dx + (r * a.w + j) * a.channels;
      bool there = from && i % 2 == j % 2;
      if (!there && !a.add) std::fill_n(to, a.channels, T(0));
      if (!there) continue;
      const T* pixel = from + ((r / a.h * a.h_out + i / 2) * a.w_out + j / 2) * a.channels;
      over_channels<T>(a.channels, [&](auto lanes, Size c) {
        Vector<T> v = lanes.load(pixel + c);
        lanes.store(to + c, a.add ? v + lanes.load(to + c) : v);
      });
    }
  });
}

}  // namespace

EXPORT(pick_pixels, PickPixels)
EXPORT(spread_pixels, SpreadPixels)
