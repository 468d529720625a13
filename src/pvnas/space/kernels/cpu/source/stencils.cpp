// Depthwise 3x3 convolutions of several edges, forward and backward; ReLU and BN before them are made on the way.
//
// At stride 1 row by row, a vector of channels at a time: each pixel of three rows is read once and gives its share to
// the sums of three columns, which are held in registers.
#include "vectors.h"

namespace {

enum Seen { AS_IS, RECTIFIED, NORMED };

// How a convolution sees what it reads.
template <class T, Seen SEEN>
struct Sight {
  Vector<T> factor, shift;  // of BN
  inline Vector<T> operator()(Vector<T> x) const {
    if (SEEN == NORMED) x = x * factor + shift;
    return SEEN == AS_IS ? x : rectified<T>(x);
  }
};

template <class T, Seen SEEN, class Lanes>
Sight<T, SEEN> sight_of(Lanes lanes, const T* mean, const T* inverse, Size c) {
  Sight<T, SEEN> sight{};
  if (SEEN == NORMED) {
    sight.factor = lanes.load(inverse + c);
    sight.shift = -lanes.load(mean + c) * sight.factor;
  }
  return sight;
}

// Kernels (C, 9) tap by tap: (9, C).
template <class T>
std::vector<T> by_tap(const T* kernel, Size channels) {
  std::vector<T> taps(9 * channels);
  for (Size c = 0; c < channels; ++c)
    for (int tap = 0; tap < 9; ++tap) taps[tap * channels + c] = kernel[c * 9 + tap];
  return taps;
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
};

// One row of the output, for one vector of channels. `flip`: by the kernel turned round, as gradients are.
template <class T, Seen SEEN, bool ADDED, class Lanes>
inline void convolve_row(Lanes lanes, const Rows<T>& rows, Size x_step, const T* taps, Size taps_step, bool flip,
                         const Sight<T, SEEN>& sight, T* y, Size y_step, Size w, Size dilation) {
  Vector<T> k[3][3];
  for (int ky = 0; ky < 3; ++ky)
    for (int kx = 0; kx < 3; ++kx) {
      int tap = flip ? 8 - ky * 3 - kx : ky * 3 + kx;
      k[ky][kx] = rows.inside[ky] ? lanes.load(taps + tap * taps_step) : Vector<T>{};
    }
  const T *x0 = rows.at[0], *x1 = rows.at[1], *x2 = rows.at[2];
  auto put = [&](Size j, Vector<T> v) {
    T* to = y + j * y_step;
    lanes.store(to, ADDED ? v + lanes.load(to) : v);
  };
  for (Size phase = 0; phase < std::min(dilation, w); ++phase) {
    Vector<T> before = {}, here = {};
    Size j = phase;
    for (; j < w; j += dilation) {
      Vector<T> a = sight(lanes.load(x0 + j * x_step)), b = sight(lanes.load(x1 + j * x_step)),
                c = sight(lanes.load(x2 + j * x_step));
      Vector<T> last = before + (a * k[0][2] + b * k[1][2] + c * k[2][2]);
      if (j >= dilation) put(j - dilation, last);
      before = here + (a * k[0][1] + b * k[1][1] + c * k[2][1]);
      here = a * k[0][0] + b * k[1][0] + c * k[2][0];
    }
    put(j - dilation, before);
  }
}

// ---- forward

template <class T>
struct Depthwise {
  const T* x;
  Size x_row;
  const T *kernel, *mean, *inverse;
  T* y;
  Size frames, h, w, h_out, w_out, c_in, c_out, stride, dilation, threads;
};

template <class T, Seen SEEN>
void depthwise_rows(const Depthwise<T>& a, const T* taps) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size r = 0; r < a.frames * a.h; ++r) {
    Rows<T> rows(a.x + r / a.h * a.h * a.w * a.x_row, r % a.h, a.dilation, a.h, a.w * a.x_row);
    T* y = a.y + r * a.w * a.c_out;
    for (Size first = 0; first < a.c_out; first += a.c_in)
      over_channels<T>(a.c_in, [&](auto lanes, Size c) {
        Rows<T> own = rows;
        for (auto& at : own.at) at += c;
        convolve_row<T, SEEN, false>(lanes, own, a.x_row, taps + first + c, a.c_out, false,
                                     sight_of<T, SEEN>(lanes, a.mean, a.inverse, c), y + first + c, a.c_out, a.w,
                                     a.dilation);
      });
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

template <class T>
void depthwise_stride2(const Depthwise<T>& a, const T* taps) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size r = 0; r < a.frames * a.h_out; ++r) {
    const T* x = a.x + r / a.h_out * a.h * a.w * a.x_row;
    for (Size j = 0; j < a.w_out; ++j) {
      T* y = a.y + (r * a.w_out + j) * a.c_out;
      for (Size first = 0; first < a.c_out; first += a.c_in)
        over_channels<T>(a.c_in, [&](auto lanes, Size c) {
          Vector<T> total = {};
          over_taps(r % a.h_out, j, a.dilation, a.h, a.w, [&](int tap, Size pixel) {
            Vector<T> seen = rectified<T>(lanes.load(x + pixel * a.x_row + c));
            total += seen * lanes.load(taps + tap * a.c_out + first + c);
          });
          lanes.store(y + first + c, total);
        });
    }
  }
}

