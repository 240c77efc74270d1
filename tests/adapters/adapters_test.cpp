// Matrices of other libraries: read where they lie, refused, or copied by name.
#define BOOST_TEST_MODULE pare_adapters
#include <boost/test/unit_test.hpp>

#include <array>
#include <span>
#include <vector>

#include "pare/adapters/eigen.hpp"
#include "pare/adapters/std.hpp"
#include "pare/calibration/drift.hpp"
#include "pare/importance/distortion.hpp"
#include "pare/pare.hpp"
#include "support.hpp"
#ifdef PARE_TEST_XTENSOR
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

#include "pare/adapters/xtensor.hpp"
#endif
#ifdef PARE_TEST_THRUST
#include "pare/adapters/thrust.hpp"
#endif
#if __has_include(<mdspan>)
#include <mdspan>
#endif

using namespace pare;
using test::message_of;

namespace {

/// Whether a view shows 10 * row + column, `rows` and `cols` of them, from `data` on.
template <class T>
void check_numbers(MatrixView<T> A, const void* data, index_t rows, index_t cols) {
  BOOST_TEST(static_cast<const void*>(A.data) == data);
  BOOST_TEST(A.rows == rows);
  BOOST_TEST(A.cols == cols);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < cols; ++c) BOOST_TEST(A(r, c) == T(10 * r + c));
}

/// 10 * row + column, (rows, cols), in a matrix of Eigen of any kind.
template <class M>
M numbers(index_t rows, index_t cols) {
  M A(rows, cols);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < cols; ++c) A(r, c) = typename M::Scalar(10 * r + c);
  return A;
}

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// What std::mdspan is to view(), where the library has none: the same names.
template <class T>
struct Mdspan {
  using element_type = T;
  using index_type = int;
  struct mapping_type {
    int row_step, column_step;
    int operator()(int r, int c) const { return r * row_step + c * column_step; }
  };
  T* data;
  int rows, cols;
  mapping_type map;

  static constexpr std::size_t rank() { return 2; }
  T* data_handle() const { return data; }
  int extent(std::size_t k) const { return k == 0 ? rows : cols; }
  int stride(std::size_t k) const { return k == 0 ? map.row_step : map.column_step; }
  const mapping_type& mapping() const { return map; }
};

}  // namespace

BOOST_AUTO_TEST_CASE(lists_of_numbers_are_seen_where_they_lie) {
  std::vector<float> v{0, 1, 2, 10, 11, 12};
  check_numbers(view(v, 2, 3), v.data(), 2, 3);
  const std::vector<double> constant{0, 1, 10, 11};
  check_numbers(view(constant, 2, 2), constant.data(), 2, 2);
  std::array<float, 2> array{0, 10};
  check_numbers(view(array, 2, 1), array.data(), 2, 1);
  const std::span<float> part = std::span(v).subspan(3);
  BOOST_TEST(view(part, 1, 3).data == v.data() + 3);
  static_assert(std::is_same_v<decltype(view(v, 2, 3)), MatrixView<float>>);
  static_assert(std::is_same_v<decltype(view(constant, 2, 2)), MatrixView<const double>>);
  const std::vector<float> none;
  BOOST_TEST(view(none, 0, 4).size() == 0);

  BOOST_TEST(message_of<shape_error>([&] { view(v, 2, 4); }) ==
             "numbers: expected as many as shape (2, 4) has, got 6");
  BOOST_TEST(message_of<shape_error>([&] { view(v, -2, -3); }) ==
             "numbers: expected sides >= 0, got shape (-2, -3)");
  // A product of the sides that wraps around is not the number of elements.
  BOOST_CHECK_THROW(view(v, index_t{1} << 62, 4), shape_error);
}

BOOST_AUTO_TEST_CASE(an_mdspan_is_seen_where_its_rows_lie_and_copied_by_name_otherwise) {
  std::vector<float> v{0, 1, 2, -1, 10, 11, 12, -1};
  const Mdspan<float> rows{v.data(), 2, 3, {4, 1}};
  check_numbers(view(rows), v.data(), 2, 3);
  BOOST_TEST(view(rows).stride == 4);
  const std::vector<float> w{0, 10, 1, 11, 2, 12};
  const Mdspan<const float> columns{w.data(), 2, 3, {1, 2}};
  BOOST_TEST(message_of<argument_error>([&] { view(columns); }) ==
             "mdspan: expected the numbers of a row side by side, got columns 2 apart; write "
             "row_major_copy()");
  const Matrix<float> copy = row_major_copy(columns);
  check_numbers(copy.view(), copy.data(), 2, 3);
#ifdef __cpp_lib_mdspan
  const std::mdspan real(v.data(), std::extents(2, 4));
  BOOST_TEST(view(real).data == v.data());
  BOOST_TEST(view(real).stride == 4);
#endif
}

