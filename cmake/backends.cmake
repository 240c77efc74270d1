# The backends that can be built here: pare_backends lists them, pare_<backend> is the target that a
# program of this repository links for one. What is missing is skipped and said.

option(PARE_THRUST "Build the Thrust backends where Thrust is found" ON)
option(PARE_XTENSOR "Build the xtensor backend where xtensor-blas and OpenBLAS are found" ON)

# The product of a packed linear with a vector; a program of it links pare_highway.
find_package(PkgConfig REQUIRED)
pkg_check_modules(HIGHWAY QUIET IMPORTED_TARGET libhwy)
if(HIGHWAY_FOUND)
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_LIBRARIES PkgConfig::HIGHWAY)
  if(PARE_NATIVE)
    set(CMAKE_REQUIRED_FLAGS -march=native)
  endif()
  check_cxx_source_compiles("#define HWY_WANT_AVX3_DL
    #include <hwy/highway.h>
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

# Eigen's kernels, which take longer to compile than most of what uses them.
add_library(pare_eigen_kernels STATIC ${CMAKE_CURRENT_LIST_DIR}/eigen_kernels.cpp)
target_link_libraries(pare_eigen_kernels PRIVATE pare_program)
if(NOT PARE_SANITIZE)
  target_compile_options(pare_eigen_kernels PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O3>)
endif()
target_compile_definitions(pare_eigen_kernels INTERFACE PARE_EXTERN_KERNELS)
if(PARE_HIGHWAY_VECTORS)
  target_link_libraries(pare_eigen_kernels PRIVATE PkgConfig::HIGHWAY)
  target_compile_definitions(pare_eigen_kernels PUBLIC PARE_HIGHWAY)
endif()

add_library(pare_eigen INTERFACE)
target_link_libraries(pare_eigen INTERFACE pare_program pare_eigen_kernels)
set(pare_backends eigen)

# The same with the solvers that dispatch() knows, which tools and tests share; what links this is
# compiled with their declarations in front. The tools need float32 alone.
add_library(pare_eigen_solvers STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/eigen_solvers.cpp)
target_link_libraries(pare_eigen_solvers PUBLIC pare_eigen)
target_compile_options(pare_eigen_solvers INTERFACE
                       -include ${CMAKE_CURRENT_LIST_DIR}/eigen_solvers.hpp)
if(PARE_TESTS AND PARE_CI_TESTS)
  target_sources(pare_eigen_solvers PRIVATE ${CMAKE_CURRENT_LIST_DIR}/eigen_solvers_double.cpp)
  target_compile_definitions(pare_eigen_solvers INTERFACE PARE_SOLVERS_OF_DOUBLE)
endif()

function(pare_add_backend backend component)  # what else it links follows
  pare_add_component(${component} missing)
  if(missing)
    message(STATUS "${backend} backend: skipped, not found: ${missing}")
    return()
  endif()
  add_library(pare_${backend} INTERFACE)
  target_link_libraries(pare_${backend} INTERFACE pare_program pare::${component} ${ARGN})
  set(pare_backends ${pare_backends} ${backend} PARENT_SCOPE)
endfunction()

if(PARE_THRUST)
  set(thrust_links pare_eigen_kernels)
  if("undefined" IN_LIST PARE_SANITIZE)
    # Thrust 1.17 binds references to policies that are not there, and reads nothing from them.
    # Linked last: the flag must stand behind -fsanitize.
    add_library(pare_thrust_unchecked INTERFACE)
    target_compile_options(pare_thrust_unchecked INTERFACE -fno-sanitize=null)
    list(APPEND thrust_links pare_thrust_unchecked)
  endif()
  pare_add_backend(thrust thrust_omp ${thrust_links})
  pare_add_backend(thrust_tbb thrust_tbb ${thrust_links})
endif()

if(PARE_XTENSOR)
  pare_add_backend(xtensor xtensor pare_eigen_kernels)  # which have the product of packed linears
  if(TARGET pare_xtensor AND TARGET xtensor::use_xsimd)  # vectorises exp
    target_link_libraries(pare_xtensor INTERFACE xtensor::use_xsimd)
  endif()
endif()