template <class T>
void depthwise(const Depthwise<T>& a) {
  auto taps = by_tap(a.kernel, a.c_out);
  if (a.stride == 2)
    depthwise_stride2(a, taps.data());
  else if (a.mean)
    depthwise_rows<T, NORMED>(a, taps.data());
  else
    depthwise_rows<T, RECTIFIED>(a, taps.data());
}

// ---- gradient of the input

template <class T>
struct InputGradient {
  const T* g;
  Size g_row;
  const T *kernel, *z;  // z, where BN stands before the ReLU: what it has seen
  Size z_row;
  const T *mean, *inverse;
  T *dx, *sums;  // sums (parts, 2, C) of dx and of dx * BN(z)
  Size parts, frames, h, w, h_out, w_out, channels, edges, stride, dilation, added, threads;
};

template <class T>
void input_gradient_row(const InputGradient<T>& a, const T* taps, Size frame, Size i) {
  Rows<T> rows(a.g + frame * a.h * a.w * a.g_row, i, a.dilation, a.h, a.w * a.g_row);
  T* dx = a.dx + (frame * a.h + i) * a.w * a.channels;
  over_channels<T>(a.channels, [&](auto lanes, Size c) {
    for (Size edge = 0; edge < a.edges; ++edge) {
      Size of_edge = edge * a.channels + c;
      Rows<T> own = rows;
      for (auto& at : own.at) at += of_edge;
      auto convolve = [&](auto added) {
        convolve_row<T, AS_IS, added.value>(lanes, own, a.g_row, taps + of_edge, a.edges * a.channels, true,
                                            Sight<T, AS_IS>{}, dx + c, a.channels, a.w, a.dilation);
      };
      if (edge || a.added)
        convolve(std::true_type{});
      else
        convolve(std::false_type{});
    }
  });
}

// Past the ReLU of BN(z), with the sums that BN's backward pass asks for.
template <class T>
void rectify_row(const InputGradient<T>& a, Size frame, Size i, T* sums) {
  Size first = (frame * a.h + i) * a.w;
  T* dx = a.dx + first * a.channels;
  const T* z = a.z + first * a.z_row;
  over_channels<T>(a.channels, [&](auto lanes, Size c) {
    Vector<T> mean = lanes.load(a.mean + c), inverse = lanes.load(a.inverse + c);
    Vector<T> sum = lanes.load(sums + c), along = lanes.load(sums + a.channels + c);
    for (Size j = 0; j < a.w; ++j) {
      Vector<T> normed = (lanes.load(z + j * a.z_row + c) - mean) * inverse;
      Vector<T> g = lanes.load(dx + j * a.channels + c);
      g = normed > 0 ? g : Vector<T>{};
      sum += g;
      along += g * normed;
      lanes.store(dx + j * a.channels + c, g);
    }
    lanes.store(sums + c, sum);
    lanes.store(sums + a.channels + c, along);
  });
}

// At stride 2 each pixel of the output gives to those that it has read.
template <class T>
void input_gradient_frame(const InputGradient<T>& a, const T* taps, Size frame) {
  T* dx = a.dx + frame * a.h * a.w * a.channels;
  if (!a.added) std::fill_n(dx, a.h * a.w * a.channels, T(0));
  for (Size i = 0; i < a.h_out; ++i)
    for (Size j = 0; j < a.w_out; ++j) {
      const T* g = a.g + ((frame * a.h_out + i) * a.w_out + j) * a.g_row;
      over_taps(i, j, a.dilation, a.h, a.w, [&](int tap, Size pixel) {
        T* to = dx + pixel * a.channels;
        over_channels<T>(a.channels, [&](auto lanes, Size c) {
          Vector<T> total = lanes.load(to + c);
          for (Size first = c; first < a.edges * a.channels; first += a.channels)
            total += lanes.load(g + first) * lanes.load(taps + tap * a.edges * a.channels + first);
          lanes.store(to + c, total);
        });
      });
    }
}

template <class T>
void depthwise_input_gradient(const InputGradient<T>& a) {
  auto taps = by_tap(a.kernel, a.edges * a.channels);
  if (a.stride == 2) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
    for (Size frame = 0; frame < a.frames; ++frame) input_gradient_frame(a, taps.data(), frame);
  } else if (!a.z) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
    for (Size r = 0; r < a.frames * a.h; ++r) input_gradient_row(a, taps.data(), r / a.h, r % a.h);
  } else {
#pragma omp parallel for num_threads(a.threads) schedule(static)
    for (Size part = 0; part < a.parts; ++part) {
      T* sums = a.sums + part * 2 * a.channels;
      std::fill_n(sums, 2 * a.channels, T(0));
      Range rows(a.frames * a.h, a.parts, part);
      for (Size r = rows.begin; r < rows.end; ++r) {
        input_gradient_row(a, taps.data(), r / a.h, r % a.h);
        rectify_row(a, r / a.h, r % a.h, sums);
      }
    }
  }
}

