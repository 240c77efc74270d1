// Times the packed matrix-vector product beside float16 products of the same shape, as JSON.
//
//   gpu_packed_benchmark [results.json] [tokens]
//
// With `tokens` only what a forward pass over few tokens takes, with the packed bits and with rows
// unpacked on the host; else that as well.
//
// As when a model generates text, one product follows the other, each of other weights: as many
// copies of a linear as are several times the L2 cache, in a graph. Each waits for the one before,
// or three run side by side as those of q, k and v may. A time is the median over replays, per
// product. The float16 product is the faster of cuBLAS and a kernel that only streams the weights.
#include <cuda_fp16.h>

#include <cstdio>
#include <functional>
#include <tuple>
#include <utility>

#include "packed_support.hpp"
#include "pare/backend/cuda/packed_product.cuh"
#include "pare/model/linear.hpp"
#include "pare/storage/without_mask.hpp"
#include "timing.cuh"

namespace {

using namespace bench;

constexpr std::size_t bytes_in_turn = std::size_t{400} << 20;  // the L2 holds 50 MiB

/// Microseconds of a product where each follows the one before, and where several are independent.
struct Times {
  double in_turn = 0, side_by_side = 0;
};

constexpr int branches = 3;  // as q, k and v

/// The launches of one branch: those whose number is `branch` modulo `step`.
cudaGraph_t captured(int count, int branch, int step, const std::function<void(int)>& launch) {
  cudaGraph_t graph;
  gpu::check(cudaStreamBeginCapture(gpu::stream(), cudaStreamCaptureModeThreadLocal),
             "cudaStreamBeginCapture");
  for (int i = branch; i < count; i += step) launch(i);
  gpu::check(cudaStreamEndCapture(gpu::stream(), &graph), "cudaStreamEndCapture");
  return graph;
}

/// Median microseconds per launch of a graph of `count` launches.
double time_graph(cudaGraph_t graph, int count) {
  cudaGraphExec_t executable;
  gpu::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  const double ms =
      time_ms([&] { gpu::check(cudaGraphLaunch(executable, gpu::stream()), "cudaGraphLaunch"); });
  gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  return 1000 * ms / count;
}

Times time_in_graphs(int count, const std::function<void(int)>& launch) {
  launch(0);  // loads what is loaded on first use
  gpu::synchronize();
  Times times;
  times.in_turn = time_graph(captured(count, 0, 1, launch), count);
  cudaGraph_t all;
  gpu::check(cudaGraphCreate(&all, 0), "cudaGraphCreate");
  for (int b = 0; b < branches; ++b) {
    cudaGraphNode_t node;
    cudaGraph_t branch = captured(count, b, branches, launch);
    gpu::check(cudaGraphAddChildGraphNode(&node, all, nullptr, 0, branch),
               "cudaGraphAddChildGraphNode");
    gpu::check(cudaGraphDestroy(branch), "cudaGraphDestroy");
  }
  times.side_by_side = time_graph(all, count);
  return times;
}

int copies_of(std::size_t bytes) { return int(std::max<std::size_t>(2, bytes_in_turn / bytes)); }

/// y = W x, a warp per row, loads of 16 bytes. May begin early, as the packed product may.
__global__ void half_product_kernel(int rows, int columns, const __half* W, const float* x,
                                    float* y) {
  cudaTriggerProgrammaticLaunchCompletion();
  const int row = int(blockIdx.x * blockDim.y + threadIdx.y);
  if (row >= rows) return;
  const uint4* from = reinterpret_cast<const uint4*>(W + std::int64_t(row) * columns);
  float sum = 0;
  constexpr int ahead = 8;
  for (int first = 0; first < columns / 8; first += 32 * ahead) {
    uint4 piece[ahead];
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      const int at = first + 32 * k + int(threadIdx.x);
      piece[k] = at < columns / 8 ? __ldcs(from + at) : make_uint4(0, 0, 0, 0);
    }
    if (first == 0) cudaGridDependencySynchronize();
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      const int at = first + 32 * k + int(threadIdx.x);
      if (at >= columns / 8) break;
      const float4 low = reinterpret_cast<const float4*>(x)[2 * at];
      const float4 high = reinterpret_cast<const float4*>(x)[2 * at + 1];
      const auto* pair = reinterpret_cast<const __half2*>(&piece[k]);
      const float2 a = __half22float2(pair[0]), b = __half22float2(pair[1]);
      const float2 c = __half22float2(pair[2]), d = __half22float2(pair[3]);
      sum += a.x * low.x + a.y * low.y + b.x * low.z + b.y * low.w;
      sum += c.x * high.x + c.y * high.y + d.x * high.z + d.y * high.w;
    }
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x == 0) y[row] = sum;
}

