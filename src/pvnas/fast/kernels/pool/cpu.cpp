// Both 3x3 poolings of a node in one pass, forward and backward, and one of them alone.
#include "vectors.h"

#include <limits>

namespace {

template <class T>
struct Index;
template <>
struct Index<float> {
  typedef int32_t Type;
};
template <>
struct Index<double> {
  typedef int64_t Type;
};
template <class T>
using IndexVector = typename Types<typename Index<T>::Type>::Vector;

template <class T>
struct Bytes {
  typedef uint8_t Vector __attribute__((vector_size(Whole<T>::count)));
};
template <class T>
using ByteVector = typename Bytes<T>::Vector;

template <class T>
inline IndexVector<T> load_bytes(Whole<T>, const uint8_t* from) {
  ByteVector<T> bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, IndexVector<T>);
}

template <class T>
inline void store_bytes(Whole<T>, uint8_t* to, IndexVector<T> v) {
  ByteVector<T> bytes = __builtin_convertvector(v, ByteVector<T>);
  std::memcpy(to, &bytes, sizeof bytes);
}

template <class T>
inline IndexVector<T> load_bytes(Part<T> lanes, const uint8_t* from) {
  ByteVector<T> bytes = {};
#ifdef WIDE
  __m128i loaded = _mm_maskz_loadu_epi8(__mmask16((1u << lanes.count) - 1), from);
  std::memcpy(&bytes, &loaded, sizeof bytes);
#else
  for (int i = 0; i < lanes.count; ++i) bytes[i] = from[i];
#endif
  return __builtin_convertvector(bytes, IndexVector<T>);
}

template <class T>
inline void store_bytes(Part<T> lanes, uint8_t* to, IndexVector<T> v) {
  ByteVector<T> bytes = __builtin_convertvector(v, ByteVector<T>);
#ifdef WIDE
  __m128i stored = {};
  std::memcpy(&stored, &bytes, sizeof bytes);
  _mm_mask_storeu_epi8(to, __mmask16((1u << lanes.count) - 1), stored);
#else
  for (int i = 0; i < lanes.count; ++i) to[i] = bytes[i];
#endif
}

template <class T>
struct Pool {
  const T* x;
  Size row;
  T *average, *maximum;
  uint8_t* which;
  Size frames, h, w, h_out, w_out, channels, stride, threads;
};

// The pixels [begin, end) of a row or column that the window of an output has.
struct Window {
  Size begin, end;
  Window(Size out, Size stride, Size size)
      : begin(std::max<Size>(0, out * stride - 1)), end(std::min(size, out * stride + 2)) {}
  Size count() const { return end - begin; }
};

template <class T>
void pool(const Pool<T>& a) {
  in_parallel(a.threads, a.frames * a.h_out, [&](Size r) {
    const T* x = a.x + r / a.h_out * a.h * a.w * a.row;
    Size i = r % a.h_out;
    Window rows(i, a.stride, a.h);
    over_channels<T>(a.channels, [&](auto lanes, Size c) {
      for (Size j = 0; j < a.w_out; ++j) {
        Window columns(j, a.stride, a.w);
        Vector<T> total = {}, best = Vector<T>{} - std::numeric_limits<T>::infinity();
        IndexVector<T> index = {};
        for (Size y = rows.begin; y < rows.end; ++y)
          for (Size z = columns.begin; z < columns.end; ++z) {
            Vector<T> v = lanes.load(x + (y * a.w + z) * a.row + c);
            total += v;
            auto larger = v > best;  // the first of equal ones, as PyTorch's
            best = larger ? v : best;
            typename Index<T>::Type tap = (y - i * a.stride + 1) * 3 + z - j * a.stride + 1;
            index = larger ? IndexVector<T>{} + tap : index;
          }
        Size to = (r * a.w_out + j) * a.channels + c;
        lanes.store(a.average + to, total * (T(1) / T(rows.count() * columns.count())));
        lanes.store(a.maximum + to, best);
        store_bytes(lanes, a.which + to, index);
      }
    });
  });
}

// ---- one of them, for predictions

template <class T>
struct PoolSingle {
  const T* x;
  Size row;
  T* y;
  Size y_row, frames, h, w, h_out, w_out, channels, stride, averages, add, threads;
};

