// Vectors of channels, which lie next to each other in channels-last memory.
//
// A kernel is a function `pvnas_...` of one record: how many threads it may use, then its arguments in their order, see
// cpp_library.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef int64_t Size;

// Bytes of a vector: a register of AVX-512, with 32 of them, or of AVX2, with 16. Narrower registers stand side by side.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define WIDE
constexpr int BYTES = 64;
#else
constexpr int BYTES = 32;
#endif

typedef REAL Real;  // the type of the numbers, float or double, for which a library is compiled
typedef Real Vector __attribute__((vector_size(BYTES)));
constexpr int LANES = BYTES / sizeof(Real);
constexpr bool SINGLE = sizeof(Real) == 4;

// Pixels whose channels lie next to each other.
struct Pixels {
  Real* first;
  Size row;  // from a pixel to the next
  Real* operator[](Size pixel) const { return first + pixel * row; }
  Pixels from(Size channel) const { return {first + channel, row}; }
};

// A whole vector of channels. `store` may write past the caches (see Streamed), `keep` never does.
struct Whole {
  static constexpr int count = LANES;
  static Vector load(const Real* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  static void store(Real* to, Vector v) { std::memcpy(to, &v, sizeof v); }
  static void keep(Real* to, Vector v) { store(to, v); }
};

// The last channels, where they do not fill a vector; the others are zero.
struct Part {
  int count;
#ifdef WIDE
  __mmask16 mask() const { return __mmask16((1u << count) - 1); }
  Vector load(const Real* from) const {
    return SINGLE ? Vector(_mm512_maskz_loadu_ps(mask(), from)) : Vector(_mm512_maskz_loadu_pd(mask(), from));
  }
  void store(Real* to, Vector v) const {
    SINGLE ? _mm512_mask_storeu_ps(to, mask(), __m512(v)) : _mm512_mask_storeu_pd(to, mask(), __m512d(v));
  }
#elif defined(__AVX2__)
  __m256i mask() const {
    __m256i lanes = SINGLE ? _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7) : _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
  }
  Vector load(const Real* from) const {
    return SINGLE ? Vector(_mm256_maskload_ps((const float*)from, mask()))
                  : Vector(_mm256_maskload_pd((const double*)from, mask()));
  }
  void store(Real* to, Vector v) const {
    SINGLE ? _mm256_maskstore_ps((float*)to, mask(), __m256(v)) : _mm256_maskstore_pd((double*)to, mask(), __m256d(v));
  }
#else
  Vector load(const Real* from) const {
    Vector v = {};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
  }
  void store(Real* to, Vector v) const {
    for (int i = 0; i < count; ++i) to[i] = v[i];
  }
#endif
  void keep(Real* to, Vector v) const { store(to, v); }
};

// A whole vector, stored past the caches: nothing is read to be overwritten. What is read again soon is kept.
struct Streamed : Whole {
  static void store(Real* to, Vector v) {
#ifdef WIDE
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(v));
#else
    Whole::store(to, v);
#endif
  }
};

// After which other threads see what was written past the caches.
static inline void streams_end() {
#ifdef __AVX2__
  _mm_sfence();
#endif
}

constexpr bool LINES = BYTES == 64;  // whether a vector is a whole line of the caches

// Whether to write past the caches: where it is more than a core's caches hold, and no line is written in part.
// `steps`: from what is written at once to what is written next.
static inline bool streams(const Real* y, Size pixels, std::initializer_list<Size> steps) {
  constexpr Size LINE = 64 / sizeof(Real), CACHED = Size(1) << 20;
  bool whole = reinterpret_cast<uintptr_t>(y) % 64 == 0;
  for (Size step : steps) whole = whole && step % LINE == 0;
  return whole && pixels * *steps.begin() * Size(sizeof(Real)) > CACHED;
}

// Calls work(lanes, first channel) for all channels.
template <class Lanes = Whole, class Work>
static inline void over_channels(Size channels, Work work) {
  Size c = 0;
  for (; c + LANES <= channels; c += LANES) work(Lanes{}, c);
  if (c < channels) work(Part{int(channels - c)}, c);
}

