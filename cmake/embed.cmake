# cmake -DOUT=FILE.c -DFILES=a,b,c -P embed.cmake
# Writes a C file that holds the named files as NUL-terminated bytes, under their names without folders; see certify/embedded.h.
string(REPLACE "," ";" files "${FILES}")
set(arrays "")
set(rows "")
set(count 0)
foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME)
    file(READ "${file}" bytes HEX)
    string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    string(APPEND arrays "static const unsigned char data_${count}[] = {\n${bytes}0};\n")
    string(APPEND rows "    {\"${name}\", (const char *)data_${count}, sizeof data_${count} - 1},\n")
    math(EXPR count "${count} + 1")
endforeach()
file(WRITE "${OUT}" "/* Made by cmake/embed.cmake at build time. */
#include \"certify/embedded.h\"

${arrays}
const struct hm_embedded hm_embedded[] = {
${rows}    {0, 0, 0},
};
const int hm_embedded_count = ${count};
")
