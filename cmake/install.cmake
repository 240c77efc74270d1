# Installs the headers, pareConfig.cmake and pare.pc. Nothing of it names a processor.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/pare)
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

install(DIRECTORY include/pare DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS pare EXPORT pareTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT pareTargets NAMESPACE pare:: DESTINATION ${package_dir})
configure_package_config_file(cmake/pareConfig.cmake.in package/pareConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/package/pareConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/pareComponents.cmake ${CMAKE_CURRENT_BINARY_DIR}/package/pareConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/package/pareConfigVersion.cmake
        DESTINATION ${package_dir})

file(RELATIVE_PATH to_prefix /${pkgconfig_dir} /)
configure_file(cmake/pare.pc.in package/pare.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/package/pare.pc DESTINATION ${pkgconfig_dir})
