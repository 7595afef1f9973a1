# The case files of every op, and the kill matrix, as C arrays in hm_certify (certify/embedded.h).
get_property(names TARGET hm_certify PROPERTY HM_EMBEDDED)
list(APPEND names kills.json)
file(GLOB names CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/data/cases data/cases/*.cases data/cases/kills.json)
list(TRANSFORM names PREPEND ${PROJECT_SOURCE_DIR}/data/cases/ OUTPUT_VARIABLE paths)
list(JOIN names "," joined)
add_custom_command(
    OUTPUT ${PROJECT_BINARY_DIR}/embedded.c
    COMMAND ${CMAKE_COMMAND} -DOUT=${PROJECT_BINARY_DIR}/embedded.c -DDIR=${PROJECT_SOURCE_DIR}/data/cases
            "-DNAMES=${joined}" -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${paths} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    COMMENT "Embedding data/cases"
    VERBATIM)
target_sources(hm_certify PRIVATE ${PROJECT_BINARY_DIR}/embedded.c)
