// Reductions of rows whose results are known, on any backend.
#pragma once

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "pare/kernels/reduction.hpp"
#include "support.hpp"

namespace test {

/// Of each row: the sum, the largest number, the sum of the columns counted from 1.
template <class T>
struct RowFacts {
  struct partial {
    pare::kernels::Sums<double, 1> sum;
    pare::kernels::Largest<T> most;
    pare::kernels::Sums<std::int32_t, 1> columns;
    PARE_HOST_DEVICE void merge(const partial& other) {
      sum.merge(other.sum);
      most.merge(other.most);
      columns.merge(other.columns);
    }
  };
  pare::MatrixView<const T> of;    // (rows, columns)
  pare::MatrixView<double> facts;  // (rows, 3)

  PARE_HOST_DEVICE pare::index_t columns() const { return of.cols; }
  PARE_HOST_DEVICE void add(pare::index_t r, pare::index_t c, partial& p) const {
    p.sum[0] += double(of(r, c));
    p.most.add(of(r, c));
    p.columns[0] += std::int32_t(c + 1);
  }
  PARE_HOST_DEVICE void finish(pare::index_t r, const partial& total) const {
    facts(r, 0) = total.sum[0];
    facts(r, 1) = double(total.most.value);
    facts(r, 2) = total.columns[0];
  }
};

/// Every column of every row is taken in once, around the borders of a device's warps and blocks, in
/// windows of larger matrices, and where there are no columns at all.
template <class B, class T>
void check_reductions() {
  using pare::index_t;
  for (const index_t rows : {1, 9, 70})
    for (const index_t cols : {0, 1, 31, 32, 33, 255, 256, 257, 700}) {
      const pare::Matrix<T> m = random_normal<T>(rows, cols + 3, 11);
      const auto there = upload<B>(m);
      auto out = upload<B>(pare::Matrix<double>(rows, 3));
      B::reduce_rows(rows, RowFacts<T>{there.view().columns(2, cols), out.view()});
      const pare::Matrix<double> got = download<B>(out);
      BOOST_TEST_CONTEXT(rows << " x " << cols) for (index_t r = 0; r < rows; ++r) {
        double sum = 0, most = std::numeric_limits<T>::lowest();
        for (index_t c = 2; c < cols + 2; ++c) {
          sum += double(m(r, c));
          most = std::max(most, double(m(r, c)));
        }
        BOOST_REQUIRE_LE(std::abs(got(r, 0) - sum), 1e-12 * double(cols));
        BOOST_REQUIRE_EQUAL(got(r, 1), most);
        BOOST_REQUIRE_EQUAL(got(r, 2), double(cols * (cols + 1) / 2));
      }
    }
  B::reduce_rows(0, RowFacts<T>{});
}

}  // namespace test