// A row of the output from what the three rows of each column make together.
template <class T, bool AVERAGES>
void pool_single_row(const PoolSingle<T>& a, Size r) {
  const T* x = a.x + r / a.h_out * a.h * a.w * a.row;
  Window rows(r % a.h_out, a.stride, a.h);
  over_channels<T>(a.channels, [&](auto lanes, Size c) {
    Vector<T> none = AVERAGES ? Vector<T>{} : Vector<T>{} - std::numeric_limits<T>::infinity();
    auto join = [](Vector<T> one, Vector<T> other) { return AVERAGES ? one + other : one > other ? one : other; };
    Vector<T> left = none, middle = none;
    for (Size z = 0; z <= a.w; ++z) {
      Vector<T> right = none;
      if (z < a.w)
        for (Size y = rows.begin; y < rows.end; ++y) right = join(right, lanes.load(x + (y * a.w + z) * a.row + c));
      if (z && (z - 1) % a.stride == 0) {
        Size j = (z - 1) / a.stride;
        Vector<T> v = join(join(left, middle), right);
        if (AVERAGES) v *= T(1) / T(rows.count() * Window(j, a.stride, a.w).count());
        T* to = a.y + (r * a.w_out + j) * a.y_row + c;
        lanes.store(to, a.add ? v + lanes.load(to) : v);
      }
      left = middle, middle = right;
    }
  });
}

template <class T>
void pool_single(const PoolSingle<T>& a) {
  in_parallel(a.threads, a.frames * a.h_out,
              [&](Size r) { a.averages ? pool_single_row<T, true>(a, r) : pool_single_row<T, false>(a, r); });
}

// ---- backward

template <class T>
struct PoolGrad {
  const T *average, *maximum;
  const uint8_t* which;
  const T* x;
  Size row;
  const T *relu_grad, *identity_grad;
  T* dx;
  Size dx_row, add, frames, h, w, h_out, w_out, channels, stride, threads;
};

// A row of pixels from the outputs whose windows they are in, column by column: what a column gives to the pixels left
// of its middle, in it and right of it is computed at once.
template <class T>
void pool_grad_row(const PoolGrad<T>& a, Size r, bool streamed) {
  Size frame = r / a.h, i = r % a.h, s = a.stride;
  // outputs o with o * stride - 1 <= pixel <= o * stride + 1
  Size first = s == 1 ? std::max<Size>(0, i - 1) : i / s, last = std::min(a.h_out - 1, (i + 1) / s);
  over_written<T>(streamed, a.channels, [&](auto lanes, Size c) {
    auto put = [&](Size j, Vector<T> total) {
      if (j < 0 || j >= a.w) return;
      Size pixel = r * a.w + j;
      if (a.relu_grad) {
        Vector<T> past = lanes.load(a.relu_grad + pixel * a.channels + c);
        total += lanes.load(a.x + pixel * a.row + c) > 0 ? past : Vector<T>{};
      }
      if (a.identity_grad) total += lanes.load(a.identity_grad + pixel * a.channels + c);
      T* to = a.dx + pixel * a.dx_row + c;
      lanes.store(to, a.add ? total + lanes.load(to) : total);
    };
    Vector<T> before = {}, here = {};
    for (Size z = 0; z < a.w_out; ++z) {
      Vector<T> each = {}, left = {}, middle = {}, right = {};
      for (Size y = first; y <= last; ++y) {
        Size from = ((frame * a.h_out + y) * a.w_out + z) * a.channels + c;
        each += lanes.load(a.average + from) * (T(1) / T(Window(y, s, a.h).count()));
        Vector<T> maximum = lanes.load(a.maximum + from), none = {};
        IndexVector<T> which = load_bytes(lanes, a.which + from);
        typename Index<T>::Type tap = (i - y * s + 1) * 3;
        left += which == tap ? maximum : none;
        middle += which == tap + 1 ? maximum : none;
        right += which == tap + 2 ? maximum : none;
      }
      each *= T(1) / T(Window(z, s, a.w).count());
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

template <class T>
void pool_grad(const PoolGrad<T>& a) {
  bool streamed = LINES && !a.add && streams(a.dx, a.frames * a.h * a.w, {a.channels});
  in_parallel(a.threads, a.frames * a.h, [&](Size r) { pool_grad_row(a, r, streamed); });
}

}  // namespace

EXPORT(pool, Pool)
EXPORT(pool_single, PoolSingle)
EXPORT(pool_grad, PoolGrad)
