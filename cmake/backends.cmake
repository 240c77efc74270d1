# The backends that can be built here: pare_backends lists them, pare_<backend> is the target that a
# program of this repository links for one. What is missing is skipped and said.

option(PARE_THRUST "Build the Thrust backends where Thrust is found" ON)
option(PARE_XTENSOR "Build the xtensor backend where xtensor-blas and OpenBLAS are found" ON)

add_library(pare_eigen INTERFACE)
target_link_libraries(pare_eigen INTERFACE pare_program)
set(pare_backends eigen)

function(pare_add_backend backend component)
  pare_add_component(${component} missing)
  if(missing)
    message(STATUS "${backend} backend: skipped, not found: ${missing}")
    return()
  endif()
  add_library(pare_${backend} INTERFACE)
  target_link_libraries(pare_${backend} INTERFACE pare_program pare::${component})
  set(pare_backends ${pare_backends} ${backend} PARENT_SCOPE)
endfunction()

if(PARE_THRUST)
  pare_add_backend(thrust thrust_omp)
  pare_add_backend(thrust_tbb thrust_tbb)
endif()
if(PARE_XTENSOR)
  pare_add_backend(xtensor xtensor)
  if(TARGET pare_xtensor AND TARGET xtensor::use_xsimd)  # vectorises exp
    target_link_libraries(pare_xtensor INTERFACE xtensor::use_xsimd)
  endif()
endif()
