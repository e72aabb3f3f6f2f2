# How our own code is compiled. Everything is said once, in the interface library pagoda_options.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Release or Debug" FORCE)
endif()
set(CMAKE_C_FLAGS_DEBUG "-Og -g")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")

add_library(pagoda_options INTERFACE)
target_compile_definitions(pagoda_options INTERFACE _GNU_SOURCE)
target_compile_options(pagoda_options INTERFACE
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-compare -Wshadow -Wstrict-prototypes
    -Wvla -Wundef -Wcast-align -Wswitch-enum -fno-common
    $<$<BOOL:${PAGODA_WERROR}>:-Werror>)

if(CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_options(pagoda_options INTERFACE
        -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
    target_link_options(pagoda_options INTERFACE -Wl,-z,relro,-z,now -Wl,-z,noexecstack)
endif()

# Only our code is instrumented; llama.cpp stays as it was built.
if(PAGODA_SANITIZE)
    target_compile_options(pagoda_options INTERFACE
        -fsanitize=${PAGODA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1)
    target_link_options(pagoda_options INTERFACE -fsanitize=${PAGODA_SANITIZE})
endif()

# So that libFuzzer sees which branches are taken.
if(PAGODA_FUZZER)
    target_compile_options(pagoda_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
