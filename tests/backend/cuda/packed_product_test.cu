// The packed matrix-vector product of the GPU against float64, for every layout there is.
#define BOOST_TEST_MODULE pare_cuda_packed_product
#include <boost/test/unit_test.hpp>

#include <limits>

#include "packed_support.hpp"
#include "pare/backend/cuda/packed_product.cuh"
#include "pare/backend/cuda/thrust_cuda.cuh"
#include "pare/model/linear.hpp"
#include "support.hpp"

using namespace pare;
using namespace test;
namespace gpu = pare::backend::cuda;

namespace {

Matrix<float> some_x(index_t in, std::uint64_t seed) {
  Matrix<float> x = random_normal<float>(1, in, seed);
  for (index_t j = 0; j < in; j += 97) x(0, j) *= 50;  // outliers, as activations have
  return x;
}

Matrix<float> product(const gpu::PackedProduct<float>& packed, const Matrix<float>& x) {
  const auto device_x = gpu::DeviceMemory::from_host(x.view());
  Matrix<float> y(x.rows(), packed.rows());
  y.fill(std::numeric_limits<float>::quiet_NaN());
  auto device_y = gpu::DeviceMemory::from_host(MatrixView<const float>(y.view()));
  packed.multiply(device_x.view(), device_y.view());
  return gpu::DeviceMemory::to_host(MatrixView<const float>(device_y.view()));
}

/// Holds the product of a linear to the bound that the class states.
void check_product(const PackedLinear& packed, std::uint64_t seed) {
  const index_t in = packed.layout.columns;
  const gpu::PackedProduct on_gpu(packed);
  const Matrix<float> x = some_x(in, seed);
  double largest = 0x1p-96;
  for (index_t j = 0; j < in; ++j) largest = std::max(largest, std::abs(double(x(0, j))));
  const Matrix<float> y = product(on_gpu, x);
  double worst = 0;  // of the bound
  for (index_t i = 0; i < packed.layout.rows; ++i) {
    const ExactRow exact = exact_row(packed, i, x.data());
    const double bound = packed.layout.quantized() ? 0x1p-30 * largest * exact.weight +
                                                         0x1p-24 * std::abs(exact.value) + 1e-37
                                                   : 1e-5 * exact.magnitude + 1e-37;
    const double error = std::abs(double(y(0, i)) - exact.value) / bound;
    if (!(error <= worst)) worst = error;
  }
  BOOST_TEST(worst <= 1.0);
  const Matrix<float> again = product(gpu::PackedProduct(on_gpu), x);
  BOOST_TEST((std::equal(y.data(), y.data() + y.size(), again.data())));  // same bytes
}

using StoredScalars = std::tuple<float, float16, bfloat16>;

const index_t shapes[][2] = {{1, 8},    {16, 512},  {17, 520},  {40, 136},
                             {5, 1544}, {131, 768}, {300, 2048}};

}  // namespace

BOOST_AUTO_TEST_CASE(every_uniform_width_and_mask) {
  for (const auto& [rows, columns] : shapes)
    for (int bits = min_bits; bits <= max_bits; ++bits)
      BOOST_TEST_CONTEXT("(" << rows << ", " << columns << ") at " << bits << " bits") {
        PackedLayout layout{.rows = rows, .columns = columns, .widths = {std::uint8_t(bits)}};
        check_product(random_packed(layout, PackedMask::none, DType::f16, 1), 2);
        layout.pattern = unstructured(0.5);
        for (const double density : {0.5, 0.02, 0.97})
          check_product(random_packed(layout, PackedMask::bits, DType::f16, 3, density), 4);
      }
}

BOOST_AUTO_TEST_CASE(rotated_inputs_are_rotated_first) {
  const PackedLayout layout{.rows = 40, .columns = 576, .widths = {4}};
  PackedLinear packed = random_packed(layout, PackedMask::none, DType::f16, 5);
  const kernels::HadamardRotation rotation{6};
  const Matrix<float> x = some_x(576, 7);
  Matrix<float> turned(1, 576);
  const kernels::RotateBlock<float> block{x.view(), turned.view(), rotation};
  for (index_t task = 0; task < block.count(); ++task) block(task);
  const Matrix<float> expected = product(gpu::PackedProduct(packed), turned);
  packed.rotation = rotation;
  const Matrix<float> given = product(gpu::PackedProduct(packed), x);
  double distance = 0, length = 0;
  for (index_t i = 0; i < 40; ++i) {
    distance += std::pow(double(given(0, i)) - double(expected(0, i)), 2);
    length += std::pow(double(expected(0, i)), 2);
  }
  BOOST_TEST(std::sqrt(distance / length) < 1e-5);
}

