# Case lists and the kill matrix as C arrays in hm_certify (certify/embedded.h).
get_property(files TARGET hm_certify PROPERTY HM_EMBEDDED)
list(APPEND files ${PROJECT_SOURCE_DIR}/data/cases/kills.json)
list(JOIN files "," joined)
add_custom_command(
    OUTPUT ${PROJECT_BINARY_DIR}/embedded.c
    COMMAND ${CMAKE_COMMAND} -DOUT=${PROJECT_BINARY_DIR}/embedded.c "-DFILES=${joined}" -P
            ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${files} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    COMMENT "Embedding data/cases and tests/perf"
    VERBATIM)
target_sources(hm_certify PRIVATE ${PROJECT_BINARY_DIR}/embedded.c)
