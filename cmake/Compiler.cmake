# Chooses the C compiler before project() looks for one: CC if set, else clang, else gcc.
# scripts/find-cc.sh decides, so that llama.cpp and our code are built by the same one.
if(NOT CMAKE_C_COMPILER AND NOT DEFINED ENV{CC})
    execute_process(COMMAND "${CMAKE_CURRENT_LIST_DIR}/../scripts/find-cc.sh"
        OUTPUT_VARIABLE compilers RESULT_VARIABLE failed)
    if(NOT failed)
        string(REGEX MATCH "^[^\n]+" CMAKE_C_COMPILER "${compilers}")
    endif()
endif()