BOOST_AUTO_TEST_CASE(every_index_of_eight) {
  for (const auto& [rows, columns] : shapes)
    for (const auto& [zeros, of] :
         {std::pair{2, 4}, {1, 4}, {3, 4}, {1, 2}, {4, 8}, {3, 8}, {7, 8}, {1, 8}, {6, 8}})
      for (const int bits : {2, 4, 5, 8})
        BOOST_TEST_CONTEXT("(" << rows << ", " << columns << "), " << zeros << " of " << of
                               << " at " << bits << " bits") {
          const PackedLayout layout{.rows = rows,
                                    .columns = columns,
                                    .widths = {std::uint8_t(bits)},
                                    .pattern = n_of_m(zeros, of)};
          check_product(random_packed(layout, PackedMask::n_of_m, DType::f16, 5), 6);
        }
  const PackedLayout wide{.rows = 20, .columns = 640, .widths = {4}, .pattern = n_of_m(8, 16)};
  check_product(random_packed(wide, PackedMask::n_of_m, DType::f16, 7), 8);
}

BOOST_AUTO_TEST_CASE(mixed_widths_on_both_axes) {
  for (const auto& [rows, columns] : shapes)
    for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input})
      BOOST_TEST_CONTEXT("(" << rows << ", " << columns << "), axis "
                             << (axis == ChannelAxis::output ? "output" : "input")) {
        PackedLayout layout{.rows = rows, .columns = columns, .axis = axis};
        layout.widths = merged_widths(any_widths(layout.channels(), 9));
        check_product(random_packed(layout, PackedMask::none, DType::f32, 10), 11);
        layout.pattern = unstructured(0.5);
        check_product(random_packed(layout, PackedMask::bits, DType::f32, 12), 13);
        layout.pattern = n_of_m(2, 4);
        check_product(random_packed(layout, PackedMask::n_of_m, DType::f32, 14), 15);
      }
}

BOOST_AUTO_TEST_CASE(several_tokens_are_as_many_products) {
  for (const auto& [rows, columns] : shapes)
    for (const bool rotated : {false, true}) {
      const PackedLayout layout{.rows = rows, .columns = columns, .widths = {4}, .group_size = 64};
      PackedLinear packed = random_packed(layout, PackedMask::none, DType::f16, 50);
      if (rotated) packed.rotation = kernels::HadamardRotation{51};
      const gpu::PackedProduct on_gpu(packed);
      const Matrix<float> X = random_normal<float>(9, columns, 52);
      const Matrix<float> Y = product(on_gpu, X);
      for (index_t t = 0; t < X.rows(); ++t) {
        Matrix<float> x(1, columns);
        std::copy_n(X.view().row(t), columns, x.data());
        const Matrix<float> y = product(on_gpu, x);
        BOOST_TEST((std::equal(y.data(), y.data() + rows, Y.view().row(t))));
      }
    }
}

// A linear as a forward pass multiplies it. Up to packed_tokens tokens keep to the bound of the packed
// product, which a sum in float does not.
BOOST_AUTO_TEST_CASE_TEMPLATE(few_tokens_of_a_model_use_the_packed_bytes, S, StoredScalars) {
  using B = backend::Thrust<backend::system::cuda>;
  static_assert(MultipliesPacked<B, S>);
  static_assert(!MultipliesPacked<B, double>);
  constexpr double rounding = std::is_same_v<S, float>     ? 0x1p-23
                              : std::is_same_v<S, float16> ? 0x1p-11 + 0x1p-23
                                                           : 0x1p-8 + 0x1p-23;
  for (const bool with_bias : {false, true})
    for (const index_t group_size : {0, 64}) {
      const PackedLayout layout{.rows = 130,
                                .columns = 1544,
                                .widths = {4},
                                .group_size = group_size};
      const auto packed = std::make_shared<const PackedLinear>(
          random_packed(layout, PackedMask::none, DType::f16, 53));
      Linear<B, S> linear;
      prepare_packed(linear, packed);
      const Matrix<float> bias = random_normal<float>(1, layout.rows, 54);
      const auto stored = [](const Matrix<float>& values) {
        Matrix<S> result(values.rows(), values.cols());
        std::transform(values.data(), values.data() + values.size(), result.data(),
                       [](float x) { return S(x); });
        return result;
      };
      const Matrix<S> stored_bias = stored(bias);
      if (with_bias) linear.bias = B::from_host(stored_bias.view());
      UnpackedRows<B, S> room;
      for (const index_t tokens :
           {index_t{1}, index_t{5}, B::packed_tokens, B::packed_tokens + 1}) {
        const Matrix<S> X = stored(random_normal<float>(tokens, layout.columns, 55));
        const auto device_x = B::from_host(X.view());
        typename B::template matrix<S> device_y(tokens, layout.rows);
        detail::apply(linear, device_x.view(), device_y.view(), room);
        const Matrix<S> Y = B::to_host(detail::as_const(device_y.view()));
        double worst = 0;  // of the bound
        for (index_t t = 0; t < tokens; t += 40)
          for (index_t i = 0; i < layout.rows; ++i) {
            std::vector<float> x(X.view().row(t), X.view().row(t) + layout.columns);
            double largest = 0;
            for (const float number : x) largest = std::max(largest, std::abs(double(number)));
            const ExactRow exact = exact_row(*packed, i, x.data());
            const double b = with_bias ? double(float(stored_bias(0, i))) : 0;
            const double bound =
                tokens <= B::packed_tokens
                    ? 0x1p-30 * largest * exact.weight +
                          rounding * (std::abs(exact.value) + std::abs(exact.value + b)) + 1e-7
                    : 0.02 * exact.magnitude;
            const double error = std::abs(double(float(Y(t, i))) - (exact.value + b)) / bound;
            if (!(error <= worst)) worst = error;
          }
        BOOST_TEST_CONTEXT(tokens << " tokens") BOOST_TEST(worst <= 1.0);
        BOOST_TEST(room.host.size() == (tokens <= B::packed_tokens ? 0 : 130 * 1544));
      }
    }
}

