// Depthwise 3x3 convolutions of several edges, backward. Forward they are computed where channel_conv reads them.
#include "stencils.h"

// ---- gradient of the input

constexpr auto as_it_is = [](Vector x) { return x; };

struct InputGradient {
  Size threads;
  Pixels g;
  const Real* taps;
  Pixels z;  // what the batch norm before the ReLU reads, if there is one
  Norm norm;
  Real *dx, *sums;  // sums (parts, 2, C) of dx and of dx times z as the batch norm has it before its parameters
  Size parts, frames, h, w, h_out, w_out, channels, edges, stride, dilation, add;
};

// The sum over all edges, which share what they read.
static void input_gradient_row(const InputGradient& a, Size r, bool streamed) {
  Rows rows(a.g[r / a.h * a.h * a.w], r % a.h, a.dilation, a.h, a.w * a.g.row);
  over_written(streamed, a.channels, [&](auto lanes, Size c) {
    Real* dx = a.dx + r * a.w * a.channels + c;
    for (Size edge = 0; edge < a.edges; ++edge) {
      Size of_edge = edge * a.channels + c;
      auto convolve = [&](auto put) {
        convolve_row(lanes, rows.from(of_edge), a.g.row, a.taps + of_edge, a.edges * a.channels, true, as_it_is, a.w,
                     a.dilation, put);
      };
      if (edge || a.add)
        convolve([&](Size j, Vector v) { lanes.store(dx + j * a.channels, v + lanes.load(dx + j * a.channels)); });
      else
        convolve([&](Size j, Vector v) { lanes.store(dx + j * a.channels, v); });
    }
  });
}

// Through the ReLU of a batch norm of z, with the sums that its backward pass needs.
static void norm_gradient_row(const InputGradient& a, Size r, bool streamed, Real* sums) {
  Rows rows(a.g[r / a.h * a.h * a.w], r % a.h, a.dilation, a.h, a.w * a.g.row);
  over_written(streamed, a.channels, [&](auto lanes, Size c) {
    Vector mean = lanes.load(a.norm.mean + c), inverse = lanes.load(a.norm.inverse + c), none = {};
    Vector weight = a.norm.weight ? lanes.load(a.norm.weight + c) : none + Real(1);
    Vector bias = a.norm.bias ? lanes.load(a.norm.bias + c) : none;
    Vector sum = {}, product = {};
    auto put = [&](Size j, Vector g) {
      Vector normed = (lanes.load(a.z[r * a.w + j] + c) - mean) * inverse;
      g = normed * weight + bias > 0 ? g : none;
      sum += g;
      product += g * normed;
      lanes.store(a.dx + (r * a.w + j) * a.channels + c, g);
    };
    convolve_row(lanes, rows.from(c), a.g.row, a.taps + c, a.channels, true, as_it_is, a.w, a.dilation, put);
    lanes.keep(sums + c, sum + lanes.load(sums + c));
    lanes.keep(sums + a.channels + c, product + lanes.load(sums + a.channels + c));
  });
}

// At stride 2 each pixel of the output adds to those that it has read.
static void input_gradient_frame(const InputGradient& a, Size frame) {
  Real* dx = a.dx + frame * a.h * a.w * a.channels;
  if (!a.add) std::fill_n(dx, a.h * a.w * a.channels, Real(0));
  for (Size i = 0; i < a.h_out; ++i)
    for (Size j = 0; j < a.w_out; ++j) {
      const Real* g = a.g[(frame * a.h_out + i) * a.w_out + j];
      over_taps(i, j, a.dilation, a.h, a.w, [&](int tap, Size pixel) {
        Real* to = dx + pixel * a.channels;
        over_channels(a.channels, [&](auto lanes, Size c) {
          Vector total = lanes.load(to + c);
          for (Size first = c; first < a.edges * a.channels; first += a.channels)
            total += lanes.load(g + first) * lanes.load(a.taps + tap * a.edges * a.channels + first);
          lanes.store(to + c, total);
        });
      });
    }
}

