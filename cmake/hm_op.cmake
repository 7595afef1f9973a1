# hm_op(NAME SIBLINGS sibling...)
#
# One line per op says which files it has. A sibling adds that file to its folder's target:
#   op        op/NAME.c                     hm_op
#   ref       ref/NAME.c                    hm_ref
#   cpu       opt/cpu/NAME_cpu.c            hm_opt     and defines HM_HAVE_NAME_cpu
#   cuda      opt/cuda/NAME.cu              hm_opt     where there is a CUDA compiler; every op has one
#   golden    golden/NAME.c                 hm_golden
#   faults    certify/faults/NAME.c         hm_certify
#   variants  certify/variants/NAME.c       hm_certify
#   inputs    certify/inputs/NAME.c         hm_certify   (inputs that hang together: slots, block tables, caches)
#   cases     data/cases/NAME.cases         embedded in hm_certify, and NAME.outside.cases: shapes that no suite has
#   bench     tests/perf/NAME.bench         embedded in hm_certify
# A sibling that is named and missing is an error: nothing is found by looking around.
function(hm_op name)
    cmake_parse_arguments(arg "" "" "SIBLINGS" ${ARGN})
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_SIBLINGS)
        message(FATAL_ERROR "hm_op(${name}): write hm_op(NAME SIBLINGS op ref golden ...)")
    endif()
    foreach(sibling IN LISTS arg_SIBLINGS)
        if(sibling STREQUAL "op" OR sibling STREQUAL "ref" OR sibling STREQUAL "golden")
            target_sources(hm_${sibling} PRIVATE ${PROJECT_SOURCE_DIR}/${sibling}/${name}.c)
        elseif(sibling STREQUAL "faults" OR sibling STREQUAL "variants" OR sibling STREQUAL "inputs")
            target_sources(hm_certify PRIVATE ${PROJECT_SOURCE_DIR}/certify/${sibling}/${name}.c)
        elseif(sibling STREQUAL "cases")
            set_property(TARGET hm_certify APPEND PROPERTY HM_EMBEDDED ${PROJECT_SOURCE_DIR}/data/cases/${name}.cases
                ${PROJECT_SOURCE_DIR}/data/cases/${name}.outside.cases)
        elseif(sibling STREQUAL "bench")
            set_property(TARGET hm_certify APPEND PROPERTY HM_EMBEDDED ${PROJECT_SOURCE_DIR}/tests/perf/${name}.bench)
        elseif(sibling STREQUAL "cpu")
            set_property(GLOBAL APPEND PROPERTY HM_CPU_OPS ${name})
        elseif(sibling STREQUAL "cuda")
            set_property(GLOBAL APPEND PROPERTY HM_CUDA_OPS ${name})
        else()
            message(FATAL_ERROR "hm_op(${name}): no sibling is called \"${sibling}\"")
        endif()
    endforeach()
endfunction()
