# Installs the headers, pareConfig.cmake and pare.pc. Nothing of it names a processor. Without
# PARE_INSTALL only `cmake --install BUILD --component pare` does; the rules are there all the same,
# so that a project that has pare as a folder can export a target that links pare::pare.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/pare)
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)
set(rule COMPONENT pare)
if(NOT PARE_INSTALL)
  list(APPEND rule EXCLUDE_FROM_ALL)
endif()

install(DIRECTORY include/pare DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} ${rule})
install(TARGETS pare EXPORT pareTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT pareTargets NAMESPACE pare:: DESTINATION ${package_dir} ${rule})
# package/ of the build is a package too: what links pare can be exported from a build.
export(EXPORT pareTargets NAMESPACE pare:: FILE ${CMAKE_CURRENT_BINARY_DIR}/package/pareTargets.cmake)
configure_package_config_file(cmake/pareConfig.cmake.in package/pareConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
foreach(file pareComponents.cmake pareConfigVersion.cmake)
  configure_file(cmake/${file} package/${file} COPYONLY)
endforeach()
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/package/pareConfigVersionSingle.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/pareComponents.cmake cmake/pareConfigVersion.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/package/pareConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/package/pareConfigVersionSingle.cmake
        DESTINATION ${package_dir} ${rule})

if(IS_ABSOLUTE "${pkgconfig_dir}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
  set(pc_includedir "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()  # the installed tree can be moved
  file(RELATIVE_PATH to_prefix /${pkgconfig_dir} /)
  set(pc_prefix "\${pcfiledir}/${to_prefix}")
  set(pc_includedir "\${prefix}${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file(cmake/pare.pc.in package/pare.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/package/pare.pc DESTINATION ${pkgconfig_dir} ${rule})