// The sizes of runs, multiples of them, sizes that no run divides, and a last group that is shorter.
BOOST_AUTO_TEST_CASE(grids_per_group) {
  for (const auto& [rows, columns] : shapes)
    for (const index_t group_size : {8, 32, 40, 64, 96, 128, 192, 256})
      for (const int bits : {2, 3, 4, 5, 7, 8})
        BOOST_TEST_CONTEXT("(" << rows << ", " << columns << ") at " << bits << " bits, groups of "
                               << group_size) {
          PackedLayout layout{.rows = rows,
                              .columns = columns,
                              .widths = {std::uint8_t(bits)},
                              .group_size = group_size};
          check_product(random_packed(layout, PackedMask::none, DType::f16, 30), 31);
          if (bits == 3 || bits == 7) continue;
          layout.pattern = unstructured(0.5);
          check_product(random_packed(layout, PackedMask::bits, DType::f16, 32, 0.4), 33);
          layout.pattern = n_of_m(2, 4);
          check_product(random_packed(layout, PackedMask::n_of_m, DType::f16, 34), 35);
          layout.pattern = n_of_m(3, 8);
          check_product(random_packed(layout, PackedMask::n_of_m, DType::f16, 36), 37);
        }
}

// Codes, zero points and inputs as large as they can be: the integers of a run are near 2^31.
BOOST_AUTO_TEST_CASE(the_largest_sums_of_groups) {
  for (const index_t group_size : {32, 64, 128})
    for (const bool zero_is_largest : {false, true}) {
      const PackedLayout layout{.rows = 20,
                                .columns = 1024,
                                .widths = {8},
                                .group_size = group_size};
      PackedLinear packed = random_packed(layout, PackedMask::none, DType::f16, 38);
      std::fill(packed.codes.begin(), packed.codes.end(), std::byte(zero_is_largest ? 0 : 255));
      std::fill(packed.zeros.begin(), packed.zeros.end(), std::uint8_t(zero_is_largest ? 255 : 0));
      packed.scales.front() = 1;  // the smallest float16 > 0
      const gpu::PackedProduct on_gpu(packed);
      for (const float size :
           {1.0f, -1.0f, std::nextafter(1.0f, 0.0f), -std::nextafter(1.0f, 0.0f)}) {
        Matrix<float> x(1, 1024);
        x.fill(size);
        const Matrix<float> y = product(on_gpu, x);
        for (index_t i = 0; i < 20; ++i) {
          const ExactRow exact = exact_row(packed, i, x.data());
          BOOST_TEST(std::abs(double(y(0, i)) - exact.value) <=
                     0x1p-24 * std::abs(exact.value) + 0x1p-30 * exact.weight);
        }
      }
    }
}

BOOST_AUTO_TEST_CASE(groups_with_mixed_widths_on_both_axes) {
  for (const auto& [rows, columns] : shapes)
    for (const ChannelAxis axis : {ChannelAxis::output, ChannelAxis::input})
      for (const index_t group_size : {32, 40, 64, 128})
        BOOST_TEST_CONTEXT("(" << rows << ", " << columns << "), groups of " << group_size
                               << ", axis " << (axis == ChannelAxis::output ? "output" : "input")) {
          PackedLayout layout{.rows = rows,
                              .columns = columns,
                              .axis = axis,
                              .group_size = group_size};
          layout.widths = merged_widths(any_widths(layout.channels(), 39));
          check_product(random_packed(layout, PackedMask::none, DType::f32, 40), 41);
          layout.pattern = unstructured(0.5);
          check_product(random_packed(layout, PackedMask::bits, DType::f32, 42), 43);
          layout.pattern = n_of_m(2, 4);
          check_product(random_packed(layout, PackedMask::n_of_m, DType::f32, 44), 45);
        }
}