// ---- gradient of the kernels

template <class T>
struct KernelGradient {
  const T* g;
  Size g_row;
  const T* x;
  Size x_row;
  const T *mean, *inverse;
  T* sums;  // (parts, 9, kC)
  Size parts, frames, h, w, h_out, w_out, c_in, c_out, stride, dilation, threads;
};

// What one row of gradients adds to the sums of one vector of channels.
template <class T, Seen SEEN, class Lanes>
inline void correlate_row(Lanes lanes, const Rows<T>& rows, Size x_step, const Sight<T, SEEN>& sight, const T* g,
                          Size g_step, T* sums, Size sums_step, Size w, Size dilation) {
  Vector<T> s[3][3];
  for (int tap = 0; tap < 9; ++tap) s[tap / 3][tap % 3] = lanes.load(sums + tap * sums_step);
  const T *x0 = rows.at[0], *x1 = rows.at[1], *x2 = rows.at[2];
  for (Size phase = 0; phase < std::min(dilation, w); ++phase) {
    Vector<T> before = {}, here = lanes.load(g + phase * g_step);
    for (Size j = phase; j < w; j += dilation) {
      Vector<T> after = j + dilation < w ? lanes.load(g + (j + dilation) * g_step) : Vector<T>{};
      Vector<T> a = sight(lanes.load(x0 + j * x_step)), b = sight(lanes.load(x1 + j * x_step)),
                c = sight(lanes.load(x2 + j * x_step));
      s[0][0] += a * after, s[0][1] += a * here, s[0][2] += a * before;
      s[1][0] += b * after, s[1][1] += b * here, s[1][2] += b * before;
      s[2][0] += c * after, s[2][1] += c * here, s[2][2] += c * before;
      before = here;
      here = after;
    }
  }
  for (int tap = 0; tap < 9; ++tap)
    if (rows.inside[tap / 3]) lanes.store(sums + tap * sums_step, s[tap / 3][tap % 3]);
}

template <class T, Seen SEEN>
void kernel_gradient_row(const KernelGradient<T>& a, Size r, T* sums) {
  Rows<T> rows(a.x + r / a.h * a.h * a.w * a.x_row, r % a.h, a.dilation, a.h, a.w * a.x_row);
  const T* g = a.g + r * a.w * a.g_row;
  for (Size first = 0; first < a.c_out; first += a.c_in)
    over_channels<T>(a.c_in, [&](auto lanes, Size c) {
      Rows<T> own = rows;
      for (auto& at : own.at) at += c;
      correlate_row<T, SEEN>(lanes, own, a.x_row, sight_of<T, SEEN>(lanes, a.mean, a.inverse, c), g + first + c,
                             a.g_row, sums + first + c, a.c_out, a.w, a.dilation);
    });
}

template <class T>
void kernel_gradient_row_stride2(const KernelGradient<T>& a, Size r, T* sums) {
  const T* x = a.x + r / a.h_out * a.h * a.w * a.x_row;
  for (Size first = 0; first < a.c_out; first += a.c_in)
    over_channels<T>(a.c_in, [&](auto lanes, Size c) {
      Vector<T> s[9];
      for (int tap = 0; tap < 9; ++tap) s[tap] = lanes.load(sums + tap * a.c_out + first + c);
      for (Size j = 0; j < a.w_out; ++j) {
        Vector<T> g = lanes.load(a.g + (r * a.w_out + j) * a.g_row + first + c);
        over_taps(r % a.h_out, j, a.dilation, a.h, a.w, [&](int tap, Size pixel) {
          s[tap] += g * rectified<T>(lanes.load(x + pixel * a.x_row + c));
        });
      }
      for (int tap = 0; tap < 9; ++tap) lanes.store(sums + tap * a.c_out + first + c, s[tap]);
    });
}

template <class T>
void depthwise_kernel_gradient(const KernelGradient<T>& a) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size part = 0; part < a.parts; ++part) {
    T* sums = a.sums + part * 9 * a.c_out;
    std::fill_n(sums, 9 * a.c_out, T(0));
    Range rows(a.frames * a.h_out, a.parts, part);
    for (Size r = rows.begin; r < rows.end; ++r) {
      if (a.stride == 2)
        kernel_gradient_row_stride2(a, r, sums);
      else if (a.mean)
        kernel_gradient_row<T, NORMED>(a, r, sums);
      else
        kernel_gradient_row<T, RECTIFIED>(a, r, sums);
    }
  }
}

}  // namespace

EXPORT(depthwise, Depthwise)
EXPORT(depthwise_input_gradient, InputGradient)
EXPORT(depthwise_kernel_gradient, KernelGradient)
