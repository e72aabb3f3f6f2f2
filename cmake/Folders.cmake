# From folders to targets. Folders are scanned at every build, so a new file needs no edit here.

# pagoda_glob(VAR FOLDER...): VAR becomes every C file of the folders; those of src/ and engine/ include subfolders.
function(pagoda_glob variable)
    set(found "")
    foreach(folder ${ARGN})
        if(folder MATCHES "^tests|^bench")
            file(GLOB files CONFIGURE_DEPENDS "${folder}/*.c")
        else()
            file(GLOB_RECURSE files CONFIGURE_DEPENDS "${folder}/*.c")
        endif()
        list(APPEND found ${files})
    endforeach()
    set(${variable} ${found} PARENT_SCOPE)
endfunction()

# pagoda_select_kernels(VAR): drops the kernels of other processors from VAR and gives the rest their flags.
#
# A file for an instruction set is compiled with that set allowed and chosen at run time by the processor's
# answer; so nothing else may be compiled with those flags. Contraction is off so that every kernel rounds as the
# reference does.
function(pagoda_select_kernels variable)
    set(sources ${${variable}})
    if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
        list(FILTER sources EXCLUDE REGEX "/kernels/x86/")
    endif()
    if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
        list(FILTER sources EXCLUDE REGEX "/kernels/arm/")
    endif()
    foreach(source ${sources})
        if(NOT source MATCHES "/src/kernels/")
            continue()
        endif()
        set(flags -O3 -ffp-contract=off -fno-math-errno)
        if(source MATCHES "/kernels/x86/avx512[^/]*$")
            list(APPEND flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx2)
        elseif(source MATCHES "/kernels/x86/avx2[^/]*$")
            list(APPEND flags -mavx2 -mfma -mf16c)
        endif()
        set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${flags}")
    endforeach()
    set(${variable} ${sources} PARENT_SCOPE)
endfunction()

# pagoda_add_programs(FOLDER LIBRARY): one program per C file, built as <binary dir>/FOLDER/<name>.
# Tests get the harness (which has main) and are known to ctest.
function(pagoda_add_programs folder library)
    pagoda_glob(sources ${folder})
    string(REPLACE "/" "_" prefix "${folder}")
    foreach(source ${sources})
        get_filename_component(name "${source}" NAME_WE)
        set(target "${prefix}_${name}")
        add_executable(${target} "${source}")
        target_include_directories(${target} PRIVATE . include src tests)
        target_link_libraries(${target} PRIVATE ${library} pagoda_options)
        set_target_properties(${target} PROPERTIES
            OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/${folder}")
        if(folder MATCHES "^tests/")
            pagoda_add_harness()
            target_link_libraries(${target} PRIVATE pagoda_harness)
            add_test(NAME ${folder}/${name} COMMAND ${target} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
            add_dependencies(tests ${target})
        else()
            add_dependencies(benches ${target})
        endif()
    endforeach()
endfunction()

# The harness is compiled once. Objects rather than an archive, so that main is there whatever the order of linking.
function(pagoda_add_harness)
    if(TARGET pagoda_harness OR NOT harness_sources)
        return()
    endif()
    add_library(pagoda_harness OBJECT ${harness_sources})
    target_include_directories(pagoda_harness PRIVATE . include src tests)
    target_link_libraries(pagoda_harness PRIVATE pagoda_options)
endfunction()
