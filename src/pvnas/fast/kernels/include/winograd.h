// Winograd's algorithm for kernels of three taps (Lavin and Gray, "Fast algorithms for convolutional neural networks",
// 2016): M outputs in a line read M + 2 inputs, and take M + 2 multiplications in place of 3 M.
//
// Inputs and kernel are taken for coefficients of polynomials, whose values at M + 1 points and at infinity are
// multiplied. In several dimensions it is done along one after another. Over channels each multiplication is a product
// of matrices.
#pragma once

#include <utility>

#include "vectors.h"

namespace {  // of a library alone: those for other types of numbers have constants of the same names

// Points, with which the three matrices are made: outputs (M) = to_outputs * (values of the kernel . of the input).
template <int M>
struct Points;
template <>
struct Points<3> {
  static constexpr Real at[] = {0, 1, -1, 2};
};
template <>
struct Points<4> {
  static constexpr Real at[] = {0, 1, -1, 2, -2};
};
template <>
struct Points<5> {
  static constexpr Real at[] = {0, 1, -1, 2, -2, Real(0.5)};
};

// Calls work(std::integral_constant<int, m>) with the m that is asked for.
template <class Work>
inline void with_points(Size m, Work work) {
  if (m == 3)
    work(std::integral_constant<int, 3>{});
  else if (m == 4)
    work(std::integral_constant<int, 4>{});
  else
    work(std::integral_constant<int, 5>{});
}

template <int ROWS, int COLUMNS>
struct Matrix {
  static constexpr int rows = ROWS, columns = COLUMNS;
  Real at[ROWS][COLUMNS] = {};
  constexpr Matrix<COLUMNS, ROWS> transposed() const {
    Matrix<COLUMNS, ROWS> result;
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < COLUMNS; ++j) result.at[j][i] = at[i][j];
    return result;
  }
};

// Coefficients, from the constant on, of the product of (x - point) over all points but one.
template <int M>
constexpr Matrix<1, M + 2> product_of_points(int without) {
  Matrix<1, M + 2> product;
  product.at[0][0] = 1;
  for (int j = 0; j <= M; ++j) {
    if (j == without) continue;
    for (int i = M + 1; i > 0; --i) product.at[0][i] = product.at[0][i - 1] - Points<M>::at[j] * product.at[0][i];
    product.at[0][0] *= -Points<M>::at[j];
  }
  return product;
}

template <int M>
constexpr Matrix<M + 2, M + 2> values_of_input() {
  Matrix<M + 2, M + 2> values;
  for (int i = 0; i < M + 2; ++i)
    for (int j = 0; j < M + 2; ++j) values.at[i][j] = product_of_points<M>(i).at[0][j];
  return values;
}

template <int M>
constexpr Matrix<M + 2, 3> values_of_kernel() {
  Matrix<M + 2, 3> values;
  for (int i = 0; i <= M; ++i) {
    Real power = 1, others = 1;
    for (int j = 0; j <= M; ++j)
      if (j != i) others *= Points<M>::at[i] - Points<M>::at[j];
    for (int j = 0; j < 3; ++j, power *= Points<M>::at[i]) values.at[i][j] = power / others;
  }
  values.at[M + 1][2] = 1;
  return values;
}

template <int M>
constexpr Matrix<M, M + 2> to_outputs() {
  Matrix<M, M + 2> sums;
  for (int j = 0; j <= M; ++j) {
    Real power = 1;
    for (int i = 0; i < M; ++i, power *= Points<M>::at[j]) sums.at[i][j] = power;
  }
  sums.at[M - 1][M + 1] = 1;
  return sums;
}

template <int M>
struct OfInput {
  static constexpr auto MATRIX = values_of_input<M>();
};
template <int M>
struct OfKernel {
  static constexpr auto MATRIX = values_of_kernel<M>();
};
template <int M>
struct ToOutputs {
  static constexpr auto MATRIX = to_outputs<M>();
};
template <class Of>
struct Transposed {
  static constexpr auto MATRIX = Of::MATRIX.transposed();
};

template <class Of, int I, int K>
inline void add_term(Vector& sum, Vector x) {
  constexpr Real factor = Of::MATRIX.at[I][K];
  if constexpr (factor == 1)
    sum += x;
  else if constexpr (factor == -1)
    sum -= x;
  else if constexpr (factor != 0)
    sum += factor * x;
}

// Row I of a matrix times vectors that lie `step` apart.
template <class Of, int I, int... K>
inline Vector row_times(const Vector* x, int step, std::integer_sequence<int, K...>) {
  Vector sum = {};
  (add_term<Of, I, K>(sum, x[K * step]), ...);
  return sum;
}

// Calls work(std::integral_constant<int, number>) for all numbers below COUNT.
template <int COUNT, class Work, int... I>
inline void for_each_constant(Work work, std::integer_sequence<int, I...>) {
  (work(std::integral_constant<int, I>{}), ...);
}
template <int COUNT, class Work>
inline void for_each_constant(Work work) {
  for_each_constant<COUNT>(work, std::make_integer_sequence<int, COUNT>{});
}

// Calls put(std::integral_constant<int, index>, vector) with matrix * x, of a line x of vectors.
template <class Of, class Put>
inline void one_side(const Vector* x, Put put) {
  for_each_constant<Of::MATRIX.rows>([&](auto i) {
    put(i, row_times<Of, i>(x, 1, std::make_integer_sequence<int, Of::MATRIX.columns>{}));
  });
}

// Calls put(index, vector) with matrix * x * matrix', of a square x of vectors.
template <class Of, class Put>
inline void both_sides(const Vector* x, Put put) {
  constexpr int ROWS = Of::MATRIX.rows, SIDE = Of::MATRIX.columns;
  constexpr auto along = std::make_integer_sequence<int, SIDE>{};
  Vector half[ROWS * SIDE];
  for_each_constant<ROWS>([&](auto i) {
    for (int j = 0; j < SIDE; ++j) half[i * SIDE + j] = row_times<Of, i>(x + j, SIDE, along);
  });
  for_each_constant<ROWS>([&](auto j) {
    for (int i = 0; i < ROWS; ++i) put(i * ROWS + j, row_times<Of, j>(half + i * SIDE, 1, along));
  });
}

}  // namespace
