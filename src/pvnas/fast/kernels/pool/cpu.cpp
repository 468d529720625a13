// Both 3x3 poolings of a node in one pass, forward and backward, and one of them alone.
#include "vectors.h"

#include <limits>

// Numbers of pixels: as wide as those that they belong to, and in memory one byte each.
typedef std::conditional_t<SINGLE, int32_t, int64_t> Index;
typedef Index IndexVector __attribute__((vector_size(BYTES)));
typedef uint8_t ByteVector __attribute__((vector_size(LANES)));

template <class Lanes>
static inline IndexVector load_bytes(Lanes lanes, const uint8_t* from) {
  ByteVector bytes = {};
#ifdef WIDE
  __m128i loaded = _mm_maskz_loadu_epi8(__mmask16((1u << lanes.count) - 1), from);
  std::memcpy(&bytes, &loaded, sizeof bytes);
#else
  std::memcpy(&bytes, from, lanes.count);
#endif
  return __builtin_convertvector(bytes, IndexVector);
}

template <class Lanes>
static inline void store_bytes(Lanes lanes, uint8_t* to, IndexVector v) {
  ByteVector bytes = __builtin_convertvector(v, ByteVector);
#ifdef WIDE
  __m128i stored = {};
  std::memcpy(&stored, &bytes, sizeof bytes);
  _mm_mask_storeu_epi8(to, __mmask16((1u << lanes.count) - 1), stored);
#else
  std::memcpy(to, &bytes, lanes.count);
#endif
}

constexpr Real INFINITE = std::numeric_limits<Real>::infinity();

struct Pool {
  Size threads;
  Pixels x;
  Real *average, *maximum;
  uint8_t* which;
  Size frames, h, w, h_out, w_out, channels, stride;
};

// The pixels [begin, end) of a row or column that the window of an output has.
struct Window {
  Size begin, end;
  Window(Size out, Size stride, Size size)
      : begin(std::max<Size>(0, out * stride - 1)), end(std::min(size, out * stride + 2)) {}
  Size count() const { return end - begin; }
};

extern "C" void pvnas_pool(const Pool& a) {
  in_parallel(a.threads, a.frames * a.h_out, [&](Size r) {
    Pixels x = {a.x[r / a.h_out * a.h * a.w], a.x.row};
    Size i = r % a.h_out;
    Window rows(i, a.stride, a.h);
    over_channels(a.channels, [&](auto lanes, Size c) {
      for (Size j = 0; j < a.w_out; ++j) {
        Window columns(j, a.stride, a.w);
        Vector total = {}, best = Vector{} - INFINITE;
        IndexVector index = {};
        for (Size y = rows.begin; y < rows.end; ++y)
          for (Size z = columns.begin; z < columns.end; ++z) {
            Vector v = lanes.load(x[y * a.w + z] + c);
            total += v;
            auto larger = v > best;  // the first of equal ones, as PyTorch's
            best = larger ? v : best;
            Index tap = (y - i * a.stride + 1) * 3 + z - j * a.stride + 1;
            index = larger ? IndexVector{} + tap : index;
          }
        Size to = (r * a.w_out + j) * a.channels + c;
        lanes.store(a.average + to, total * (Real(1) / Real(rows.count() * columns.count())));
        lanes.store(a.maximum + to, best);
        store_bytes(lanes, a.which + to, index);
      }
    });
  });
}

// ---- one of them, for predictions

struct PoolSingle {
  Size threads;
  Pixels x, y;
  Size frames, h, w, h_out, w_out, channels, stride, averages, add;
};