// The same for what is written: lanes.store writes past the caches where asked.
template <class Work>
static inline void over_written(bool streamed, Size channels, Work work) {
  streamed ? over_channels<Streamed>(channels, work) : over_channels(channels, work);
}

// Calls work(number) for all numbers, each thread for those of a stretch.
template <class Work>
static inline void in_parallel(Size threads, Size all, Work work) {
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static) nowait
    for (Size number = 0; number < all; ++number) work(number);
    streams_end();
  }
}

// Calls work(std::integral_constant<int, count>) with a count, or with MOST where it is less.
template <int MOST, class Work>
static inline void with_constant(Size count, Work work) {
  if constexpr (MOST > 0) {
    if (count >= MOST)
      work(std::integral_constant<int, MOST>{});
    else
      with_constant<MOST - 1>(count, work);
  }
}

// Not-a-number stays what it is: a maximum gives its second operand where either is one.
static inline Vector relu(Vector x) {
#ifdef WIDE
  return SINGLE ? Vector(_mm512_max_ps(__m512{}, __m512(x))) : Vector(_mm512_max_pd(__m512d{}, __m512d(x)));
#elif defined(__AVX2__)
  return SINGLE ? Vector(_mm256_max_ps(__m256{}, __m256(x))) : Vector(_mm256_max_pd(__m256d{}, __m256d(x)));
#else
  return x < 0 ? Vector{} : x;
#endif
}

// What a batch norm normalises by, and its parameters where it has some: (z - mean) * inverse * weight + bias.
struct Norm {
  const Real *mean, *inverse, *weight, *bias;
  template <class Lanes>
  Vector factor(Lanes lanes, Size c) const {
    Vector factor = lanes.load(inverse + c);
    return weight ? factor * lanes.load(weight + c) : factor;
  }
  // What is left to add to z * factor.
  template <class Lanes>
  Vector shift(Lanes lanes, Size c, Vector factor) const {
    Vector shift = -lanes.load(mean + c) * factor;
    return bias ? shift + lanes.load(bias + c) : shift;
  }
};

// Numbers by which the clips of a batch are multiplied, each clip of so many pixels, if there are any.
struct Scales {
  const Real* of_clip;
  Size pixels;
  Real operator[](Size pixel) const { return of_clip ? of_clip[pixel / pixels] : Real(1); }
  // The first pixel behind this one, up to `last`, that has another scale.
  Size end(Size pixel, Size last) const {
    return of_clip ? std::min(last, (pixel / pixels + 1) * pixels) : last;
  }
};

// What new memory holds. Where whole vectors are computed of rows that are shorter, the rest of them must be zeros: what
// lay there before may be subnormal numbers, on which every operation takes a hundred times as long.
enum Filling { ANYTHING, ZEROS };

// Memory for numbers, from the beginning of a line of the caches on.
struct Numbers {
  static constexpr Size LINE = 64 / sizeof(Real);
  std::unique_ptr<Real, decltype(&std::free)> memory;
  explicit Numbers(Size count, Filling filling = ANYTHING)
      : memory(static_cast<Real*>(std::aligned_alloc(64, (count / LINE + 1) * 64)), &std::free) {
    if (!memory) throw std::bad_alloc();
    if (filling == ZEROS) std::fill_n(memory.get(), count, Real(0));
  }
  Real* at(Size number) const { return memory.get() + number; }
  // As many as `count` or a few more, whole lines: rows so long begin with one, and no power of two apart, which would
  // let them share a few sets of the first cache.
  static Size apart(Size count) { return ((count + LINE - 1) / LINE | 1) * LINE; }
};

// The parts of `all` things that belong to one of `parts`: [begin, end).
struct Range {
  Size begin, end;
  Range(Size all, Size parts, Size part) : begin(all * part / parts), end(all * (part + 1) / parts) {}
  Size count() const { return end - begin; }
};