BOOST_AUTO_TEST_CASE(row_major_matrices_of_eigen_are_seen_where_they_lie) {
  const auto A = numbers<RowMajor>(4, 5);
  check_numbers(view(A), A.data(), 4, 5);
  const auto block = A.block(1, 2, 2, 3);
  BOOST_TEST(view(block).data == &A(1, 2));
  BOOST_TEST(view(block)(1, 2) == 24);
  BOOST_TEST(view(block).stride == 5);
  BOOST_TEST(view(A.middleRows(2, 1)).data == &A(2, 0));
  const Eigen::Map<const RowMajor, 0, Eigen::OuterStride<>> map(A.data(), 4, 2,
                                                                Eigen::OuterStride<>(5));
  check_numbers(view(map), A.data(), 4, 2);
  const Eigen::Ref<const RowMajor> ref(A);
  check_numbers(view(ref), A.data(), 4, 5);
  const Eigen::MatrixXd columns = numbers<Eigen::MatrixXd>(3, 2);
  BOOST_TEST(view(columns.transpose())(1, 2) == 21);  // its rows are the columns of that
  const Eigen::VectorXf vector = numbers<Eigen::VectorXf>(3, 1);
  check_numbers(view(vector), vector.data(), 3, 1);
  BOOST_TEST(view(A.col(1))(3, 0) == 31);
  BOOST_TEST(view(A.row(2))(0, 4) == 24);
  const Eigen::Map<const RowMajor, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> gaps(
      A.data(), 4, 2, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(5, 2));
  BOOST_TEST(message_of<argument_error>([&] { view(gaps); }) ==
             "matrix of Eigen: expected the numbers of a row side by side, got columns 2 apart; "
             "write row_major_copy()");
}

BOOST_AUTO_TEST_CASE(other_matrices_of_eigen_are_copied_by_name) {
  const auto A = numbers<Eigen::MatrixXf>(4, 3);
  const Matrix<float> copy = row_major_copy(A);
  check_numbers(copy.view(), copy.data(), 4, 3);
  const Matrix<float> sum = row_major_copy(A + A);
  BOOST_TEST(sum(3, 2) == 64);
  // And back: nothing is copied, parts of a matrix included.
  Matrix<float> M = copy;
  const auto seen = as_eigen(M.view().block(1, 1, 2, 2));
  BOOST_TEST((seen.data() == M.data() + 4));
  BOOST_TEST(seen(1, 1) == 22);
  BOOST_TEST(as_eigen(copy.view()).isApprox(A));
}

#ifdef PARE_TEST_XTENSOR
BOOST_AUTO_TEST_CASE(tensors_of_xtensor_are_seen_where_they_lie_or_copied_by_name) {
  xt::xtensor<float, 2> A({4, 5});
  xt::xtensor<float, 2, xt::layout_type::column_major> F({4, 5});
  for (std::size_t r = 0; r < 4; ++r)
    for (std::size_t c = 0; c < 5; ++c) A(r, c) = F(r, c) = float(10 * r + c);
  check_numbers(pare::view(A), A.data(), 4, 5);
  const auto part = xt::view(A, xt::range(1, 3), xt::range(2, 5));
  BOOST_TEST(pare::view(part).data == &A(1, 2));
  BOOST_TEST(pare::view(part)(1, 2) == 24);
  BOOST_TEST(pare::view(part).stride == 5);
  const auto row = xt::view(A, xt::range(1, 2), xt::all());
  BOOST_TEST(pare::view(row).stride == 5);
  const Matrix<float> copy = row_major_copy(F);
  check_numbers(copy.view(), copy.data(), 4, 5);
  BOOST_TEST(row_major_copy(A + A)(3, 4) == 68);
  const xt::xarray<float> cube = xt::xarray<float>::from_shape({2, 3, 4});
  BOOST_TEST(message_of<shape_error>([&] { pare::view(cube); }) ==
             "tensor of xtensor: expected two sides, got 3");
  const auto sparse = xt::view(A, xt::all(), xt::range(0, 5, 2));
  BOOST_TEST(message_of<argument_error>([&] { pare::view(sparse); }) ==
             "tensor of xtensor: expected the numbers of a row side by side, got columns 2 apart; "
             "write row_major_copy()");
  BOOST_TEST(row_major_copy(sparse)(3, 2) == 34);
  Matrix<float> M = copy;
  const auto seen = as_xtensor(M.view().block(1, 1, 2, 2));
  BOOST_TEST(&seen(0, 0) == M.data() + 6);
  BOOST_TEST(seen(1, 1) == 22);
}
#endif

#ifdef PARE_TEST_THRUST
BOOST_AUTO_TEST_CASE(vectors_of_thrust_are_seen_where_they_lie) {
  const std::vector<float> v{0, 1, 2, 10, 11, 12};
  thrust::device_vector<float> device(v.begin(), v.end());
  check_numbers(view(device, 2, 3), thrust::raw_pointer_cast(device.data()), 2, 3);
  const thrust::host_vector<float> host(v.begin(), v.end());
  check_numbers(view(host, 2, 3), thrust::raw_pointer_cast(host.data()), 2, 3);
  BOOST_TEST(message_of<shape_error>([&] { view(device, 3, 3); }) ==
             "numbers: expected as many as shape (3, 3) has, got 6");
}
#endif

