// Both 3x3 poolings of a node in one pass, forward and backward, and every other pixel of a picture.
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

template <class T, class Lanes>
inline IndexVector<T> load_bytes(Lanes lanes, const uint8_t* from) {
  IndexVector<T> v = {};
  if constexpr (std::is_same_v<Lanes, Whole<T>>) {
    typedef uint8_t Bytes __attribute__((vector_size(Whole<T>::count)));
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(bytes, IndexVector<T>);
  }
  for (int i = 0; i < lanes.count; ++i) v[i] = from[i];
  return v;
}

template <class T, class Lanes>
inline void store_bytes(Lanes lanes, uint8_t* to, IndexVector<T> v) {
  if constexpr (std::is_same_v<Lanes, Whole<T>>) {
    typedef uint8_t Bytes __attribute__((vector_size(Whole<T>::count)));
    Bytes bytes = __builtin_convertvector(v, Bytes);
    std::memcpy(to, &bytes, sizeof bytes);
    return;
  }
  for (int i = 0; i < lanes.count; ++i) to[i] = uint8_t(v[i]);
}

template <class T>
struct Pool {
  const T* x;
  Size row;
  T *average, *largest;
  uint8_t* which;
  Size frames, h, w, h_out, w_out, channels, stride, threads;
};

// The pixels [begin, end) of a line that the window of an output has.
struct Window {
  Size begin, end;
  Window(Size out, Size stride, Size size)
      : begin(std::max<Size>(0, out * stride - 1)), end(std::min(size, out * stride + 2)) {}
  Size count() const { return end - begin; }
};

template <class T>
void pool(const Pool<T>& a) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size r = 0; r < a.frames * a.h_out; ++r) {
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
        lanes.store(a.largest + to, best);
        store_bytes<T>(lanes, a.which + to, index);
      }
    });
  }
}

template <class T>
struct PoolBackward {
  const T *average, *largest;
  const uint8_t* which;
  const T* x;
  Size row;
  const T *rectified_, *direct;
  T* dx;
  Size frames, h, w, h_out, w_out, channels, stride, threads;
};

// A row of pixels from the outputs whose windows they are in.
template <class T>
void pool_backward(const PoolBackward<T>& a) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size r = 0; r < a.frames * a.h; ++r) {
    Size frame = r / a.h, i = r % a.h, s = a.stride;
    // outputs o with o * stride - 1 <= pixel <= o * stride + 1
    Size first_y = i / s, last_y = std::min(a.h_out - 1, (i + 1) / s);
    if (s == 1) first_y = std::max<Size>(0, i - 1);
    over_channels<T>(a.channels, [&](auto lanes, Size c) {
      for (Size j = 0; j < a.w; ++j) {
        Size first_x = s == 1 ? std::max<Size>(0, j - 1) : j / s, last_x = std::min(a.w_out - 1, (j + 1) / s);
        Size pixel = r * a.w + j;
        Vector<T> total = {};
        if (a.rectified_) {
          Vector<T> past = lanes.load(a.rectified_ + pixel * a.channels + c);
          total = lanes.load(a.x + pixel * a.row + c) > 0 ? past : total;
        }
        if (a.direct) total += lanes.load(a.direct + pixel * a.channels + c);
        for (Size y = first_y; y <= last_y; ++y) {
          T rows = T(Window(y, s, a.h).count());
          for (Size z = first_x; z <= last_x; ++z) {
            Size from = ((frame * a.h_out + y) * a.w_out + z) * a.channels + c;
            total += lanes.load(a.average + from) * (T(1) / (rows * T(Window(z, s, a.w).count())));
            typename Index<T>::Type tap = (i - y * s + 1) * 3 + j - z * s + 1;
            total += load_bytes<T>(lanes, a.which + from) == tap ? lanes.load(a.largest + from) : Vector<T>{};
          }
        }
        lanes.store(a.dx + pixel * a.channels + c, total);
      }
    });
  }
}

// ---- every other pixel

template <class T>
struct EveryOther {
  const T* x;
  Size row;
  T* y;
  Size frames, h, w, h_out, w_out, channels, offset, threads;
};

template <class T>
void every_other(const EveryOther<T>& a) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size r = 0; r < a.frames * a.h_out; ++r) {
    Size i = r % a.h_out * 2 + a.offset;
    const T* x = a.x + (r / a.h_out * a.h + i) * a.w * a.row;
    for (Size j = 0; j < a.w_out; ++j) {
      T* y = a.y + (r * a.w_out + j) * a.channels;
      Size b = 2 * j + a.offset;
      if (i >= a.h || b >= a.w)
        std::fill_n(y, a.channels, T(0));
      else
        over_channels<T>(a.channels,
                         [&](auto lanes, Size c) { lanes.store(y + c, rectified<T>(lanes.load(x + b * a.row + c))); });
    }
  }
}

template <class T>
struct Spread {
  const T *even, *odd;
  T* dx;
  Size frames, h, w, h_out, w_out, channels, added, threads;
};

template <class T>
void spread(const Spread<T>& a) {
#pragma omp parallel for num_threads(a.threads) schedule(static)
  for (Size r = 0; r < a.frames * a.h; ++r) {
    Size i = r % a.h;
    const T* from = i % 2 ? a.odd : a.even;
    for (Size j = 0; j < a.w; ++j) {
      T* to = a.dx + (r * a.w + j) * a.channels;
      bool there = from && i % 2 == j % 2;
      if (!there && !a.added) std::fill_n(to, a.channels, T(0));
      if (!there) continue;
      const T* own = from + ((r / a.h * a.h_out + i / 2) * a.w_out + j / 2) * a.channels;
      over_channels<T>(a.channels, [&](auto lanes, Size c) {
        Vector<T> v = lanes.load(own + c);
        lanes.store(to + c, a.added ? v + lanes.load(to + c) : v);
      });
    }
  }
}

}  // namespace

EXPORT(pool, Pool)
EXPORT(pool_backward, PoolBackward)
EXPORT(every_other, EveryOther)
EXPORT(spread, Spread)
