# What is installed: two shared libraries, the tool, headers, recorded traces, and how to find them
# (find_package(hallmark COMPONENTS hallmark certify); hallmark.pc, hallmark-certify.pc). All of it may be moved.

# A folder to be copied to a machine with nothing but libc: the tool, and beside it the libraries that it needs. DT_RPATH, since
# DT_RUNPATH does not count for what a library needs.
if(HM_DEVICE)
    set_target_properties(hallmark-tool PROPERTIES INSTALL_RPATH $ORIGIN)
    target_link_options(hallmark-tool PRIVATE -Wl,--disable-new-dtags)
    install(TARGETS hallmark-tool RUNTIME DESTINATION .)
    install(FILES tools/peer_torch.py DESTINATION .)
    install(CODE [[
        file(GET_RUNTIME_DEPENDENCIES EXECUTABLES $<TARGET_FILE:hallmark-tool> RESOLVED_DEPENDENCIES_VAR libraries
            UNRESOLVED_DEPENDENCIES_VAR missing PRE_EXCLUDE_REGEXES "^lib(c|m|dl|pthread|rt)\\.so" "^ld-linux")
        if(missing)
            message(FATAL_ERROR "These libraries were not found: ${missing}")
        endif()
        file(INSTALL DESTINATION "${CMAKE_INSTALL_PREFIX}" TYPE SHARED_LIBRARY FOLLOW_SYMLINK_CHAIN FILES ${libraries})
    ]])
    return()
endif()

include(CMakePackageConfigHelpers)

set_target_properties(hallmark-certify PROPERTIES EXPORT_NAME certify)
set_target_properties(hallmark-certify hallmark-tool PROPERTIES INSTALL_RPATH $ORIGIN)
install(TARGETS hallmark hallmark-certify EXPORT hallmark LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS hallmark-tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/hallmark DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES tools/peer_torch.py DESTINATION ${CMAKE_INSTALL_DATADIR}/hallmark)
install(DIRECTORY data/traces DESTINATION ${CMAKE_INSTALL_DATADIR}/hallmark FILES_MATCHING PATTERN "*.safetensors")

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/hallmark)
install(EXPORT hallmark NAMESPACE hallmark:: FILE hallmarkTargets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/hallmarkConfig.cmake.in ${PROJECT_BINARY_DIR}/hallmarkConfig.cmake
    INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/hallmarkConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/hallmarkConfig.cmake ${PROJECT_BINARY_DIR}/hallmarkConfigVersion.cmake
    DESTINATION ${package_dir})

set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH prefix_from_pc ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
foreach(name hallmark hallmark-certify)
    configure_file(cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${pkgconfig_dir})
endforeach()
