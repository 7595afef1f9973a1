# The case files and bench lists of every op, and the kill matrix, as C arrays in hm_certify (certify/embedded.h).
file(GLOB paths CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/data/cases/*.cases ${PROJECT_SOURCE_DIR}/data/cases/kills.json
    ${PROJECT_SOURCE_DIR}/tests/perf/*.bench)
list(JOIN paths "," joined)
add_custom_command(
    OUTPUT ${PROJECT_BINARY_DIR}/embedded.c
    COMMAND ${CMAKE_COMMAND} -DOUT=${PROJECT_BINARY_DIR}/embedded.c "-DFILES=${joined}" -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${paths} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    COMMENT "Embedding data/cases and tests/perf"
    VERBATIM)
target_sources(hm_certify PRIVATE ${PROJECT_BINARY_DIR}/embedded.c)
