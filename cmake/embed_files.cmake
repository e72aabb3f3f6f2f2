# cmake -DOUTPUT=FILE "-DFILES=FILE;..." -P embed_files.cmake: writes files as one C table. See Embed.cmake.
set(arrays "")
set(table "")
foreach(file ${FILES})
    get_filename_component(name "${file}" NAME)
    string(MAKE_C_IDENTIFIER "${name}" variable)
    file(READ "${file}" bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    string(APPEND arrays "static const unsigned char ${variable}[] = {${bytes}};\n")
    string(APPEND table "    {\"${name}\", ${variable}, sizeof(${variable})},\n")
endforeach()
file(WRITE "${OUTPUT}" "#include \"cli/embedded.h\"\n\n${arrays}
const struct pgd_embedded pgd_embedded_files[] = {\n${table}    {0, 0, 0},\n};\n")
