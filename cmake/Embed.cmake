# pagoda_embed(VAR FILE...): VAR becomes a C file, made at build time, that holds the bytes of these files for
# cli/embedded.h.
function(pagoda_embed variable)
    set(output "${PROJECT_BINARY_DIR}/embedded.c")
    list(TRANSFORM ARGN PREPEND "${PROJECT_SOURCE_DIR}/" OUTPUT_VARIABLE files)
    set(script "${PROJECT_SOURCE_DIR}/cmake/embed_files.cmake")
    add_custom_command(
        OUTPUT "${output}"
        COMMAND "${CMAKE_COMMAND}" "-DOUTPUT=${output}" "-DFILES=${files}" -P "${script}"
        DEPENDS ${files} "${script}"
        VERBATIM)
    set(${variable} "${output}" PARENT_SCOPE)
endfunction()
