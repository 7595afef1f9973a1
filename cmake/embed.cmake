# cmake -DOUT=FILE.c -DFILES=a,b,c -P embed.cmake
# Writes a C file that holds the named files as NUL-terminated bytes, under their names without folders; see certify/embedded.h.
# The assembler takes the bytes from the files: as C arrays they took longer to compile than all the rest.
string(REPLACE "," ";" files "${FILES}")
set(arrays "")
set(rows "")
set(count 0)
foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME)
    file(SIZE "${file}" size)
    string(APPEND arrays "EMBED(hm_embedded_data_${count}, \"${file}\")\n")
    string(APPEND rows "    {\"${name}\", hm_embedded_data_${count}, ${size}},\n")
    math(EXPR count "${count} + 1")
endforeach()
file(WRITE "${OUT}" "/* Made by cmake/embed.cmake at build time. */
#include \"certify/embedded.h\"

#define EMBED(name, file)                                                                                        \\
    __asm__(\".pushsection .rodata\\n.hidden \" #name \"\\n.globl \" #name \"\\n\" #name \":\\n.incbin \\\"\" file \"\\\"\\n\"   \\
            \".byte 0\\n.popsection\");                                                                             \\
    extern const char name[] __attribute__((visibility(\"hidden\")));
${arrays}
const struct hm_embedded hm_embedded[] = {
${rows}    {0, 0, 0},
};
const int hm_embedded_count = ${count};
")
