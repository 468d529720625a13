// Depthwise 3x3 convolutions of several edges, backward. Forward they are computed where channel_conv reads them.
#include "stencils.h"

namespace {

// ---- gradient of the input

template <class T>
struct InputGradient {
  const T* g;
  Size g_row;
  const T *taps, *z;  // z: what the batch norm before the ReLU reads, if there is one
  Size z_row;
  const T *mean, *inverse;
  T *dx, *sums;  // sums (parts, 2, C) of dx and of dx times the batch norm of z
  Size parts, frames, h, w, h_out, w_out, channels, edges, stride, dilation, add, threads;
};

// The sum over all edges, which share what they read.
template <class T>
void input_gradient_row(const InputGradient<T>& a, Size r, bool streamed) {
  Rows<T> rows(a.g + r / a.h * a.h * a.w * a.g_row, r % a.h, a.dilation, a.h, a.w * a.g_row);
  over_written<T>(streamed, a.channels, [&](auto lanes, Size c) {
    T* dx = a.dx + r * a.w * a.channels + c;
    for (Size edge = 0; edge < a.edges; ++edge) {
      Size of_edge = edge * a.channels + c;
      auto convolve = [&](auto put) {
        convolve_row<T, AS_IS>(lanes, rows.from(of_edge), a.g_row, a.taps + of_edge, a.edges * a.channels, true,
                               Prepare<T, AS_IS>{}, a.w, a.dilation, put);
      };
      if (edge || a.add)
        convolve([&](Size j, Vector<T> v) { lanes.store(dx + j * a.channels, v + lanes.load(dx + j * a.channels)); });
      else
        convolve([&](Size j, Vector<T> v) { lanes.store(dx + j * a.channels, v); });
    }
  });
}

// Through the ReLU of a batch norm of z, with the sums that its backward pass needs.
template <class T>
void norm_gradient_row(const InputGradient<T>& a, Size r, bool streamed, T* sums) {
  Rows<T> rows(a.g + r / a.h * a.h * a.w * a.g_row, r % a.h, a.dilation, a.h, a.w * a.g_row);
  over_written<T>(streamed, a.channels, [&](auto lanes, Size c) {
    Vector<T> mean = lanes.load(a.mean + c), inverse = lanes.load(a.inverse + c);
    Vector<T> sum = {}, product = {};
    auto put = [&](Size j, Vector<T> g) {
      Vector<T> normed = (lanes.load(a.z + (r * a.w + j) * a.z_row + c) - mean) * inverse;
      g = normed > 0 ? g : Vector<T>{};
      sum += g;
      product += g * normed;
      lanes.store(a.dx + (r * a.w + j) * a.channels + c, g);
    };
    convolve_row<T, AS_IS>(lanes, rows.from(c), a.g_row, a.taps + c, a.channels, true, Prepare<T, AS_IS>{}, a.w,
                           a.dilation, put);
    lanes.keep(sums + c, sum + lanes.load(sums + c));
    lanes.keep(sums + a.channels + c, product + lanes.load(sums + a.channels + c));
  });
}

// At stride 2 each pixel of the output adds to those that it has read.
template <class T>
void input_gradient_frame(const InputGradient<T>& a, Size frame) {
  T* dx = a.dx + frame * a.h * a.w * a.channels;
  if (!a.add) std::fill_n(dx, a.h * a.w * a.channels, T(0));
  for (Size i = 0; i < a.h_out; ++i)
    for (Size j = 0; j < a.w_out; ++j) {
      const T* g = a.g + ((frame * a.h_out + i) * a.w_out + j) * a.g_row;
      over_taps(i, j, a.dilation, a.h, a.w, [&](int tap, Size pixel) {
        T* to = dx + pixel * a.channels;
        over_channels<T>(a.channels, [&](auto lanes, Size c) {
          Vector<T> total = lanes.load(to + c);
          for (Size first = c; first < a.edges * a.channels; first += a.channels)
            total += lanes.load(g + first) * lanes.load(a.taps + tap * a.edges * a.channels + first);
          lanes.store(to + c, total);
        });
      });
    }
}

template <class T>
void depthwise_input_grad(const InputGradient<T>& a) {
  Size rows = a.frames * a.h;
  bool streamed = LINES && !a.add && a.edges == 1 && streams(a.dx, rows * a.w, {a.channels});
  if (a.stride == 2)
    in_parallel(a.threads, a.frames, [&](Size frame) { input_gradient_frame(a, frame); });
  else if (!a.z)
    in_parallel(a.threads, rows, [&](Size r) { input_gradient_row(a, r, streamed); });
  else
    in_parallel(a.threads, a.parts, [&](Size part) {
      T* sums = a.sums + part * 2 * a.channels;
      std::fill_n(sums, 2 * a.channels, T(0));
      Range range(rows, a.parts, part);
      for (Size r = range.begin; r < range.end; ++r) norm_gradient_row(a, r, streamed, sums);
    });
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
template <class T, Prologue BEFORE, class Lanes>
inline void correlate_row(Lanes lanes, const Rows<T>& rows, Size x_step, const Prepare<T, BEFORE>& prepare, const T* g,
                          Size g_step, T* sums, Size sums_step, Size w, Size dilation) {
  Vector<T> s[3][3];
  for (int tap = 0; tap < 9; ++tap) s[tap / 3][tap % 3] = lanes.load(sums + tap * sums_step);
  const T *x0 = rows.at[0], *x1 = rows.at[1], *x2 = rows.at[2];
  for (Size phase = 0; phase < std::min(dilation, w); ++phase) {
    Vector<T> before = {}, here = lanes.load(g + phase * g_step);
    for (Size j = phase; j < w; j += dilation) {
      Vector<T> after = j + dilation < w ? lanes.load(g + (j + dilation) * g_step) : Vector<T>{};
      Vector<T> a = prepare(lanes.load(x0 + j * x_step)), b = prepare(lanes.load(x1 + j * x_step)),
                c = prepare(lanes.load(x2 + j * x_step));
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

template <class T, Prologue BEFORE>
void kernel_gradient_row(const KernelGradient<T>& a, Size r, T* sums) {
  Rows<T> rows(a.x + r / a.h * a.h * a.w * a.x_row, r % a.h, a.dilation, a.h, a.w * a.x_row);
  const T* g = a.g + r * a.w * a.g_row;
  for (Size first = 0; first < a.c_out; first += a.c_in)
    over_channels<T>(a.c_in, [&](auto lanes, Size c) {
      auto prepare = prologue_of<T, BEFORE>(lanes, a.mean, a.inverse, c);
      correlate_row<T, BEFORE>(lanes, rows.from(c), a.x_row, prepare, g + first + c, a.g_row, sums + first + c, a.c_out,
                               a.w, a.dilation);
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
          s[tap] += g * relu<T>(lanes.load(x + pixel * a.x_row + c));
        });
      }
      for (int tap = 0; tap < 9; ++tap) lanes.store(sums + tap * a.c_out + first + c, s[tap]);
    });
}

template <class T>
void depthwise_kernel_grad(const KernelGradient<T>& a) {
  in_parallel(a.threads, a.parts, [&](Size part) {
    T* sums = a.sums + part * 9 * a.c_out;
    std::fill_n(sums, 9 * a.c_out, T(0));
    Range rows(a.frames * a.h_out, a.parts, part);
    for (Size r = rows.begin; r < rows.end; ++r) {
      if (a.stride == 2)
        kernel_gradient_row_stride2(a, r, sums);
      else if (a.mean)
        kernel_gradient_row<T, NORM_RELU>(a, r, sums);
      else
        kernel_gradient_row<T, RELU>(a, r, sums);
    }
  });
}

}  // namespace

EXPORT(depthwise_input_grad, InputGradient)
EXPORT(depthwise_kernel_grad, KernelGradient)