BOOST_AUTO_TEST_CASE(a_solve_of_adapted_matrices_gives_the_bytes_of_our_own) {
  using B = backend::Reference;
  std::vector<float> x(24 * 8);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 37 % 101) - 50) / 50;
  const RowMajor W = 0.05f * numbers<RowMajor>(6, 8).array().sin();
  Calibration<B, float> calibration(8);
  calibration.add(view(x, 24, 8), 2);
  SparseGPTSolver<Compression<Unstructured, BaseQuantizer>, B, float> solver(
      {.sparsity = 0.5, .bits = 4});
  const auto seen = solver.solve({.weights = view(W), .calibration = calibration});
  const Matrix<float> own(view(W));
  const auto solved = solver.solve(own, calibration);
  BOOST_TEST((std::vector(seen.weights.data(), seen.weights.data() + 48) ==
              std::vector(solved.weights.data(), solved.weights.data() + 48)));
}

BOOST_AUTO_TEST_CASE(views_of_nothing_and_of_rows_that_overlap_are_errors) {
  using B = backend::Reference;
  std::vector<float> numbers(64, 1.0f);
  const MatrixView<const float> null(nullptr, 4, 8), overlap(numbers.data(), 4, 8, 7),
      backwards(numbers.data(), 4, 8, -8), good(numbers.data(), 8, 8);
  const std::string null_text = ": expected numbers, got a null view of shape (4, 8)";
  const auto overlap_text = [](const char* stride) {
    return std::string(": expected a stride of at least the 8 columns, got ") + stride +
           " for shape (4, 8)";
  };
  Calibration<B, float> calibration(8);
  SparseGPTSolver<Compression<Dense, BaseQuantizer>, B, float> solver({.bits = 4});
  const auto check = [&](const std::string& what, const auto& use) {
    BOOST_TEST(message_of<argument_error>([&] { use(null); }) == what + null_text);
    BOOST_TEST(message_of<shape_error>([&] { use(overlap); }) == what + overlap_text("7"));
    BOOST_TEST(message_of<shape_error>([&] { use(backwards); }) == what + overlap_text("-8"));
  };
  check("X (tokens, in)", [&](auto A) { calibration.add(A); });
  BOOST_TEST(calibration.tokens() == 0);
  calibration.add(good);
  check("weights (out, in)", [&](auto A) { solver.solve(A, calibration); });
  check("matrix", [](auto A) { Matrix<float>{A}; });

  const auto factor = factorize(calibration);
  InputDrift<B, float> drift(8);
  const auto scored = [&](auto A) { return ScoringInput<B, float>{A, calibration, factor}; };
  const std::vector<int> widths{4};
  check("weights (out, in)", [&](auto A) { ImportanceScorer<5, B, float>().score(scored(A)); });
  check("weights (out, in)", [&](auto A) { output_moments(scored(A)); });
  check("weights (out, in)",
        [&](auto A) { channel_distortion(scored(A), ChannelAxis::output, widths); });
  check("W (out, in)",
        [&](auto A) { corrected_weights<B, float>(A, drift, calibration, factor, 1); });
  check("W (out, in)", [](auto A) { zero_mask<B>(A); });
  Matrix<double> wide(4, 8);
  check("convert: from", [&](auto A) { convert<B>(A, wide.view()); });
  check("convert: to", [&](auto A) {
    convert<B>(MatrixView<const double>(wide),
               MatrixView<float>(const_cast<float*>(A.data), A.rows, A.cols, A.stride));
  });
  BOOST_TEST(message_of<shape_error>([&] { convert<B>(good, wide.view()); }) ==
             "convert: expected shape (4, 8), got (8, 8)");
  BOOST_TEST(message_of<argument_error>([&] {
               channel_distortion(scored(good), ChannelAxis::output, widths,
                                  MatrixView<const std::uint8_t>(nullptr, 8, 8));
             }) == "mask (out, in): expected numbers, got a null view of shape (8, 8)");
  BOOST_TEST(message_of<argument_error>([&] {
               Calibration<B, float>::from_hessian({nullptr, 8, 8});
             }) == "H: expected numbers, got a null view of shape (8, 8)");
  const std::vector<std::uint8_t> mask(64, 0);
  BOOST_TEST(message_of<argument_error>([&] {
               solver.solve({.weights = good,
                             .calibration = calibration,
                             .mask = MatrixView<const std::uint8_t>(nullptr, 8, 8)});
             }) == "mask (out, in): expected numbers, got a null view of shape (8, 8)");
  BOOST_TEST(message_of<shape_error>([&] {
               solver.solve({.weights = good,
                             .calibration = calibration,
                             .mask = MatrixView(mask.data(), 4, 8)});
             }) == "mask (out, in): expected shape (8, 8), got (4, 8)");
  // Nothing is read of a single row's stride, nor of a matrix without elements.
  BOOST_TEST(Matrix<float>(MatrixView<const float>(numbers.data(), 1, 8, 0)).size() == 8);
  BOOST_TEST(Matrix<float>(MatrixView<const float>(nullptr, 0, 8)).size() == 0);
}
