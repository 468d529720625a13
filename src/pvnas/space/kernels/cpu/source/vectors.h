// Vectors of channels, which lie next to each other in channels-last memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

typedef int64_t Size;

template <class T>
struct Types {
  typedef T Vector __attribute__((vector_size(32)));
  static constexpr int lanes = 32 / sizeof(T);
};
template <class T>
using Vector = typename Types<T>::Vector;

// A whole vector of channels.
template <class T>
struct Whole {
  static constexpr int count = Types<T>::lanes;
  static inline Vector<T> load(const T* from) {
    Vector<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  static inline void store(T* to, Vector<T> v) { std::memcpy(to, &v, sizeof v); }
};

// The last channels, where they do not fill a vector.
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
};

// Calls work(lanes, first channel) for all channels.
template <class T, class Work>
static inline void over_channels(Size channels, Work work) {
  Size c = 0;
  for (; c + Types<T>::lanes <= channels; c += Types<T>::lanes) work(Whole<T>{}, c);
  if (c < channels) work(Part<T>{int(channels - c)}, c);
}

// Not-a-number stays what it is.
template <class T>
static inline Vector<T> rectified(Vector<T> x) {
  return x < 0 ? Vector<T>{} : x;
}

// The parts of `all` things that belong to one of `parts`: [begin, end).
struct Range {
  Size begin, end;
  Range(Size all, Size parts, Size part) : begin(all * part / parts), end(all * (part + 1) / parts) {}
};

// Gives C a function of numbers of the type REAL, which takes its arguments as one record.
#define EXPORT(name, Arguments) \
  extern "C" void pvnas_##name(const Arguments<REAL>* a) { name<REAL>(*a); }
