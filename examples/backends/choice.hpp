// --backend: chooses one of the backends that this build has, at run time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.hpp"
#include "pare/backend/system.hpp"

namespace pare::backend {
struct Eigen;
struct Xtensor;
}  // namespace pare::backend

namespace tool {

/// A backend by its name of --backend.
struct NamedBackend {
  std::string name;
  std::unique_ptr<Model> (*load_model)(const ModelSource&) = nullptr;  ///< null: not built
  pare::Statistics (*compress_linear)(const LinearJob&) = nullptr;
  bool (*stores)(pare::DType) = nullptr;
  bool (*split_products)(bool split) = nullptr;
  Rotated (*fold_rotation)(const fs::path& source, const fs::path& folder,
                           std::uint64_t seed) = nullptr;
  const char* advice = nullptr;  ///< how to build it
};

template <class B>
NamedBackend built(const char* name) {
  return {name,
          &OnBackend<B>::load_model,
          &OnBackend<B>::compress_linear,
          &OnBackend<B>::stores,
          &OnBackend<B>::split_products,
          &OnBackend<B>::fold_rotation};
}

/// Every backend that --backend can name.
inline std::vector<NamedBackend> all_backends() {
  namespace backend = pare::backend;
  std::vector<NamedBackend> all{built<backend::Eigen>("eigen")};
  [[maybe_unused]] const auto missing = [&](const char* name, const char* advice) {
    all.push_back({.name = name, .advice = advice});
  };
#if defined(PARE_HAS_XTENSOR)
  all.push_back(built<backend::Xtensor>("xtensor"));
#else
  missing("xtensor",
          "install xtensor-blas and OpenBLAS (libxtensor-blas-dev libopenblas-dev) and "
          "configure with -DPARE_XTENSOR=ON");
#endif
#if defined(PARE_HAS_THRUST)
  all.push_back(built<backend::Thrust<backend::system::omp>>("thrust-omp"));
#else
  missing("thrust-omp", "install Thrust (libthrust-dev) and configure with -DPARE_THRUST=ON");
#endif
#if defined(PARE_HAS_THRUST_TBB)
  all.push_back(built<backend::Thrust<backend::system::tbb>>("thrust-tbb"));
#else
  missing("thrust-tbb",
          "install Thrust and TBB (libthrust-dev libtbb-dev) and configure with "
          "-DPARE_THRUST=ON");
#endif
#if defined(PARE_HAS_CUDA)
  all.push_back(built<backend::Thrust<backend::system::cuda>>("cuda"));
#else
  missing("cuda", "install the CUDA Toolkit and configure with -DPARE_CUDA=ON");
#endif
  return all;
}

inline void add_backend_option(CLI::App& app, std::optional<std::string>& name) {
  std::string names;
  for (const NamedBackend& backend : all_backends())
    names += (names.empty() ? "" : ", ") + backend.name;
  add_value(app, "--backend", name, "where to compute: " + names + " (default: eigen)", "TEXT",
            "a run has one backend");
}

inline void add_precision_option(CLI::App& app, std::optional<std::string>& precision) {
  add_value(app, "--precision", precision,
            "how a GPU computes large products of float32: split (in 16-bit parts on the tensor "
            "cores, errors near those of float32) or float32 (default: split)",
            "TEXT", "a run has one precision");
}

/// Does what --precision says.
/// @throws usage_error for a word that is not known or that the backend has no choice of
inline void choose_precision(const std::optional<std::string>& precision,
                             const NamedBackend& backend) {
  if (!precision) return;
  const std::string given = written("--precision", *precision);
  if (*precision != "split" && *precision != "float32")
    throw unknown_value("--precision", *precision, "precision", {"split", "float32"},
                        {{"fp32", "float32"}, {"float", "float32"}});
  if (!backend.split_products(*precision == "split") && *precision == "split")
    throw usage_error(given + " with --backend " + backend.name +
                      ": it computes in float32; leave it out or write --backend cuda");
}

/// The type that --dtype names.
/// @throws usage_error for one that is not known or that the backend does not store
inline pare::DType dtype_of(const std::string& name, const NamedBackend& backend) {
  const std::string dtype = written("--dtype", name);
  pare::DType type = pare::DType::f32;
  if (name == "float16")
    type = pare::DType::f16;
  else if (name == "bfloat16")
    type = pare::DType::bf16;
  else if (name != "float32")
    throw unknown_value("--dtype", name, "type", {"float32", "float16", "bfloat16"},
                        {{"fp32", "float32"},
                         {"float", "float32"},
                         {"fp16", "float16"},
                         {"half", "float16"},
                         {"bf16", "bfloat16"}});
  if (!backend.stores(type))
    throw usage_error(dtype + " with --backend " + backend.name +
                      ": it stores float32 only; write --dtype float32 or --backend cuda");
  return type;
}

/// The backend that --backend names.
/// @throws usage_error for a name that is not known or was not built
inline NamedBackend chosen_backend(const std::optional<std::string>& name) {
  std::vector<std::string> names;
  for (const NamedBackend& backend : all_backends()) {
    names.push_back(backend.name);
    if (backend.name != name.value_or("eigen")) continue;
    if (backend.load_model == nullptr)
      throw usage_error("--backend " + *name + ": this program was built without it; " +
                        backend.advice);
    return backend;
  }
  throw unknown_value("--backend", *name, "backend", names,
                      {{"cpu", "eigen"}, {"gpu", "cuda"}, {"openmp", "thrust-omp"}});
}

}  // namespace tool
