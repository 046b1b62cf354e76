# One interface target that carries the warnings and sanitizers of every target of the core.
add_library(pycomm_flags INTERFACE)
target_compile_options(pycomm_flags INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 warns about its own operator+(const char*, std::string&&): GCC bug 105651.
  target_compile_options(pycomm_flags INTERFACE -Wno-restrict)
endif()
if(PYCOMM_WERROR)
  target_compile_options(pycomm_flags INTERFACE -Werror)
endif()
if(PYCOMM_SANITIZE) # -O1: sanitizers at -O3 take minutes a file and find nothing more
  target_compile_options(pycomm_flags INTERFACE -fsanitize=${PYCOMM_SANITIZE} -fno-omit-frame-pointer -g1 -O1)
  target_link_options(pycomm_flags INTERFACE -fsanitize=${PYCOMM_SANITIZE})
endif()
