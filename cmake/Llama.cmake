# Makes the target pagoda_llama from one of three places:
#   LLAMA_DIR=<path>           a llama.cpp source tree (environment or -D)
#   PAGODA_SYSTEM_LLAMA=ON     the system's libllama
#   neither                    the pinned source, fetched and built once below build/deps

set(LLAMA_DIR "$ENV{LLAMA_DIR}" CACHE PATH "A llama.cpp source tree to use in place of the pinned one")
set(native "$ENV{NATIVE}")
if(native STREQUAL "")
    set(native 1)
endif()
set(PAGODA_NATIVE ${native} CACHE STRING "1: llama.cpp for this very processor; 0: for any recent one")

add_library(pagoda_llama INTERFACE)

if(PAGODA_SYSTEM_LLAMA)
    find_package(PkgConfig REQUIRED)
    pkg_check_modules(LLAMA REQUIRED IMPORTED_TARGET llama)
    set(PAGODA_LLAMA_VERSION "${LLAMA_VERSION}")
    target_link_libraries(pagoda_llama INTERFACE PkgConfig::LLAMA)
else()
    execute_process(
        COMMAND "${CMAKE_COMMAND}" -E env
            "CC=${CMAKE_C_COMPILER}" "LLAMA_DIR=${LLAMA_DIR}" "NATIVE=${PAGODA_NATIVE}"
            "${PROJECT_SOURCE_DIR}/scripts/build-llama.sh"
        OUTPUT_VARIABLE llama_file OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
    if(failed)
        message(FATAL_ERROR "llama.cpp is not available; the reason is above")
    endif()
    include("${llama_file}")
    target_include_directories(pagoda_llama SYSTEM INTERFACE ${PAGODA_LLAMA_INCLUDE_DIRS})
    # The C++ runtime by name, because our own programs are linked as C.
    target_link_libraries(pagoda_llama INTERFACE
        ${PAGODA_LLAMA_LIBRARIES} $<IF:$<BOOL:${APPLE}>,c++,stdc++> Threads::Threads m ${CMAKE_DL_LIBS})
endif()
message(STATUS "llama.cpp ${PAGODA_LLAMA_VERSION}")
