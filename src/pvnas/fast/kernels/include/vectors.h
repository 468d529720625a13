// Vectors of channels, which lie next to each other in channels-last memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
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

template <class T>
struct Types {
  typedef T Vector __attribute__((vector_size(BYTES)));
  static constexpr int lanes = BYTES / sizeof(T);
};
template <class T>
using Vector = typename Types<T>::Vector;

// A whole vector of channels. `store` may write past the caches (see Streamed), `keep` never does.
template <class T>
struct Whole {
  static constexpr int count = Types<T>::lanes;
  static inline Vector<T> load(const T* from) {
    Vector<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  static inline void store(T* to, Vector<T> v) { std::memcpy(to, &v, sizeof v); }
  static inline void keep(T* to, Vector<T> v) { store(to, v); }
};

// The last channels, where they do not fill a vector; the others are zero.
template <class T>
struct Part {
  int count;
  inline Vector<T> load(const T* from) const {
    Vector<T> v = {};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
  }
  inline void store(T* to, Vector<T> v) const {
    for (int i = 0; i < count; ++i) to[i] = v[i];
  }
  inline void keep(T* to, Vector<T> v) const { store(to, v); }
};

#ifdef WIDE
template <>
inline Vector<float> Part<float>::load(const float* from) const {
  return _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from);
}
template <>
inline void Part<float>::store(float* to, Vector<float> v) const {
  _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), v);
}
template <>
inline Vector<double> Part<double>::load(const double* from) const {
  return _mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), from);
}
template <>
inline void Part<double>::store(double* to, Vector<double> v) const {
  _mm512_mask_storeu_pd(to, __mmask8((1u << count) - 1), v);
}
#elif defined(__AVX2__)
static inline __m256i first_lanes(int count, __m256i lanes) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}
template <>
inline Vector<float> Part<float>::load(const float* from) const {
  return _mm256_maskload_ps(from, first_lanes(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}
template <>
inline void Part<float>::store(float* to, Vector<float> v) const {
  _mm256_maskstore_ps(to, first_lanes(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), v);
}
template <>
inline Vector<double> Part<double>::load(const double* from) const {
  return _mm256_maskload_pd(from, first_lanes(count, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)));
}
template <>
inline void Part<double>::store(double* to, Vector<double> v) const {
  _mm256_maskstore_pd(to, first_lanes(count, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)), v);
}
#endif

// A whole vector, stored past the caches: nothing is read to be overwritten. What is read again soon is kept.
template <class T>
struct Streamed : Whole<T> {
  static inline void store(T* to, Vector<T> v) {
#ifdef WIDE
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(v));
#else
    Whole<T>::store(to, v);
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
template <class T>
inline bool streams(const T* y, Size pixels, std::initializer_list<Size> steps) {
  constexpr Size LINE = 64 / sizeof(T), CACHED = Size(1) << 20;
  bool whole = reinterpret_cast<uintptr_t>(y) % 64 == 0;
  for (Size step : steps) whole = whole && step % LINE == 0;
  return whole && pixels * *steps.begin() * Size(sizeof(T)) > CACHED;
}

// Calls work(lanes, first channel) for all channels.
template <class T, class Lanes = Whole<T>, class Work>
static inline void over_channels(Size channels, Work work) {
  Size c = 0;
  for (; c + Types<T>::lanes <= channels; c += Types<T>::lanes) work(Lanes{}, c);
  if (c < channels) work(Part<T>{int(channels - c)}, c);
}

// The same for what is written: lanes.store writes past the caches where asked.
template <class T, class Work>
static inline void over_written(bool streamed, Size channels, Work work) {
  if (streamed)
    over_channels<T, Streamed<T>>(channels, work);
  else
    over_channels<T>(channels, work);
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

// Not-a-number stays what it is: a maximum gives its second operand where either is one.
template <class T>
static inline Vector<T> relu(Vector<T> x) {
  return x < 0 ? Vector<T>{} : x;
}
#ifdef WIDE
template <>
inline Vector<float> relu<float>(Vector<float> x) {
  return _mm512_max_ps(Vector<float>{}, x);
}
template <>
inline Vector<double> relu<double>(Vector<double> x) {
  return _mm512_max_pd(Vector<double>{}, x);
}
#elif defined(__AVX2__)
template <>
inline Vector<float> relu<float>(Vector<float> x) {
  return _mm256_max_ps(Vector<float>{}, x);
}
template <>
inline Vector<double> relu<double>(Vector<double> x) {
  return _mm256_max_pd(Vector<double>{}, x);
}
#endif

// The parts of `all` things that belong to one of `parts`: [begin, end).
struct Range {
  Size begin, end;
  Range(Size all, Size parts, Size part) : begin(all * part / parts), end(all * (part + 1) / parts) {}
};

// Gives C a function of numbers of the type REAL, which takes its arguments as one record.
#define EXPORT(name, Arguments) \
  extern "C" void pvnas_##name(const Arguments<REAL>* a) { name<REAL>(*a); }