// A row of the output from what the three rows of each column make together.
template <bool AVERAGES>
static void pool_single_row(const PoolSingle& a, Size r) {
  Pixels x = {a.x[r / a.h_out * a.h * a.w], a.x.row};
  Window rows(r % a.h_out, a.stride, a.h);
  over_channels(a.channels, [&](auto lanes, Size c) {
    Vector none = AVERAGES ? Vector{} : Vector{} - INFINITE;
    auto join = [](Vector one, Vector other) { return AVERAGES ? one + other : one > other ? one : other; };
    Vector left = none, middle = none;
    for (Size z = 0; z <= a.w; ++z) {
      Vector right = none;
      if (z < a.w)
        for (Size y = rows.begin; y < rows.end; ++y) right = join(right, lanes.load(x[y * a.w + z] + c));
      if (z && (z - 1) % a.stride == 0) {
        Size j = (z - 1) / a.stride;
        Vector v = join(join(left, middle), right);
        if (AVERAGES) v *= Real(1) / Real(rows.count() * Window(j, a.stride, a.w).count());
        Real* to = a.y[r * a.w_out + j] + c;
        lanes.store(to, a.add ? v + lanes.load(to) : v);
      }
      left = middle, middle = right;
    }
  });
}

extern "C" void pvnas_pool_single(const PoolSingle& a) {
  in_parallel(a.threads, a.frames * a.h_out,
              [&](Size r) { a.averages ? pool_single_row<true>(a, r) : pool_single_row<false>(a, r); });
}

// ---- backward

struct PoolGrad {
  Size threads;
  const Real *average, *maximum;  // the gradient of either may be missing
  const uint8_t* which;
  Pixels x;
  const Real *relu_grad, *identity_grad;
  Pixels dx;
  Size add, frames, h, w, h_out, w_out, channels, stride;
};

// A row of pixels from the outputs whose windows they are in, column by column: what a column gives to the pixels left
// of its middle, in it and right of it is computed at once.
static void pool_grad_row(const PoolGrad& a, Size r, bool streamed) {
  Size frame = r / a.h, i = r % a.h, s = a.stride;
  // outputs o with o * stride - 1 <= pixel <= o * stride + 1
  Size first = s == 1 ? std::max<Size>(0, i - 1) : i / s, last = std::min(a.h_out - 1, (i + 1) / s);
  over_written(streamed, a.channels, [&](auto lanes, Size c) {
    auto put = [&](Size j, Vector total) {
      if (j < 0 || j >= a.w) return;
      Size pixel = r * a.w + j;
      if (a.relu_grad) {
        Vector past = lanes.load(a.relu_grad + pixel * a.channels + c);
        total += lanes.load(a.x[pixel] + c) > 0 ? past : Vector{};
      }
      if (a.identity_grad) total += lanes.load(a.identity_grad + pixel * a.channels + c);
      Real* to = a.dx[pixel] + c;
      lanes.store(to, a.add ? total + lanes.load(to) : total);
    };
    Vector before = {}, here = {};
    for (Size z = 0; z < a.w_out; ++z) {
      Vector each = {}, left = {}, middle = {}, right = {};
      for (Size y = first; y <= last; ++y) {
        Size from = ((frame * a.h_out + y) * a.w_out + z) * a.channels + c;
        if (a.average) each += lanes.load(a.average + from) * (Real(1) / Real(Window(y, s, a.h).count()));
        if (!a.maximum) continue;
        Vector maximum = lanes.load(a.maximum + from), none = {};
        IndexVector which = load_bytes(lanes, a.which + from);
        Index tap = (i - y * s + 1) * 3;
        left += which == tap ? maximum : none;
        middle += which == tap + 1 ? maximum : none;
        right += which == tap + 2 ? maximum : none;
      }
      each *= Real(1) / Real(Window(z, s, a.w).count());
      if (s == 1) {
        put(z - 1, before + (left + each));
        before = here + (middle + each);
        here = right + each;
      } else {
        put(2 * z - 1, before + (left + each));
        put(2 * z, middle + each);
        before = right + each;
      }
    }
    put(s == 1 ? a.w - 1 : 2 * a.w_out - 1, before);
  });
}

extern "C" void pvnas_pool_grad(const PoolGrad& a) {
  bool streamed = LINES && !a.add && streams(a.dx.first, a.frames * a.h * a.w, {a.channels});
  in_parallel(a.threads, a.frames * a.h, [&](Size r) { pool_grad_row(a, r, streamed); });
}