struct HalfTimes {
  Times cublas, streaming;
  double in_turn() const { return std::min(cublas.in_turn, streaming.in_turn); }
  double side_by_side() const { return std::min(cublas.side_by_side, streaming.side_by_side); }
};

struct FillHalf {
  MatrixView<__half> W;
  __device__ void operator()(index_t r, index_t c) const {
    W(r, c) = __float2half(0.02f * Noise{3}(r, c));
  }
};

HalfTimes time_half(index_t rows, index_t columns) {
  const int copies = copies_of(std::size_t(2 * rows * columns));
  std::vector<gpu::DeviceMatrix<__half>> weights;
  for (int i = 0; i < copies; ++i) {
    weights.emplace_back(rows, columns);
    Cuda::for_each_element(rows, columns, FillHalf{weights.back().view()});
  }
  gpu::DeviceMatrix<__half> x(1, columns), y(1, rows);
  gpu::DeviceMatrix<float> wide_x(1, columns), wide_y(1, rows);
  Cuda::for_each_element(1, columns, FillHalf{x.view()});
  Cuda::for_each_element(1, columns, FillWeights{wide_x.view()});
  const float one = 1, zero = 0;
  const auto blas = gpu::Context::get().blas;
  // Given by us, for a graph cannot hold what cuBLAS would allocate.
  gpu::DeviceMatrix<char> workspace(1, index_t{1} << 26);
  gpu::check(cublasSetWorkspace(blas, workspace.data(), std::size_t(workspace.size())),
             "cublasSetWorkspace");
  HalfTimes times;
  times.cublas = time_in_graphs(copies, [&](int i) {
    gpu::check(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, int(rows), 1, int(columns), &one,
                            weights[std::size_t(i)].data(), CUDA_R_16F, int(columns), x.data(),
                            CUDA_R_16F, int(columns), &zero, y.data(), CUDA_R_16F, int(rows),
                            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
               "cublasGemmEx");
  });
  times.streaming = time_in_graphs(copies, [&](int i) {
    gpu::packing::launch_early(half_product_kernel, int((rows + 7) / 8), dim3(32, 8), 0,
                               "half_product_kernel", int(rows), int(columns),
                               weights[std::size_t(i)].data(), wide_x.data(), wide_y.data());
  });
  return times;
}

struct Format {
  const char* name;
  pare::PackedLayout layout;
  pare::PackedMask kind = pare::PackedMask::none;
  bool drop_mask = false;
};

