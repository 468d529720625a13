// Mean and variance of each channel, joined from those of parts of the pixels.
#pragma once

#include <cmath>
#include <vector>

#include "vectors.h"

// `moments`: (parts, 2, C) means and sums of squared differences from them; `count(part)`: its pixels, of all. `to`:
// mean, variance, 1 / sqrt(variance + eps), (3, C). After Chan, Golub, LeVeque, 1979.
template <class Number, class Count>
void join_moments(const Number* moments, Size parts, Size channels, Size pixels, double eps, Count count, Real* to) {
  std::vector<double> mean(channels), squares(channels);
  for (Size part = 0; part < parts; ++part) {
    const Number* means = moments + part * 2 * channels;
    double share = double(count(part)) / double(pixels);
    for (Size c = 0; c < channels; ++c) mean[c] += means[c] * share;
  }
  for (Size part = 0; part < parts; ++part) {
    const Number* means = moments + part * 2 * channels;
    double number = double(count(part));
    for (Size c = 0; c < channels; ++c) {
      double away = means[c] - mean[c];
      squares[c] += means[channels + c] + away * away * number;
    }
  }
  for (Size c = 0; c < channels; ++c) {
    double variance = squares[c] / double(pixels);
    to[c] = Real(mean[c]);
    to[channels + c] = Real(variance);
    to[2 * channels + c] = Real(1 / std::sqrt(variance + eps));
  }
}

