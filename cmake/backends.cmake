# The backends that can be built here: pare_backends lists them, pare_<backend> is the target that a
# program of this repository links for one. What is missing is skipped and said.

option(PARE_THRUST "Build the Thrust backends where Thrust is found" ON)
option(PARE_XTENSOR "Build the xtensor backend where xtensor-blas and OpenBLAS are found" ON)

add_library(pare_eigen INTERFACE)
target_link_libraries(pare_eigen INTERFACE pare_program)
set(pare_backends eigen)

function(pare_skipped backend what packages)
  message(STATUS "${backend} backend: ${what} not found, skipped; install ${packages}")
endfunction()

if(PARE_THRUST)
  find_path(PARE_THRUST_INCLUDE_DIR thrust/version.h)
  if(NOT PARE_THRUST_INCLUDE_DIR)  # the one that comes with CUDA
    find_package(CUDAToolkit QUIET)
    find_path(PARE_THRUST_INCLUDE_DIR thrust/version.h
              PATHS ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES cccl)
  endif()
  find_package(TBB QUIET)
  if(PARE_THRUST_INCLUDE_DIR)
    add_library(pare_thrust INTERFACE)
    target_link_libraries(pare_thrust INTERFACE pare_program)
    target_include_directories(pare_thrust SYSTEM INTERFACE ${PARE_THRUST_INCLUDE_DIR})
    list(APPEND pare_backends thrust)
    if(TBB_FOUND)
      add_library(pare_thrust_tbb INTERFACE)
      target_link_libraries(pare_thrust_tbb INTERFACE pare_thrust TBB::tbb)
      list(APPEND pare_backends thrust_tbb)
    else()
      pare_skipped(thrust-tbb TBB libtbb-dev)
    endif()
  else()
    pare_skipped(thrust Thrust libthrust-dev)
  endif()
endif()

# The product of a packed linear with a vector; a program of it links pare_highway.
pkg_check_modules(HIGHWAY QUIET IMPORTED_TARGET libhwy)
if(HIGHWAY_FOUND)
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_LIBRARIES PkgConfig::HIGHWAY)
  if(PARE_NATIVE)
    set(CMAKE_REQUIRED_FLAGS -march=native)
  endif()
  check_cxx_source_compiles("#include <hwy/highway.h>
    static_assert(HWY_TARGET != HWY_SCALAR, \"no vectors\");
    namespace hn = hwy::HWY_NAMESPACE;
    const hn::CappedTag<float, 8> d;
    int main() { return int(hn::GetLane(hn::SumOfLanes(d, hn::Zero(d)))); }" PARE_HIGHWAY_VECTORS)
  unset(CMAKE_REQUIRED_LIBRARIES)
  unset(CMAKE_REQUIRED_FLAGS)
endif()
if(PARE_HIGHWAY_VECTORS)
  add_library(pare_highway INTERFACE)
  target_link_libraries(pare_highway INTERFACE pare_program PkgConfig::HIGHWAY)
else()
  message(STATUS "packed product: Highway, or vectors for it, not found, skipped; install "
                 "libhwy-dev, compile for SSE4 or later")
endif()

if(PARE_XTENSOR)
  set(BLA_VENDOR OpenBLAS)
  find_package(BLAS QUIET)
  find_package(LAPACK QUIET)
  find_package(xtensor QUIET)
  if(BLAS_FOUND AND LAPACK_FOUND AND xtensor_FOUND)
    find_package(xtensor-blas QUIET)  # demands BLAS and LAPACK
  endif()
  if(xtensor-blas_FOUND)
    add_library(pare_xtensor INTERFACE)
    target_link_libraries(pare_xtensor INTERFACE pare_program xtensor xtensor-blas)
    if(TARGET xtensor::use_xsimd)  # vectorises exp
      target_link_libraries(pare_xtensor INTERFACE xtensor::use_xsimd)
    endif()
    list(APPEND pare_backends xtensor)
  else()
    pare_skipped(xtensor "xtensor-blas or OpenBLAS"
                 "libxtensor-dev libxtensor-blas-dev libxsimd-dev libopenblas-dev")
  endif()
  unset(BLA_VENDOR)
endif()