std::vector<Format> formats(index_t rows, index_t columns) {
  using pare::PackedLayout;
  using pare::PackedMask;
  std::vector<Format> all;
  const auto uniform = [&](int bits, index_t group_size = 0) {
    return PackedLayout{.rows = rows,
                        .columns = columns,
                        .widths = {std::uint8_t(bits)},
                        .group_size = group_size};
  };
  for (const auto& [name, bits] :
       {std::pair{"2 bit", 2}, {"3 bit", 3}, {"4 bit", 4}, {"6 bit", 6}, {"8 bit", 8}})
    all.push_back({name, uniform(bits)});
  for (const auto& [name, bits, group_size] : {std::tuple{"4 bit, groups of 128", 4, 128},
                                               {"4 bit, groups of 64", 4, 64},
                                               {"4 bit, groups of 32", 4, 32},
                                               {"3 bit, groups of 128", 3, 128}})
    all.push_back({name, uniform(bits, group_size)});
  PackedLayout mixed{.rows = rows, .columns = columns, .widths = test::mean_three_widths(rows, 1)};
  all.push_back({"mixed 3.0, output channels", mixed});
  mixed.axis = pare::ChannelAxis::input;
  mixed.widths = test::mean_three_widths(columns, 2);
  all.push_back({"mixed 3.0, input channels", mixed});
  PackedLayout pruned = uniform(4);
  pruned.pattern = pare::unstructured(0.5);
  all.push_back({"50 % + 4 bit", pruned, PackedMask::bits});
  all.push_back({"50 % + 4 bit, without_mask", pruned, PackedMask::bits, true});
  pruned.pattern = pare::n_of_m(2, 4);
  all.push_back({"2:4 + 4 bit", pruned, PackedMask::n_of_m});
  pruned.group_size = 128;
  all.push_back({"2:4 + 4 bit, groups of 128", pruned, PackedMask::n_of_m});
  pruned.pattern = pare::unstructured(0.5);
  all.push_back({"50 % + 4 bit, groups of 128", pruned, PackedMask::bits});
  all.push_back(
      {"50 %, float16 values",
       {.rows = rows, .columns = columns, .value_bits = 16, .pattern = pare::unstructured(0.5)},
       PackedMask::bits});
  return all;
}