extern "C" void pvnas_depthwise_input_grad(const InputGradient& a) {
  Size rows = a.frames * a.h;
  bool streamed = LINES && !a.add && a.edges == 1 && streams(a.dx, rows * a.w, {a.channels});
  if (a.stride == 2)
    in_parallel(a.threads, a.frames, [&](Size frame) { input_gradient_frame(a, frame); });
  else if (!a.z.first)
    in_parallel(a.threads, rows, [&](Size r) { input_gradient_row(a, r, streamed); });
  else
    in_parallel(a.threads, a.parts, [&](Size part) {
      Real* sums = a.sums + part * 2 * a.channels;
      std::fill_n(sums, 2 * a.channels, Real(0));
      Range range(rows, a.parts, part);
      for (Size r = range.begin; r < range.end; ++r) norm_gradient_row(a, r, streamed, sums);
    });
}

// ---- gradient of the kernels

struct KernelGradient {
  Size threads;
  Pixels g, x;
  Norm norm;
  Real* sums;  // (parts, 9, kC)
  Size parts, frames, h, w, h_out, w_out, c_in, c_out, stride, dilation;
};

// What one row of gradients adds to the sums of one vector of channels.
template <class Lanes, class Prepare>
inline void correlate_row(Lanes lanes, const Rows& rows, Size x_step, Prepare prepare, const Real* g, Size g_step,
                          Real* sums, Size sums_step, Size w, Size dilation) {
  Vector s[3][3];
  for (int tap = 0; tap < 9; ++tap) s[tap / 3][tap % 3] = lanes.load(sums + tap * sums_step);
  const Real *x0 = rows.at[0], *x1 = rows.at[1], *x2 = rows.at[2];
  for (Size phase = 0; phase < std::min(dilation, w); ++phase) {
    Vector before = {}, here = lanes.load(g + phase * g_step);
    for (Size j = phase; j < w; j += dilation) {
      Vector after = j + dilation < w ? lanes.load(g + (j + dilation) * g_step) : Vector{};
      Vector a = prepare(lanes.load(x0 + j * x_step)), b = prepare(lanes.load(x1 + j * x_step)),
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

static void kernel_gradient_row(const KernelGradient& a, Size r, Real* sums) {
  Rows rows(a.x[r / a.h * a.h * a.w], r % a.h, a.dilation, a.h, a.w * a.x.row);
  const Real* g = a.g[r * a.w];
  for (Size first = 0; first < a.c_out; first += a.c_in)
    over_channels(a.c_in, [&](auto lanes, Size c) {
      with_prologue(lanes, a.norm, c, [&](auto prepare) {
        correlate_row(lanes, rows.from(c), a.x.row, prepare, g + first + c, a.g.row, sums + first + c, a.c_out, a.w,
                      a.dilation);
      });
    });
}

static void kernel_gradient_row_stride2(const KernelGradient& a, Size r, Real* sums) {
  Pixels x = {a.x[r / a.h_out * a.h * a.w], a.x.row};
  for (Size first = 0; first < a.c_out; first += a.c_in)
    over_channels(a.c_in, [&](auto lanes, Size c) {
      Vector s[9];
      for (int tap = 0; tap < 9; ++tap) s[tap] = lanes.load(sums + tap * a.c_out + first + c);
      for (Size j = 0; j < a.w_out; ++j) {
        Vector g = lanes.load(a.g[r * a.w_out + j] + first + c);
        over_taps(r % a.h_out, j, a.dilation, a.h, a.w, [&](int tap, Size pixel) {
          s[tap] += g * relu(lanes.load(x[pixel] + c));
        });
      }
      for (int tap = 0; tap < 9; ++tap) lanes.store(sums + tap * a.c_out + first + c, s[tap]);
    });
}

extern "C" void pvnas_depthwise_kernel_grad(const KernelGradient& a) {
  in_parallel(a.threads, a.parts, [&](Size part) {
    Real* sums = a.sums + part * 9 * a.c_out;
    std::fill_n(sums, 9 * a.c_out, Real(0));
    Range rows(a.frames * a.h_out, a.parts, part);
    auto add_row = a.stride == 2 ? kernel_gradient_row_stride2 : kernel_gradient_row;
    for (Size r = rows.begin; r < rows.end; ++r) add_row(a, r, sums);
  });
}