BOOST_AUTO_TEST_CASE(values_that_were_only_pruned) {
  for (const auto& [rows, columns] : shapes)
    for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
      PackedLayout layout{.rows = rows,
                          .columns = columns,
                          .value_bits = 8 * dtype_bytes(dtype),
                          .pattern = unstructured(0.5)};
      check_product(random_packed(layout, PackedMask::bits, dtype, 16), 17);
      layout.pattern = n_of_m(2, 4);
      check_product(random_packed(layout, PackedMask::n_of_m, dtype, 18), 19);
      layout.pattern = {};
      check_product(random_packed(layout, PackedMask::none, dtype, 20), 21);
    }
}

BOOST_AUTO_TEST_CASE(nothing_left_and_everything_kept) {
  const PackedLayout layout{.rows = 33,
                            .columns = 520,
                            .widths = {4},
                            .pattern = unstructured(0.5)};
  for (const double density : {0.0, 1.0})
    check_product(random_packed(layout, PackedMask::bits, DType::f16, 22, density), 23);
}

BOOST_AUTO_TEST_CASE(extreme_inputs) {
  const PackedLayout layout{.rows = 20, .columns = 512, .widths = {8}};
  const PackedLinear packed = random_packed(layout, PackedMask::none, DType::f16, 24);
  const gpu::PackedProduct on_gpu(packed);
  Matrix<float> x(1, 512);
  const Matrix<float> zeros = product(on_gpu, x);
  for (index_t i = 0; i < 20; ++i) BOOST_TEST(zeros(0, i) == 0);
  for (const float size : {1e-38f, 1e-30f, 1e30f, 3e38f}) {
    x.fill(0);
    x(0, 100) = size;
    x(0, 200) = -size / 2;
    const Matrix<float> y = product(on_gpu, x);
    for (index_t i = 0; i < 20; ++i) {
      const ExactRow exact = exact_row(packed, i, x.data());
      if (std::abs(exact.value) > double(std::numeric_limits<float>::max())) {
        BOOST_TEST(double(y(0, i)) ==
                   std::copysign(std::numeric_limits<double>::infinity(), exact.value));
        continue;
      }
      BOOST_TEST(std::abs(double(y(0, i)) - exact.value) <=
                 0x1p-24 * std::abs(exact.value) +
                     0x1p-30 * std::max(double(size), 0x1p-96) * exact.weight);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_number_that_is_not_finite_makes_all_nan) {
  PackedLayout layout{.rows = 20, .columns = 1032, .widths = {4}};
  for (const index_t group_size : {0, 64, 128, 1}) {  // 1: widths of columns
    const bool mixed = group_size == 1;
    layout.group_size = mixed ? 0 : group_size;
    if (mixed) {
      layout.axis = ChannelAxis::input;
      layout.widths = merged_widths(any_widths(layout.columns, 27));
    }
    for (const PackedMask kind : {PackedMask::none, PackedMask::bits}) {
      layout.pattern = kind == PackedMask::none ? Pattern{} : unstructured(0.5);
      const gpu::PackedProduct on_gpu(random_packed(layout, kind, DType::f16, 28));
      for (const float bad :
           {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
            std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()})
        for (const index_t at : {0, 5, 511, 512, 700, 1031}) {
          Matrix<float> x = some_x(layout.columns, 29);
          x(0, at) = bad;
          const Matrix<float> y = product(on_gpu, x);
          for (index_t i = 0; i < 20; ++i) BOOST_TEST(std::isnan(y(0, i)));
        }
    }
  }
}

BOOST_AUTO_TEST_CASE(wrong_shapes_are_errors) {
  const PackedLayout layout{.rows = 20, .columns = 512, .widths = {4}};
  const gpu::PackedProduct packed(random_packed(layout, PackedMask::none, DType::f16, 25));
  gpu::DeviceMatrix<float> x(1, 511), y(1, 20), x_ok(1, 512), y_bad(2, 20);
  BOOST_CHECK_EXCEPTION(packed.multiply(x.view(), y.view()), shape_error, [](const error& e) {
    return std::string(e.what()).find("(1, 512), got (1, 511)") != std::string::npos;
  });
  BOOST_CHECK_THROW(packed.multiply(x_ok.view(), y_bad.view()), shape_error);
  const PackedLayout wide{.rows = 1, .columns = 1 << 20, .widths = {4}};
  BOOST_CHECK_EXCEPTION(gpu::PackedProduct(random_packed(wide, PackedMask::none, DType::f16, 26)),
                        shape_error, [](const error& e) {
                          return std::string(e.what()).find("1048576") != std::string::npos;
                        });
}