/// The largest error of some rows, of the sum of |w x|.
double error_of(const pare::PackedLinear& packed, MatrixView<const float> x,
                MatrixView<const float> y) {
  const auto host_x = gpu::DeviceMemory::to_host(x), host_y = gpu::DeviceMemory::to_host(y);
  double worst = 0;
  for (index_t i = 0; i < y.cols; i += 61) {
    const test::ExactRow exact = test::exact_row(packed, i, host_x.data());
    const double error = std::abs(double(host_y(0, i)) - exact.value) / exact.magnitude;
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

/// Some tokens through a 4-bit linear of a model, as JSON. Below where the times meet is packed_tokens.
void run_tokens(std::FILE* json) {
  std::fprintf(json, "\"tokens\": [");
  const char* separator = "";
  for (const auto& [rows, columns] :
       {std::pair<index_t, index_t>{576, 576}, {1536, 576}, {4096, 4096}}) {
    const pare::PackedLayout layout{.rows = rows,
                                    .columns = columns,
                                    .widths = {4},
                                    .group_size = 64};
    pare::Linear<Cuda, float> linear;
    prepare_packed(linear,
                   std::make_shared<const pare::PackedLinear>(
                       test::random_packed(layout, pare::PackedMask::none, pare::DType::f16, 7)));
    auto unprepared = linear;
    unprepared.prepared.reset();
    pare::UnpackedRows<Cuda, float> room;
    for (const index_t tokens : {1, 8, 32, 128, 512, 2048}) {
      gpu::DeviceMatrix<float> X(tokens, columns), Y(tokens, rows);
      Cuda::for_each_element(tokens, columns, FillActivations{X.view()});
      const auto x = std::as_const(X).view();
      const double packed =
          time_ms([&] { Cuda::packed_multiply<float>(Y.view(), x, *linear.prepared, {}); });
      const double unpacked =
          time_ms([&] { pare::detail::apply<Cuda, float>(unprepared, x, Y.view(), room); });
      std::fprintf(json,
                   "%s\n    {\"out\": %ld, \"in\": %ld, \"tokens\": %ld, \"packed_us\": %.1f, "
                   "\"unpacked_us\": %.1f}",
                   separator, long(rows), long(columns), long(tokens), 1000 * packed,
                   1000 * unpacked);
      separator = ",";
      std::printf("%ldx%ld %5ld tokens: packed %9.1f us, unpacked %9.1f us\n", long(rows),
                  long(columns), long(tokens), 1000 * packed, 1000 * unpacked);
      std::fflush(stdout);
    }
  }
  std::fprintf(json, "\n  ]");
}

void run(std::FILE* json, bool only_tokens) {
  cudaDeviceProp device;
  gpu::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  if (only_tokens) {
    std::fprintf(json, "{\n  \"device\": \"%s\",\n  ", device.name);
    run_tokens(json);
    std::fprintf(json, "\n}\n");
    return;
  }
  double bandwidth = 0;
  {
    gpu::DeviceMatrix<float> from(1, index_t{1} << 28), to(1, index_t{1} << 28);
    Cuda::for_each_element(1, from.cols(), FillWeights{from.view()});
    const double copy =
        time_ms([&] { Cuda::copy(MatrixView<const float>(from.view()), to.view()); });
    bandwidth = 2.0 * double(std::size_t{1} << 30) / copy * 1e-9;
  }
  std::fprintf(json, "{\n  \"device\": \"%s\",\n  \"copy_tb_per_s\": %.3f,\n  \"products\": [",
               device.name, bandwidth);
  std::printf("%s, copy %.2f TB/s\n", device.name, bandwidth);
  const char* separator = "";
  for (const auto& [rows, columns] :
       {std::pair<index_t, index_t>{4096, 4096}, {16384, 4096}, {4096, 16384}}) {
    const HalfTimes half = time_half(rows, columns);
    std::printf("%ldx%ld  float16: cuBLAS %.2f and %.2f us, streaming %.2f and %.2f us\n",
                long(rows), long(columns), half.cublas.in_turn, half.cublas.side_by_side,
                half.streaming.in_turn, half.streaming.side_by_side);
    gpu::DeviceMatrix<float> x(1, columns), y(1, rows);
    Cuda::for_each_element(1, columns, FillActivations{x.view()});
    for (const Format& format : formats(rows, columns)) {
      pare::PackedLinear packed =
          test::random_packed(format.layout, format.kind, pare::DType::f16, 5);
      const std::uint64_t file_bytes = packed.bytes();
      if (format.drop_mask) packed = pare::without_mask(packed);
      const gpu::PackedProduct one(packed);
      const std::vector<gpu::PackedProduct<float>> products(std::size_t(copies_of(one.bytes())),
                                                            one);
      const Times times = time_in_graphs(int(products.size()), [&](int i) {
        products[std::size_t(i)].multiply(x.view(), y.view());
      });
      const double error = error_of(packed, x.view(), y.view());
      if (!(error < 1e-5)) throw std::runtime_error(std::string(format.name) + ": wrong product");
      const auto of_copy = [&](double us) { return double(one.bytes()) / us * 1e-6 / bandwidth; };
      std::fprintf(json,
                   "%s\n    {\"format\": \"%s\", \"out\": %ld, \"in\": %ld, \"us\": [%.3f, %.3f], "
                   "\"bytes\": %llu, \"packed_bytes\": %llu, \"of_copy\": [%.3f, %.3f], "
                   "\"times_float16\": [%.3f, %.3f], \"error\": %.2g}",
                   separator, format.name, long(rows), long(columns), times.in_turn,
                   times.side_by_side, (unsigned long long)one.bytes(),
                   (unsigned long long)file_bytes, of_copy(times.in_turn),
                   of_copy(times.side_by_side), half.in_turn() / times.in_turn,
                   half.side_by_side() / times.side_by_side, error);
      separator = ",";
      std::printf(
          "  %-26s %6.2f %6.2f us  %5.2f %5.2f x float16  %3.0f %3.0f %% of copy  %5.3f "
          "bits per weight (file %5.3f)  error %.1e\n",
          format.name, times.in_turn, times.side_by_side, half.in_turn() / times.in_turn,
          half.side_by_side() / times.side_by_side, 100 * of_copy(times.in_turn),
          100 * of_copy(times.side_by_side), 8.0 * double(one.bytes()) / double(rows * columns),
          8.0 * double(file_bytes) / double(rows * columns), error);
      std::fflush(stdout);
    }
  }
  std::fprintf(json, "\n  ],\n  ");
  run_tokens(json);
  std::fprintf(json, "\n}\n");
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* json = argc > 1 ? std::fopen(argv[1], "w") : stdout;
  if (json == nullptr) {
    std::fprintf(stderr, "%s: cannot be written\n", argv[1]);
    return 1;
  }
  try {
    run(json, argc > 2 && std::string(argv[2]) == "tokens");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return json != stdout && std::fclose(json) != 0;
}
