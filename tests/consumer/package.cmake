# What the package promises beside its flags: which components find_package gives, libraries of others
# that are exported with it, and an installation of the headers alone.
#   cmake -DCASE=package|headers_alone|export_find_package|export_subdirectory|export_excluded
#         -DSOURCE=<repository> -DPREFIX=<where pare is installed> -DWORK=<folder> -DCXX=<c++>
#         -DVERSION=<of pare> -DCOMPONENTS=<all that can be had here> -P package.cmake
cmake_minimum_required(VERSION 3.22)
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)
set(here ${CMAKE_CURRENT_LIST_DIR})
file(REMOVE_RECURSE ${WORK})
list(JOIN COMPONENTS "," names)
set(configure ${CMAKE_COMMAND} -G Ninja -DCMAKE_CXX_COMPILER=${CXX})

if(CASE STREQUAL "package")
  set(cases all asked refused without_eigen versions eigen_5 eigen_3_3)
  list(JOIN cases "," cases)
  run(${configure} -S ${here}/package -B ${WORK}/cxx -DPARE_DIR=${PREFIX} -DPARE_VERSION=${VERSION}
      -DCOMPONENTS=${names} -DCASES=${cases} -DLANGUAGE=CXX)
  run(${CMAKE_COMMAND} -G Ninja -S ${here}/package -B ${WORK}/none -DPARE_DIR=${PREFIX}
      -DPARE_VERSION=${VERSION} -DCASES=no_language -DLANGUAGE=NONE)

elseif(CASE STREQUAL "headers_alone")
  set(configure ${configure} -S ${SOURCE} -B ${WORK}/build -DCMAKE_INSTALL_PREFIX=${WORK}/prefix)
  foreach(package nlohmann_json PkgConfig Eigen3 OpenMP Boost CLI11 benchmark BLAS LAPACK xtensor
                  xtensor-blas TBB CUDAToolkit Python3)
    list(APPEND configure -DCMAKE_DISABLE_FIND_PACKAGE_${package}=ON)
  endforeach()
  run(${configure})
  foreach(said PARE_TESTS libboost-test-dev PARE_EXAMPLES libcli11-dev PARE_BENCHMARKS
               libbenchmark-dev libeigen3-dev nlohmann-json3-dev)
    expect_output(${said})
  endforeach()
  run(${CMAKE_COMMAND} --install ${WORK}/build)
  foreach(file include/pare/pare.hpp share/cmake/pare/pareConfig.cmake share/pkgconfig/pare.pc)
    if(NOT EXISTS ${WORK}/prefix/${file})
      message(FATAL_ERROR "not installed: ${file}")
    endif()
  endforeach()
  foreach(part TESTS EXAMPLES BENCHMARKS)  # asked for, they are not left out
    execute_process(COMMAND ${configure} -DPARE_TESTS=OFF -DPARE_EXAMPLES=OFF -DPARE_BENCHMARKS=OFF
                            -DPARE_${part}=ON
                    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(result EQUAL 0)
      message(FATAL_ERROR "configured PARE_${part}=ON without its packages")
    endif()
    expect_output("PARE_${part}=ON: not found: ")
  endforeach()

else()
  string(REGEX REPLACE "^export_" "" from ${CASE})
  set(pare ${SOURCE})
  set(found ${PREFIX})  # where the user of the exported libraries finds pare
  set(options "")
  if(from STREQUAL "find_package")
    set(pare ${PREFIX})
  elseif(from STREQUAL "subdirectory")  # pare is installed beside them
    set(options -DPARE_INSTALL=ON)
    set(found ${WORK}/prefix)
  endif()
  run(${configure} -S ${here}/exporter -B ${WORK}/build -DCMAKE_INSTALL_PREFIX=${WORK}/prefix
      -DPARE_FROM=${from} -DPARE_DIR=${pare} -DCOMPONENTS=${names} ${options})
  run(${CMAKE_COMMAND} --build ${WORK}/build)
  run(${CMAKE_COMMAND} --install ${WORK}/build)
  if(from STREQUAL "excluded")
    if(EXISTS ${WORK}/prefix/include)
      message(FATAL_ERROR "pare installed itself, nobody asked for that")
    endif()
    # The package of its build.
    run(${configure} -S ${here}/exporter/user -B ${WORK}/of_build
        -Dapp_DIR=${WORK}/build -Dpare_DIR=${WORK}/build/pare/package)
  endif()
  run(${configure} -S ${here}/exporter/user -B ${WORK}/user
      "-DCMAKE_PREFIX_PATH=${WORK}/prefix\;${found}" -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF)
  run(${CMAKE_COMMAND} --build ${WORK}/user)
  run(${WORK}/user/use_app)
  expect_output("pare ${VERSION}: exported")
endif()
message(STATUS "${output}")
